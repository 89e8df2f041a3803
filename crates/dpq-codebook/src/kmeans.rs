//! Residual k-means: codebooks from features alone.
//!
//! Level 0 is k-means on the features, each further level k-means on the residuals. Sums run over members in the order of
//! their rows, so threads do not change the result.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;

use crate::assign::{Level, Memory};
use crate::codebooks::check_n_codewords;
use crate::error::{check_finite, check_rows};
use crate::product::{squared_distance, squared_norm};
use crate::{Assignment, CodeLength, Codebooks, Error};

/// The configuration of residual k-means.
///
/// Source: two-step training of the paper's ablation (Table 2), the strongest start and, here, the strongest result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResidualKMeans {
    /// Levels to fit, L.
    pub n_levels: usize,
    /// Codewords a level, K.
    pub n_codewords: usize,
    /// Rounds of Lloyd's algorithm a level, at most; it stops when nothing moves.
    pub n_iterations: usize,
    /// Decides the starting codewords. The same seed gives the same bytes at any number of threads.
    pub seed: u64,
}

/// Features worked on at a time by one thread.
const CHUNK: usize = 48;

/// The stream of random numbers that k-means uses (docs/architecture.md).
const STREAM: u64 = 3;

/// Features a codeword among which starting codewords are chosen. More cost time and left no less distortion after the
/// rounds of Lloyd's algorithm.
const CANDIDATES: usize = 8;

impl ResidualKMeans {
    /// Fits codebooks to features [N, D] by Euclidean residual k-means.
    ///
    /// Starts with k-means++, and moves a codeword that lost all its members to the feature farthest from its own.
    /// `on_level` hears each level as it is done, with the share of the features' energy that it leaves.
    ///
    /// # Errors
    /// [`Error::TooFewFeatures`] if there are fewer features than codewords; [`Error::Length`], [`Error::Range`] or
    /// [`Error::NotFinite`] if arguments are wrong.
    pub fn train(
        &self,
        features: &[f32],
        dim: usize,
        on_level: &mut dyn FnMut(usize, f64),
    ) -> Result<Codebooks, Error> {
        CodeLength::from_levels(self.n_levels)?;
        check_n_codewords(self.n_codewords)?;
        if self.n_iterations == 0 {
            let expected = "at least 1".to_owned();
            return Err(Error::Range { what: "number of iterations", found: 0, expected });
        }
        if dim == 0 {
            return Err(Error::Range { what: "dimension", found: 0, expected: "at least 1".to_owned() });
        }
        let n_features = check_rows("features", features.len(), dim)?;
        check_finite("features", features)?;
        if n_features < self.n_codewords {
            return Err(Error::TooFewFeatures { n_features, n_codewords: self.n_codewords });
        }

        let energy = sum_of_squares(features);
        let mut residuals = features.to_vec();
        let mut values = Vec::with_capacity(self.n_levels * self.n_codewords * dim);
        for level in 0..self.n_levels {
            let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
            rng.set_stream(STREAM);
            rng.set_word_pos((level as u128) << 32);
            let codewords = self.lloyd(&residuals, dim, start(&residuals, dim, self.n_codewords, &mut rng));
            let assigned = assign(&residuals, dim, &codewords);
            residuals.par_chunks_exact_mut(dim).zip(&assigned).for_each(|(residual, &codeword)| {
                let codeword = &codewords[codeword * dim..][..dim];
                residual.iter_mut().zip(codeword).for_each(|(r, c)| *r -= c);
            });
            values.extend(codewords);
            on_level(level, if energy > 0.0 { sum_of_squares(&residuals) / energy } else { 0.0 });
        }
        Codebooks::new(values, self.n_levels, self.n_codewords, dim, Assignment::Euclidean)
    }

    /// Lloyd's algorithm: assign to the nearest codeword, move codewords to the mean of their members.
    fn lloyd(&self, points: &[f32], dim: usize, mut codewords: Vec<f32>) -> Vec<f32> {
        let mut before = Vec::new();
        for _ in 0..self.n_iterations {
            let assigned = assign(points, dim, &codewords);
            if assigned == before {
                break;
            }
            let members = members(&assigned, self.n_codewords);
            codewords.par_chunks_exact_mut(dim).zip(&members).for_each(|(codeword, members)| {
                mean(points, dim, members, codeword);
            });
            revive(points, dim, &members, &assigned, &mut codewords);
            before = assigned;
        }
        codewords
    }
}

