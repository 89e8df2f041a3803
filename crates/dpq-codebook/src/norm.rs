//! Norms, distances, differences and means, in loops that become vector instructions.

use std::iter::Sum;
use std::ops::{AddAssign, Range};

/// Norms whose products with each other f32 holds with full precision.
pub(crate) const SAFE_NORMS: std::ops::RangeInclusive<f64> = 1e-15..=1e15;

/// Returns true if a vector of this squared norm has a safe norm or is zero.
pub(crate) fn is_safe(square: f64) -> bool {
    square == 0.0 || SAFE_NORMS.contains(&square.sqrt())
}

/// Sums `term` over both slices in one fixed order. Eight partial sums let the loop become vector
/// instructions.
#[inline(always)]
pub(crate) fn sum<T: Copy + Default + AddAssign + Sum>(
    a: &[f32],
    b: &[f32],
    term: impl Fn(f32, f32) -> T,
) -> T {
    let mut sums = [T::default(); 8];
    let ((a, a_tail), (b, b_tail)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..8 {
            sums[lane] += term(a[lane], b[lane]);
        }
    }
    a_tail.iter().zip(b_tail).map(|(&a, &b)| term(a, b)).chain(sums).sum()
}

/// Returns the squared norm.
pub(crate) fn squared_norm(x: &[f32]) -> f64 {
    sum(x, x, |x, _| f64::from(x) * f64::from(x))
}

/// Returns the squared distance.
#[inline(always)]
pub(crate) fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    sum(a, b, |a, b| (a - b) * (a - b))
}

/// Folds `values` into sixteen partial results, which let the loop become vector instructions.
#[inline(always)]
pub(crate) fn lanes(values: &[f32], init: f32, fold: impl Fn(f32, f32) -> f32) -> [f32; 16] {
    let mut lanes = [init; 16];
    let (blocks, tail) = values.as_chunks::<16>();
    for block in blocks {
        lanes.iter_mut().zip(block).for_each(|(lane, &value)| *lane = fold(*lane, value));
    }
    lanes.iter_mut().zip(tail).for_each(|(lane, &value)| *lane = fold(*lane, value));
    lanes
}

pub(crate) fn subtract(residual: &mut [f32], codeword: &[f32]) {
    residual.iter_mut().zip(codeword).for_each(|(r, c)| *r -= c);
}

/// Replaces `out` by some dimensions of `rows` [n, dim].
pub(crate) fn gather(rows: &[f32], dim: usize, dims: Range<usize>, out: &mut Vec<f32>) {
    out.clear();
    rows.chunks_exact(dim).for_each(|row| out.extend_from_slice(&row[dims.clone()]));
}

pub(crate) fn add(sums: &mut [f64], row: &[f32]) {
    sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
}

/// Returns the mean of `rows` [n, dim], summed in their order.
pub(crate) fn mean(rows: &[f32], dim: usize) -> Vec<f32> {
    let mut sums = vec![0.0f64; dim];
    rows.chunks_exact(dim).for_each(|row| add(&mut sums, row));
    let n = rows.len() / dim;
    sums.iter().map(|sum| (sum / n as f64) as f32).collect()
}
