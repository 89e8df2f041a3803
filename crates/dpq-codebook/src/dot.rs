//! One inner product in one fixed order of summation, the same bits on every CPU.
//!
//! Both sides count as padded with zeros to a multiple of 16. Element i is added to partial sum i mod 16 by fused
//! multiply-add; the sixteen partial sums are then added as a tree: i and i + 8, i and i + 4, i and i + 2, i and i + 1.
//! A sum of zero is +0.

use crate::vectorize::vectorize;

/// Partial sums.
const LANES: usize = 16;

/// Rows that are worked on together, so that several chains of additions are in flight.
const ROWS: usize = 4;

/// The inner products of `x` [dim] and each row of `rows` [n, dim]: out [n]. All numbers are finite.
pub(crate) fn dots(x: &[f32], rows: &[f32], out: &mut [f32]) {
    assert_eq!(rows.len(), out.len() * x.len(), "whole rows");
    vectorized(x, rows, out);
}

vectorize!(fn vectorized(x: &[f32], rows: &[f32], out: &mut [f32]) = dots_any, dots_any);

#[inline(always)]
fn dots_any(x: &[f32], rows: &[f32], out: &mut [f32]) {
    let dim = x.len();
    let padded = dim.next_multiple_of(LANES);
    let x = pad(x, padded);
    // A row is read to the next multiple of 16, into the row behind it: x is 0 there, so what is read does not count.
    let readable = (0..out.len()).take_while(|row| row * dim + padded <= rows.len()).count();
    let (direct, last) = out.split_at_mut(readable / ROWS * ROWS);
    for (block, out) in direct.chunks_exact_mut(ROWS).enumerate() {
        let row = |i| &rows[(block * ROWS + i) * dim..][..padded];
        out.copy_from_slice(&dots_of(&x, [row(0), row(1), row(2), row(3)]));
    }
    // The rows behind which too little lies are copied.
    for (row, out) in rows[direct.len() * dim..].chunks_exact(dim).zip(last) {
        [*out] = dots_of(&x, [&pad(row, padded)]);
    }
}

