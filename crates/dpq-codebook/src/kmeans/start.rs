//! The codewords to start from, which grow by splitting.

use rayon::prelude::*;

use super::{Points, lloyd};
use crate::Error;
use crate::norm::{squared_distance, squared_norm};
use crate::vectorize::vectorize;

/// Rounds of Lloyd's algorithm between two splits, and rounds of power iteration for the direction
/// of a split. More of either hardly lower the distortion.
const GROWTH_ROUNDS: usize = 2;
const POWER_ROUNDS: usize = 2;

/// Returns `n_codewords` codewords to start from. The first is the mean. Splitting the half of the
/// codewords whose members have the largest error gives half as many again, until there are enough.
pub(super) fn start(points: &Points<'_>, n_codewords: usize) -> Result<Vec<f32>, Error> {
    let mut codewords = points.mean.clone();
    let mut members = vec![(0..points.values.len() / points.dim).collect::<Vec<_>>()];
    while members.len() < n_codewords {
        (codewords, members) = split(points, codewords, &members, n_codewords)?;
    }
    Ok(codewords)
}

/// Returns `n` of `rows` [_, dim], about evenly spaced.
///
/// Row i is at a place within the i-th of `n` equal parts that is as if random, so that a period in
/// the order of the rows does no harm.
pub(super) fn sample(rows: &[f32], dim: usize, n: usize) -> Vec<f32> {
    let n_rows = (rows.len() / dim) as u128;
    let mut sample = vec![0.0; n * dim];
    sample.par_chunks_exact_mut(dim).enumerate().for_each(|(i, row)| {
        // Multiples of the golden ratio, in units of 2⁻³², spread evenly between 0 and 1.
        let fraction = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let place = (((i as u128) << 32) + u128::from(fraction)) * n_rows;
        let at = (place / n as u128) >> 32;
        row.copy_from_slice(&rows[at as usize * dim..][..dim]);
    });
    sample
}

/// Splits the codewords whose members have the largest error, and returns all codewords and their
/// members after a few rounds.
fn split(
    points: &Points<'_>,
    mut codewords: Vec<f32>,
    members: &[Vec<usize>],
    n_codewords: usize,
) -> Result<(Vec<f32>, Vec<Vec<usize>>), Error> {
    let (dim, n) = (points.dim, members.len());
    let clusters = codewords.par_chunks_exact(dim).zip(members);
    let errors: Vec<f64> = clusters.map(|(codeword, members)| error(points, members, codeword)).collect();
    let mut split: Vec<usize> = (0..n).collect();
    split.sort_by(|&a, &b| errors[b].total_cmp(&errors[a]));
    split.truncate(n.div_ceil(2).min(n_codewords - n));
    let offsets: Vec<Vec<f32>> =
        split.par_iter().map(|&i| offset(points, &members[i], &codewords[i * dim..][..dim])).collect();
    for (i, offset) in split.into_iter().zip(offsets) {
        let codeword = &mut codewords[i * dim..][..dim];
        let second: Vec<f32> = codeword.iter().zip(&offset).map(|(c, offset)| c + offset).collect();
        codeword.iter_mut().zip(offset).for_each(|(c, offset)| *c -= offset);
        codewords.extend(second);
    }
    lloyd(points, codewords, GROWTH_ROUNDS)
}

/// Returns the offset from the mean of `members` to the means of their two halves, if they are
/// spread like a Gaussian: the direction of their largest variance, found by power iteration, times
/// 0.8 standard deviations.
#[inline(always)]
fn offset_any(points: &Points<'_>, members: &[usize], mean: &[f32]) -> Vec<f32> {
    let mut direction = vec![0.0; points.dim];
    let Some(farthest) = members
        .iter()
        .map(|&member| points.point(member))
        .max_by(|a, b| squared_distance(a, mean).total_cmp(&squared_distance(b, mean)))
    else {
        return direction;
    };
    direction.iter_mut().zip(farthest).zip(mean).for_each(|((d, x), mean)| *d = x - mean);
    for _ in 0..POWER_ROUNDS {
        normalize(&mut direction);
        let mut next = vec![0.0; points.dim];
        for &member in members {
            let x = points.point(member);
            let along = along(x, mean, &direction);
            next.iter_mut().zip(x).zip(mean).for_each(|((next, x), mean)| *next += along * (x - mean));
        }
        direction = next;
    }
    normalize(&mut direction);
    let variance: f64 =
        members.iter().map(|&m| f64::from(along(points.point(m), mean, &direction)).powi(2)).sum::<f64>()
            / members.len() as f64;
    let length = (0.8 * variance.sqrt()) as f32;
    direction.iter_mut().for_each(|d| *d *= length);
    direction
}

vectorize! {
    fn offset(points: &Points<'_>, members: &[usize], mean: &[f32]) -> Vec<f32> = offset_any, offset_any
}

/// Scales a vector to norm 1, unless it is zero.
#[inline(always)]
fn normalize(x: &mut [f32]) {
    let norm = squared_norm(x).sqrt();
    if norm > 0.0 {
        x.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
    }
}

/// Returns the inner product of x − mean and `direction`. Eight partial sums let the loop become
/// vector instructions.
#[inline(always)]
fn along(x: &[f32], mean: &[f32], direction: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    let ((x, x_tail), (mean, mean_tail)) = (x.as_chunks::<8>(), mean.as_chunks::<8>());
    let (direction, direction_tail) = direction.as_chunks::<8>();
    for ((x, mean), direction) in x.iter().zip(mean).zip(direction) {
        for lane in 0..8 {
            sums[lane] += (x[lane] - mean[lane]) * direction[lane];
        }
    }
    let tail = x_tail.iter().zip(mean_tail).zip(direction_tail);
    tail.map(|((x, mean), direction)| (x - mean) * direction).chain(sums).sum()
}

vectorize! {
    fn error(points: &Points<'_>, members: &[usize], codeword: &[f32]) -> f64 = error_any, error_any
}

/// Returns the sum of the squared distances between a codeword and its members.
#[inline(always)]
fn error_any(points: &Points<'_>, members: &[usize], codeword: &[f32]) -> f64 {
    let mut error = 0.0;
    for &member in members {
        error += f64::from(squared_distance(points.point(member), codeword));
    }
    error
}
