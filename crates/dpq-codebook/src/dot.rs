//! Inner products in one fixed order of summation, which gives the same bits on every CPU.
//!
//! Both vectors count as padded with zeros to a multiple of 16. Fused multiply-add adds element i
//! to partial sum i mod 16. A tree then adds the sixteen partial sums: i and i + 8, i and i + 4, i
//! and i + 2, i and i + 1. A sum of zero is +0.

use crate::vectorize::vectorize;
use crate::{Error, Expected};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

/// The number of partial sums.
pub(crate) const LANES: usize = 16;

/// The number of rows that are multiplied together, so that several chains of additions overlap.
pub(crate) const ROWS: usize = 4;

/// The number of vectors that are multiplied with a row while it is in a cache. At most this many
/// vectors of a few kilobytes stay in the second-level cache.
const BATCH: usize = 32;

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
    dots_at(x, rows, None, out);
}

/// Writes the inner products of `x` [dim] and the rows of `rows` that `at` [n] names, or each if it
/// is `None`, to `out` [n]. All numbers are finite.
pub(crate) fn dots_at(x: &[f32], rows: &[f32], at: Option<&[usize]>, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        #[expect(unsafe_code, reason = "the call is safe only where the CPU has the instructions")]
        // SAFETY: the line above found AVX-512.
        return unsafe { avx512::dots(x, rows, at, out) };
    }
    vectorized(x, rows, at, out);
}

vectorize! {
    fn vectorized(x: &[f32], rows: &[f32], at: Option<&[usize]>, out: &mut [f32]) =
        |x: &[f32], rows, at, out| by_fours(x.len(), rows, at, out, |rows| avx2::dots_of(x, rows)),
        |x: &[f32], rows, at, out| by_fours(x.len(), rows, at, out, |rows| dots_of(x, rows))
}

/// Writes the inner products of each of `xs` [m, dim] and each row of `rows` [n, dim] to `out` [m,
/// n], each with the bits of [`dots`]. Reads each row from memory once for [`BATCH`] of `xs`. All
/// numbers are finite.
pub(crate) fn dots_of_many(xs: &[f32], rows: &[f32], dim: usize, out: &mut [f32]) {
    let n = rows.len() / dim;
    assert_eq!((xs.len() / dim * n, xs.len() % dim, rows.len() % dim), (out.len(), 0, 0), "whole rows");
    for (xs, out) in xs.chunks(BATCH * dim).zip(out.chunks_mut((BATCH * n).max(1))) {
        if xs.len() == dim {
            dots(xs, rows, out);
        } else {
            batch(xs, rows, dim, out);
        }
    }
}

fn batch(xs: &[f32], rows: &[f32], dim: usize, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        #[expect(unsafe_code, reason = "the call is safe only where the CPU has the instructions")]
        // SAFETY: the line above found AVX-512.
        return unsafe { avx512::batch(xs, rows, dim, out) };
    }
    vectorized_batch(xs, rows, dim, out);
}

vectorize! {
    fn vectorized_batch(xs: &[f32], rows: &[f32], dim: usize, out: &mut [f32]) =
        |xs, rows, dim, out| by_tiles(&split(xs, dim), rows, dim, out, |xs: [_; 2], rows| avx2::tile(xs, rows)),
        |xs, rows, dim, out| by_tiles(&split(xs, dim), rows, dim, out, |xs: [_; 1], rows| xs.map(|x| dots_of(x, rows)))
}

fn split(xs: &[f32], dim: usize) -> Vec<&[f32]> {
    xs.chunks_exact(dim).collect()
}

/// Multiplies a few rows with all of `xs`, `M` at a time, while the rows are in the nearest cache.
#[inline(always)]
fn by_tiles<X: Copy, const M: usize>(
    xs: &[X],
    rows: &[f32],
    dim: usize,
    out: &mut [f32],
    tile: impl Fn([X; M], [&[f32]; ROWS]) -> [[f32; ROWS]; M],
) {
    let n = rows.len() / dim;
    for (i, rows) in rows.chunks(ROWS * dim).enumerate() {
        let n_rows = rows.len() / dim;
        let rows = four(rows, dim);
        for (xs, out) in xs.chunks(M).zip(out.chunks_mut(M * n)) {
            // The last vector stands in for missing ones.
            let products = tile(std::array::from_fn(|i| xs[i.min(xs.len() - 1)]), rows);
            for (out, products) in out.chunks_exact_mut(n).zip(products) {
                out[i * ROWS..][..n_rows].copy_from_slice(&products[..n_rows]);
            }
        }
    }
}