/// [`dots`] with one row.
#[inline(always)]
pub(crate) fn dot(x: &[f32], row: &[f32]) -> f32 {
    debug_assert_eq!(x.len(), row.len(), "vectors of one length");
    let mut sums = [0.0f32; LANES];
    let ((x, x_tail), (row, row_tail)) = (x.as_chunks::<LANES>(), row.as_chunks::<LANES>());
    for (x, row) in x.iter().zip(row) {
        for lane in 0..LANES {
            sums[lane] = x[lane].mul_add(row[lane], sums[lane]);
        }
    }
    for (sum, (x, c)) in sums.iter_mut().zip(x_tail.iter().zip(row_tail)) {
        *sum = x.mul_add(*c, *sum);
    }
    add_up(sums)
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2 {
    use std::arch::x86_64::*;

    use super::{LANES, add_up};

    /// [`dots`](super::dots) with one row. The compiler vectorizes [`dot`](super::dot) only two numbers wide.
    #[expect(unsafe_code, reason = "vector loads and stores take pointers")]
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(crate) fn dot(x: &[f32], row: &[f32]) -> f32 {
        debug_assert_eq!(x.len(), row.len(), "vectors of one length");
        let mut sums = [_mm256_setzero_ps(); 2];
        let mut multiply_add = |x: &[f32; LANES], row: &[f32; LANES]| {
            for (sum, at) in sums.iter_mut().zip([0, LANES / 2]) {
                // SAFETY: eight of sixteen numbers, from the first or the ninth on.
                let [x, row] = [x, row].map(|numbers| unsafe { _mm256_loadu_ps(numbers[at..].as_ptr()) });
                *sum = _mm256_fmadd_ps(x, row, *sum);
            }
        };
        let ((x, x_tail), (row, row_tail)) = (x.as_chunks::<LANES>(), row.as_chunks::<LANES>());
        for (x, row) in x.iter().zip(row) {
            multiply_add(x, row);
        }
        let [mut x, mut row] = [[0.0; LANES]; 2];
        x[..x_tail.len()].copy_from_slice(x_tail);
        row[..row_tail.len()].copy_from_slice(row_tail);
        multiply_add(&x, &row);
        let mut out = [0.0; LANES];
        for (sum, at) in sums.into_iter().zip([0, LANES / 2]) {
            // SAFETY: there is room for eight numbers from the first or the ninth on.
            unsafe { _mm256_storeu_ps(out[at..].as_mut_ptr(), sum) }
        }
        add_up(out)
    }
}

fn pad(values: &[f32], len: usize) -> Vec<f32> {
    let mut padded = values.to_vec();
    padded.resize(len, 0.0);
    padded
}

#[inline(always)]
fn dots_of<const N: usize>(x: &[f32], rows: [&[f32]; N]) -> [f32; N] {
    let mut sums = [[0.0f32; LANES]; N];
    let (x, _) = x.as_chunks::<LANES>();
    let rows = rows.map(|row| &row.as_chunks::<LANES>().0[..x.len()]);
    for (i, x) in x.iter().enumerate() {
        for (sums, row) in sums.iter_mut().zip(&rows) {
            for lane in 0..LANES {
                sums[lane] = x[lane].mul_add(row[i][lane], sums[lane]);
            }
        }
    }
    sums.map(add_up)
}

/// The sum of all partial sums.
#[inline(always)]
fn add_up(mut sums: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
        half /= 2;
    }
    // The sign of a zero may come from the padding; adding 0 makes it +.
    sums[0] + 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition of the order, one element at a time.
    fn naive(x: &[f32], row: &[f32]) -> f32 {
        let mut sums = [0.0f32; 16];
        for i in 0..x.len() {
            sums[i % 16] = x[i].mul_add(row[i], sums[i % 16]);
        }
        for half in [8, 4, 2, 1] {
            for lane in 0..half {
                sums[lane] += sums[lane + half];
            }
        }
        sums[0] + 0.0
    }

    fn assert_defined(x: &[f32], rows: &[f32]) {
        let n = rows.len() / x.len();
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let expected: Vec<_> = rows.chunks_exact(x.len()).map(|row| naive(x, row)).collect();
        let one_by_one = |x: &[f32], rows: &[f32], out: &mut [f32]| {
            out.iter_mut().zip(rows.chunks_exact(x.len())).for_each(|(out, row)| *out = dot(x, row));
        };
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            for (row, expected) in rows.chunks_exact(x.len()).zip(&expected) {
                #[expect(unsafe_code)]
                // SAFETY: the line above found AVX2 and FMA.
                let product = unsafe { avx2::dot(x, row) };
                assert_eq!(product.to_bits(), expected.to_bits(), "dim {}", x.len());
            }
        }
        for route in [dots, dots_any, one_by_one] {
            let mut out = vec![f32::NAN; n];
            route(x, rows, &mut out);
            assert_eq!(bits(&out), bits(&expected), "dim {}, n {n}", x.len());
        }
    }

    #[test]
    fn every_route_gives_the_bits_of_the_definition() {
        for dim in [1, 2, 15, 16, 17, 31, 32, 100, 300] {
            for n in [1, 3, 4, 5, 9, 40] {
                let values: Vec<f32> =
                    (0..dim * (n + 1)).map(|i| ((i * 7919) % 1009) as f32 / 313.0 - 1.6).collect();
                let (x, rows) = values.split_at(dim);
                assert_defined(x, rows);
            }
        }
    }

    #[test]
    fn products_too_small_for_f32_give_plus_zero_whatever_lies_behind() {
        for sign in [1.0, -1.0] {
            assert_defined(&[1e-30; 5], &[-1e-30 * sign; 5 * 60]);
            let mut out = [1.0; 60];
            dots(&[1e-30; 5], &[-1e-30 * sign; 5 * 60], &mut out);
            assert!(out.iter().all(|x| x.to_bits() == 0));
        }
    }
}