/// The nearest codeword of each point; the least of equals.
fn assign(points: &[f32], dim: usize, codewords: &[f32]) -> Vec<usize> {
    let level = Level::new(Assignment::Euclidean, codewords, dim);
    let mut assigned = vec![0; points.len() / dim];
    assigned.par_chunks_mut(CHUNK).zip(points.par_chunks(CHUNK * dim)).for_each_init(
        Memory::default,
        |memory, (assigned, points)| {
            assigned
                .iter_mut()
                .zip(level.assign(points, memory))
                .for_each(|(assigned, best)| *assigned = best);
        },
    );
    assigned
}

/// The points of each codeword, in ascending order.
pub(crate) fn members(assigned: &[usize], n_codewords: usize) -> Vec<Vec<usize>> {
    let mut members = vec![Vec::new(); n_codewords];
    assigned.iter().enumerate().for_each(|(point, &codeword)| members[codeword].push(point));
    members
}

/// The mean of `members`; a codeword without any stays where it is.
fn mean(points: &[f32], dim: usize, members: &[usize], codeword: &mut [f32]) {
    if members.is_empty() {
        return;
    }
    let mut sums = vec![0.0f64; dim];
    for &point in members {
        sums.iter_mut().zip(&points[point * dim..][..dim]).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    codeword.iter_mut().zip(sums).for_each(|(c, sum)| *c = (sum / members.len() as f64) as f32);
}

/// Moves codewords without members to the points farthest from their own codewords.
fn revive(points: &[f32], dim: usize, members: &[Vec<usize>], assigned: &[usize], codewords: &mut [f32]) {
    let dead: Vec<usize> = (0..members.len()).filter(|&codeword| members[codeword].is_empty()).collect();
    if dead.is_empty() {
        return;
    }
    let mut farthest: Vec<(f32, usize)> = points
        .par_chunks_exact(dim)
        .zip(assigned)
        .enumerate()
        .map(|(point, (x, &own))| (squared_distance(x, &codewords[own * dim..][..dim]), point))
        .collect();
    farthest.par_sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    // A point that its codeword meets exactly has no use for another one.
    for (codeword, (_, point)) in dead.into_iter().zip(farthest.into_iter().filter(|point| point.0 > 0.0)) {
        codewords[codeword * dim..][..dim].copy_from_slice(&points[point * dim..][..dim]);
    }
}

/// Starting codewords by k-means++: each is a point drawn with probability proportional to its squared distance from the
/// codewords drawn before it. The points come from a random sample when there are many.
fn start(points: &[f32], dim: usize, n_codewords: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let n = points.len() / dim;
    let mut rows: Vec<usize> = (0..n).collect();
    let n_rows = n.min(CANDIDATES * n_codewords);
    for i in 0..n_rows {
        rows.swap(i, i + below(rng, n - i));
    }
    rows.truncate(n_rows);

    let mut codewords = Vec::with_capacity(n_codewords * dim);
    let mut distances = vec![f32::INFINITY; n_rows];
    let mut next = 0;
    loop {
        let codeword = &points[rows[next] * dim..][..dim];
        codewords.extend_from_slice(codeword);
        if codewords.len() == n_codewords * dim {
            return codewords;
        }
        distances.par_iter_mut().zip(&rows).with_min_len(CHUNK).for_each(|(distance, &row)| {
            *distance = distance.min(squared_distance(&points[row * dim..][..dim], codeword));
        });
        next = draw(rng, &distances);
    }
}

/// A position drawn with probability proportional to its weight; any if all weights are 0.
fn draw(rng: &mut ChaCha8Rng, weights: &[f32]) -> usize {
    let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
    let mut left = (rng.next_u64() >> 11) as f64 * (0.5f64).powi(53) * total;
    for (position, &weight) in weights.iter().enumerate() {
        left -= f64::from(weight);
        if left < 0.0 {
            return position;
        }
    }
    // All weights are 0, or rounding left a little: every position serves.
    below(rng, weights.len())
}

/// A number below `n`. The bias of one part in 2^64 / n does not matter here; that the numbers never change does.
fn below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize
}

fn sum_of_squares(points: &[f32]) -> f64 {
    let sums: Vec<f64> = points.par_chunks(CHUNK * 1024).map(squared_norm).collect();
    sums.iter().sum()
}