/// Returns up to four rows [n, dim]. The last row stands in for missing ones.
#[inline(always)]
fn four(rows: &[f32], dim: usize) -> [&[f32]; ROWS] {
    let last = rows.len() / dim - 1;
    std::array::from_fn(|i| &rows[i.min(last) * dim..][..dim])
}

/// Makes the CPU load the begin of a row, which is read soon. Rows that follow each other it loads
/// by itself.
#[inline(always)]
fn prefetch(row: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    for line in row.chunks(LANES).take(8) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        #[expect(unsafe_code, reason = "the instruction is part of every CPU of this kind")]
        // SAFETY: SSE is part of x86-64, and any address is allowed.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
        }
    }
}

#[inline(always)]
fn by_fours(
    dim: usize,
    rows: &[f32],
    at: Option<&[usize]>,
    out: &mut [f32],
    dots_of: impl Fn([&[f32]; ROWS]) -> [f32; ROWS],
) {
    for (start, out) in (0..).step_by(ROWS).zip(out.chunks_mut(ROWS)) {
        // The last row stands in for missing ones.
        let row = |i: usize| start + i.min(out.len() - 1);
        let row = |i: usize| at.map_or(row(i), |at| at[row(i)]);
        if let Some(at) = at {
            at[(start + ROWS).min(at.len())..].iter().take(ROWS).for_each(|row| prefetch(&rows[row * dim..]));
        }
        let products = dots_of(std::array::from_fn(|i| &rows[row(i) * dim..][..dim]));
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

/// Adds the partial sums.
#[inline(always)]
pub(crate) fn add_up(mut sums: [f32; LANES]) -> f32 {
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

    type Route = fn(&[f32], &[f32], usize, &mut [f32]);

    /// Compares every route for one or many `xs` [m, dim] with the definition.
    fn assert_defined(xs: &[f32], rows: &[f32], dim: usize) {
        let one: &[Route] = &[
            |xs, rows, dim, out| {
                let n = rows.len() / dim;
                xs.chunks_exact(dim).zip(out.chunks_exact_mut(n)).for_each(|(x, out)| dots(x, rows, out));
            },
            |xs, rows, dim, out| {
                let n = rows.len() / dim;
                let xs = xs.chunks_exact(dim).zip(out.chunks_exact_mut(n));
                xs.for_each(|(x, out)| vectorized(x, rows, None, out));
            },
            |xs, rows, dim, out| {
                let n = rows.len() / dim;
                let xs = xs.chunks_exact(dim).zip(out.chunks_exact_mut(n));
                xs.for_each(|(x, out)| by_fours(dim, rows, None, out, |rows| dots_of(x, rows)));
            },
        ];
        let many: &[Route] = &[dots_of_many, batch, vectorized_batch, |xs, rows, dim, out| {
            by_tiles(&split(xs, dim), rows, dim, out, |xs: [_; 3], rows| xs.map(|x| dots_of(x, rows)));
        }];
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let products = |x| rows.chunks_exact(dim).map(move |row| naive(x, row));
        let expected: Vec<_> = xs.chunks_exact(dim).flat_map(products).collect();
        for route in one.iter().chain(many) {
            let mut out = vec![f32::NAN; expected.len()];
            route(xs, rows, dim, &mut out);
            assert_eq!(bits(&out), bits(&expected), "dim {dim}, {} × {}", xs.len() / dim, rows.len() / dim);
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
        // Miri would take hours for more.
        let dims: &[usize] = if cfg!(miri) { &[1, 17] } else { &[1, 2, 15, 16, 17, 31, 32, 100, 300] };
        for &dim in dims {
            for (m, n) in [(1, 1), (1, 3), (1, 40), (2, 4), (3, 5), (9, 7), (BATCH, 8), (2 * BATCH + 1, 9)] {
                let values: Vec<f32> =
                    (0..dim * (m + n)).map(|i| ((i * 7919) % 1009) as f32 / 313.0 - 1.6).collect();
                let (xs, rows) = values.split_at(m * dim);
                assert_defined(xs, rows, dim);
            }
        }
    }

    #[test]
    fn products_too_small_for_f32_give_plus_zero_whatever_lies_behind() {
        for sign in [1.0, -1.0] {
            assert_defined(&[1e-30; 10], &[-1e-30 * sign; 5 * 60], 5);
            let mut out = [1.0; 60];
            dots(&[1e-30; 5], &[-1e-30 * sign; 5 * 60], &mut out);
            assert!(out.iter().all(|x| x.to_bits() == 0));
        }
    }
}
