//! Inner products in one fixed order of summation, which gives the same bits on every CPU.
//!
//! Both vectors count as padded with zeros to a multiple of 16. Fused multiply-add adds element i
//! to partial sum i mod 16. A tree then adds the sixteen partial sums: i and i + 8, i and i + 4, i
//! and i + 2, i and i + 1. A sum of zero is +0.

use crate::vectorize::vectorize;
use crate::{Error, Expected};

/// The number of partial sums.
const LANES: usize = 16;

/// The number of rows that are multiplied together, so that several chains of additions overlap.
pub(crate) const ROWS: usize = 4;

/// Writes the inner products of `x` and each row of `rows`, summed in the order of a lookup table's
/// entries. The result has the same bits on every CPU, and does not change if the two sides of a
/// product trade places.
///
/// Shapes: `x` `[D]`, `rows` `[n, D]`, `out` `[n]`. A product of numbers that are not finite is not
/// finite either.
///
/// # Errors
/// [`Error::Argument`] unless `rows` has one row of D values per element of `out`.
pub fn inner_products(x: &[f32], rows: &[f32], out: &mut [f32]) -> Result<(), Error> {
    Expected::Shape(vec![out.len(), x.len()]).check("rows", rows.len())?;
    if x.is_empty() {
        out.fill(0.0);
    } else {
        dots(x, rows, out);
    }
    Ok(())
}

/// Writes the inner products of `x` [dim] and each row of `rows` [n, dim] to `out` [n]. All numbers
/// are finite.
pub(crate) fn dots(x: &[f32], rows: &[f32], out: &mut [f32]) {
    assert_eq!(rows.len(), out.len() * x.len(), "whole rows");
    vectorized(x, rows, out);
}

vectorize! {
    fn vectorized(x: &[f32], rows: &[f32], out: &mut [f32]) =
        |x, rows, out| by_fours(x, rows, out, |x, rows| avx2::dots_of(x, rows)),
        |x, rows, out| by_fours(x, rows, out, dots_of)
}

#[inline(always)]
fn by_fours(
    x: &[f32],
    rows: &[f32],
    out: &mut [f32],
    dots_of: impl Fn(&[f32], [&[f32]; ROWS]) -> [f32; ROWS],
) {
    for (rows, out) in rows.chunks(ROWS * x.len()).zip(out.chunks_mut(ROWS)) {
        // The last row stands in for missing ones.
        let row = |i: usize| &rows[i.min(out.len() - 1) * x.len()..][..x.len()];
        let products = dots_of(x, std::array::from_fn(row));
        out.copy_from_slice(&products[..out.len()]);
    }
}

/// Returns the inner products of `x` and rows of the same length.
#[inline(always)]
pub(crate) fn dots_of(x: &[f32], rows: [&[f32]; ROWS]) -> [f32; ROWS] {
    rows.map(|row| {
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
    })
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2 {
    use std::arch::x86_64::*;

    use super::{LANES, ROWS};

    /// [`dots_of`](super::dots_of) eight numbers wide; the compiler would vectorize it two wide.
    #[expect(unsafe_code, reason = "vector loads and stores take pointers")]
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(crate) fn dots_of(x: &[f32], rows: [&[f32]; ROWS]) -> [f32; ROWS] {
        let (x, x_tail) = x.as_chunks::<LANES>();
        let (mut blocks, mut tails) = ([&[][..]; ROWS], [&[][..]; ROWS]);
        for ((blocks, tail), row) in blocks.iter_mut().zip(&mut tails).zip(rows) {
            (*blocks, *tail) = row.as_chunks::<LANES>();
            assert!(blocks.len() == x.len() && tail.len() == x_tail.len(), "vectors of one length");
        }
        let mut sums = [[_mm256_setzero_ps(); ROWS]; 2];
        for (i, x) in x.iter().enumerate() {
            for (sums, at) in sums.iter_mut().zip([0, LANES / 2]) {
                // SAFETY: reads eight of sixteen numbers, starting at the first or the ninth.
                let load = |numbers: &[f32; LANES]| unsafe { _mm256_loadu_ps(numbers[at..].as_ptr()) };
                let x = load(x);
                for (sum, blocks) in sums.iter_mut().zip(blocks) {
                    *sum = _mm256_fmadd_ps(x, load(&blocks[i]), *sum);
                }
            }
        }
        for (sums, at) in sums.iter_mut().zip([0, LANES / 2]) {
            let n_rest = x_tail.len().saturating_sub(at) as i32;
            let mask =
                _mm256_cmpgt_epi32(_mm256_set1_epi32(n_rest), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
            // SAFETY: the mask reads only numbers inside the tail, and all tails have one length.
            let load = |tail: &[f32]| unsafe { _mm256_maskload_ps(tail.as_ptr().wrapping_add(at), mask) };
            let x = load(x_tail);
            for (sum, tail) in sums.iter_mut().zip(tails) {
                *sum = _mm256_fmadd_ps(x, load(tail), *sum);
            }
        }
        // The tree of `add_up`, for all rows together.
        let [low, high] = sums;
        let mut halves = [_mm_setzero_ps(); ROWS];
        for ((half, low), high) in halves.iter_mut().zip(low).zip(high) {
            let sum = _mm256_add_ps(low, high);
            *half = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum));
        }
        let [a, b, c, d] = &mut halves;
        _MM_TRANSPOSE4_PS(a, b, c, d);
        let sum = _mm_add_ps(_mm_add_ps(*a, *c), _mm_add_ps(*b, *d));
        let mut out = [0.0; ROWS];
        // SAFETY: `out` has four numbers.
        unsafe { _mm_storeu_ps(out.as_mut_ptr(), _mm_add_ps(sum, _mm_setzero_ps())) }
        out
    }
}

/// Adds the partial sums.
#[inline(always)]
fn add_up(mut sums: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
        half /= 2;
    }
    // Padding can make a zero negative; adding 0 makes it +0.
    sums[0] + 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, one element at a time.
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
        for route in
            [dots, |x, rows, out| by_fours(x, rows, out, dots_of)] as [fn(&[f32], &[f32], &mut [f32]); 2]
        {
            let mut out = vec![f32::NAN; n];
            route(x, rows, &mut out);
            assert_eq!(bits(&out), bits(&expected), "dim {}, n {n}", x.len());
        }
    }

    #[test]
    fn inner_products_have_one_row_per_element() {
        let (a, b, mut out) = ([1.5f32, -2.0, 3.25], [0.5f32, 7.0, -1.75], [9.0; 2]);
        inner_products(&a, &[b, b].concat(), &mut out).unwrap();
        assert_eq!(out, [naive(&b, &a); 2]);
        for rows in [&[][..], &[0.0; 5], &[0.0; 9]] {
            assert!(inner_products(&a, rows, &mut out).is_err());
        }
        inner_products(&[], &[], &mut out).unwrap();
        assert_eq!(out, [0.0; 2]);
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
