//! Residual k-means, and k-means by part: codebooks from features alone.
//!
//! Level 0 is k-means on the features, each further level k-means on the residuals. Product
//! codebooks are k-means on each part of the features. Nothing is random: k-means starts with one
//! codeword, the mean, and splits the codewords of the largest error in two until there are enough.
//! Sums run over members in the order of their rows, so threads do not change the result.

use std::sync::atomic::AtomicBool;

use rayon::prelude::*;

use crate::assign::{Level, Scratch};
use crate::beam::weights_from;
use crate::codebooks::check_sizes;
use crate::error::{MAX_VALUES, check_finite, check_size};
use crate::norm::{add, gather, mean, squared_distance, squared_norm, subtract};
use crate::options::{check_interrupt, is_set};
use crate::rounded::{Precision, Rows};
use crate::vectorize::vectorize;
use crate::{Assignment, Beam, Codebooks, Error, Expected, FitOptions, Form};
use start::{sample, start};

mod many;
mod start;

/// The configuration of residual k-means, and of k-means by part.
///
/// Source: two-step training of the paper's ablation (Table 2), the strongest start and, here, the
/// strongest result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResidualKMeans {
    /// Levels to fit, L.
    pub n_levels: usize,
    /// Codewords per level, K.
    pub n_codewords: usize,
    /// The maximum number of rounds of Lloyd's algorithm per level, once it has all codewords. A
    /// level stops earlier when no feature changes its codeword. Where codewords grow on a sample
    /// ([`FitOptions::init_size`]), half of the rounds move codewords further.
    pub n_iterations: usize,
}

/// The number of features that a thread works on at a time.
const CHUNK: usize = 48;

impl ResidualKMeans {
    /// Fits codebooks to features [N, D] by Euclidean residual k-means, for greedy codes.
    ///
    /// The same features give the same bytes at any number of threads. Takes memory for 1.5 times
    /// the features, beside the features. [`train_with`](Self::train_with) reports progress, can be
    /// interrupted, and fits for beam search.
    ///
    /// # Errors
    /// [`Error::TooFewFeatures`] if there are fewer features than codewords. [`Error::Argument`] or
    /// [`Error::NotFinite`] if arguments are wrong.
    pub fn train(&self, features: &[f32], dim: usize) -> Result<Codebooks, Error> {
        self.train_with(features, dim, FitOptions::default())
    }

    /// Fits codebooks as [`train`](Self::train), with options.
    ///
    /// `progress` is called after each level with its number and the share of the features' energy
    /// that the best codes up to this level leave.
    ///
    /// With a beam, a level is fitted to the residuals of each code of the beam that is nearly as
    /// good as the best, so to more than the features alone. Compared with `train`, codes of new
    /// features leave less error at the longer lengths and slightly more at short ones. Codes of
    /// the features fitted gain only after [`refine`](Codebooks::refine) (docs/codes.md). Takes
    /// memory for about three times the beam's width times the features.
    ///
    /// Source: faiss's residual quantizer, which fits a level to all codes of the beam.
    ///
    /// # Errors
    /// As [`train`](Self::train), and [`Error::Weight`] or [`Error::TooLarge`] for the beam.
    /// [`Error::Interrupted`] if the caller interrupts.
    pub fn train_with(
        &self,
        features: &[f32],
        dim: usize,
        mut options: FitOptions<'_>,
    ) -> Result<Codebooks, Error> {
        let &Self { n_levels, n_codewords, .. } = self;
        let init_size = self.check(features, dim, &options)?;
        let equal = vec![1.0; n_levels];
        let beam = options.beam.unwrap_or(Beam { width: 1, weights: &equal });
        let energy = sum_of_squares(features);
        let share = |error: f64| if energy > 0.0 { error / energy } else { 0.0 };
        let weights = beam.normalized_weights();
        let weights_from = weights_from(&weights);
        let mut residuals = features.to_vec();
        let mut gram = Vec::new();
        let mut values = Vec::with_capacity(n_levels * n_codewords * dim);
        for level in 0..n_levels {
            let codewords = self.fit(&residuals, dim, init_size, options.interrupt)?;
            values.extend_from_slice(&codewords);
            let error = if beam.width == 1 {
                subtract_nearest(&mut residuals, dim, &codewords, options.interrupt)?
            } else {
                let codebooks =
                    Codebooks::new(values.clone(), level + 1, n_codewords, dim, Assignment::Euclidean)?;
                // The last weight is that of all longer codes, as if they left the same error.
                let weights = [&weights[..level], &weights_from[level..=level]].concat();
                let n_kept = if level + 1 == n_levels { 1 } else { beam.width };
                // Frees their memory before the next residuals take it.
                drop(std::mem::take(&mut residuals));
                let beam = Beam { weights: &weights, ..beam };
                let error;
                (error, residuals) =
                    codebooks.beam_residuals(features, beam, n_kept, &mut gram, options.interrupt)?;
                error
            };
            options.report(level, share(error));
        }
        Codebooks::new(values, n_levels, n_codewords, dim, Assignment::Euclidean)
    }

    /// Fits product codebooks to features [N, D] by k-means on each of L equal parts of their
    /// dimensions.
    ///
    /// Determinism, memory and `progress` are those of [`train_with`](Self::train_with); the energy
    /// that a level leaves includes that of the parts that follow.
    ///
    /// # Errors
    /// As [`train_with`](Self::train_with); [`Error::Argument`] also unless L divides `dim`.
    /// [`Error::Product`] for a beam wider than 1.
    pub fn train_product(
        &self,
        features: &[f32],
        dim: usize,
        mut options: FitOptions<'_>,
    ) -> Result<Codebooks, Error> {
        let &Self { n_levels, n_codewords, .. } = self;
        let init_size = self.check(features, dim, &options)?;
        if options.beam.is_some_and(|beam| beam.width > 1) {
            return Err(Error::Product);
        }
        let width = Form::Product.width(n_levels, dim)?;
        let energy = sum_of_squares(features);
        let (mut left, mut values, mut part) = (energy, Vec::new(), Vec::new());
        for level in 0..n_levels {
            gather(features, dim, level * width..(level + 1) * width, &mut part);
            let codewords = self.fit(&part, width, init_size, options.interrupt)?;
            left -= sum_of_squares(&part);
            left += subtract_nearest(&mut part, width, &codewords, options.interrupt)?;
            values.extend(codewords);
            options.report(level, if energy > 0.0 { left.max(0.0) / energy } else { 0.0 });
        }
        Codebooks::with_form(Form::Product, values, n_levels, n_codewords, dim, Assignment::Euclidean)
    }

    /// Checks everything but the form. Returns the number of features that codewords grow on.
    fn check(&self, features: &[f32], dim: usize, options: &FitOptions<'_>) -> Result<usize, Error> {
        let &Self { n_levels, n_codewords, n_iterations } = self;
        check_sizes(n_levels, n_codewords)?;
        if let Some(beam) = options.beam {
            beam.check(n_levels, n_codewords)?;
        }
        Expected::Range(1..=usize::MAX).check("number of iterations", n_iterations)?;
        Expected::Range(1..=usize::MAX).check("dimension", dim)?;
        Expected::Rows(dim).check("features", features.len())?;
        check_finite("features", features)?;
        let n_features = features.len() / dim;
        if n_features < n_codewords {
            return Err(Error::TooFewFeatures { n_features, n_codewords });
        }
        let init_size = options.init_size.unwrap_or(FitOptions::INIT_SIZE);
        Expected::Range(n_codewords..=usize::MAX).check("init size", init_size)?;
        check_size("codebooks", n_levels * n_codewords, dim, MAX_VALUES)?;
        Ok(init_size)
    }

    /// Fits the codewords of a level to `values` [n, dim].
    fn fit(
        &self,
        values: &[f32],
        dim: usize,
        init_size: usize,
        interrupt: Option<&AtomicBool>,
    ) -> Result<Vec<f32>, Error> {
        if values.len() / dim > init_size {
            let sample = sample(values, dim, init_size);
            let mean = mean(&sample, dim);
            let points = Points::new(&sample, mean.clone(), Precision::Coarse, interrupt);
            let codewords = start(&points, self.n_codewords)?;
            let points = Points::new(values, mean, Precision::Coarse, interrupt);
            many::lloyd(&points, codewords, self.n_iterations)
        } else {
            let points = Points::new(values, mean(values, dim), Precision::Fine, interrupt);
            Ok(lloyd(&points, start(&points, self.n_codewords)?, self.n_iterations)?.0)
        }
    }
}

/// The points of one k-means, with values that are the same in every round.
struct Points<'a> {
    /// f32 [n, dim].
    values: &'a [f32],
    dim: usize,
    /// The mean of the points or of a sample of them.
    mean: Vec<f32>,
    precision: Precision,
    /// The points minus this mean, rounded, in groups of [`CHUNK`].
    rounded: Vec<Rows>,
    interrupt: Option<&'a AtomicBool>,
}

impl<'a> Points<'a> {
    fn new(
        values: &'a [f32],
        mean: Vec<f32>,
        precision: Precision,
        interrupt: Option<&'a AtomicBool>,
    ) -> Self {
        let dim = mean.len();
        let round = |values| {
            let mut rows = Rows::new(precision);
            rows.round(values, &mean);
            rows
        };
        let rounded = values.par_chunks(CHUNK * dim).map(round).collect();
        Self { values, dim, mean, precision, rounded, interrupt }
    }

    fn point(&self, i: usize) -> &'a [f32] {
        &self.values[i * self.dim..][..self.dim]
    }
}

/// Runs Lloyd's algorithm: assigns points to the nearest codeword, then moves codewords to the mean
/// of their members. Returns the codewords and their members.
fn lloyd(
    points: &Points<'_>,
    mut codewords: Vec<f32>,
    n_rounds: usize,
) -> Result<(Vec<f32>, Vec<Vec<usize>>), Error> {
    let (mut previous, mut members) = (Vec::new(), Vec::new());
    for _ in 0..n_rounds {
        let assigned = assign(points, &codewords, 0, 1)?.concat();
        if assigned == previous {
            break;
        }
        members = members_of(&assigned, codewords.len() / points.dim);
        let moved = codewords.par_chunks_exact_mut(points.dim).zip(&members);
        moved.for_each(|(codeword, members)| move_to_mean(codeword, points.values, members));
        revive(points, &members, &assigned, &mut codewords);
        previous = assigned;
    }
    Ok((codewords, members))
}

/// Returns the nearest codewords of points, the first of equal ones, chunk by chunk: of every
/// `step`-th chunk from `first` on.
fn assign(
    points: &Points<'_>,
    codewords: &[f32],
    first: usize,
    step: usize,
) -> Result<Vec<Vec<usize>>, Error> {
    let level = Level::new(Assignment::Euclidean, codewords, points.mean.clone(), points.precision);
    let chunks = points.values.par_chunks(CHUNK * points.dim).zip(&points.rounded);
    let nearest =
        chunks.skip(first).step_by(step).map_init(Scratch::default, |scratch, (values, rounded)| {
            if is_set(points.interrupt) {
                return Vec::new();
            }
            level.assign(values, rounded, scratch).collect()
        });
    let nearest = nearest.collect();
    check_interrupt(points.interrupt)?;
    Ok(nearest)
}

/// Subtracts from each of `points` [n, dim] its nearest codeword, the first of equal ones, and
/// returns the sum of the squares that remain.
fn subtract_nearest(
    points: &mut [f32],
    dim: usize,
    codewords: &[f32],
    interrupt: Option<&AtomicBool>,
) -> Result<f64, Error> {
    let level = Level::new(Assignment::Euclidean, codewords, mean(codewords, dim), Precision::Fine);
    let memory = || (Rows::default(), Scratch::default());
    let errors = points.par_chunks_mut(CHUNK * dim).map_init(memory, |(rows, scratch), points| {
        if is_set(interrupt) {
            return 0.0;
        }
        rows.round(points, level.origin());
        let nearest: Vec<usize> = level.assign(points, rows, scratch).collect();
        for (point, codeword) in points.chunks_exact_mut(dim).zip(nearest) {
            subtract(point, &codewords[codeword * dim..][..dim]);
        }
        squared_norm(points)
    });
    // Threads would sum in any order.
    let errors: Vec<f64> = errors.collect();
    check_interrupt(interrupt)?;
    Ok(errors.iter().sum())
}

/// Returns the points of each codeword, in ascending order.
pub(crate) fn members_of(assigned: &[usize], n_codewords: usize) -> Vec<Vec<usize>> {
    let mut members = vec![Vec::new(); n_codewords];
    assigned.iter().enumerate().for_each(|(point, &codeword)| members[codeword].push(point));
    members
}

/// Moves a codeword to the mean of its members among `points` [n, dim]. A codeword without members
/// stays.
fn move_to_mean(codeword: &mut [f32], points: &[f32], members: &[usize]) {
    if members.is_empty() {
        return;
    }
    let dim = codeword.len();
    let mut sums = vec![0.0f64; dim];
    add_rows(&mut sums, points, members);
    codeword.iter_mut().zip(sums).for_each(|(c, sum)| *c = (sum / members.len() as f64) as f32);
}

/// Adds the rows of `members` among `points` [n, dim], in their order.
fn add_rows(sums: &mut [f64], points: &[f32], members: &[usize]) {
    let dim = sums.len();
    let row = |&member: &usize| &points[member * dim..][..dim];
    let (fours, rest) = members.as_chunks();
    fours.iter().for_each(|four| add_four(sums, four.each_ref().map(row)));
    rest.iter().for_each(|member| add(sums, row(member)));
}

vectorize! {
    fn add_four(sums: &mut [f64], rows: [&[f32]; 4]) = add_four_any, add_four_any
}

/// Adds rows in their order. Four at a time are fetched from memory in parallel.
#[inline(always)]
fn add_four_any(sums: &mut [f64], rows: [&[f32]; 4]) {
    let [a, b, c, d] = rows.map(|row| &row[..sums.len()]);
    for (i, sum) in sums.iter_mut().enumerate() {
        *sum = *sum + f64::from(a[i]) + f64::from(b[i]) + f64::from(c[i]) + f64::from(d[i]);
    }
}

/// Moves codewords without members to the points farthest from their own codewords.
fn revive(points: &Points<'_>, members: &[Vec<usize>], assigned: &[usize], codewords: &mut [f32]) {
    let dead: Vec<usize> = (0..members.len()).filter(|&codeword| members[codeword].is_empty()).collect();
    if dead.is_empty() {
        return;
    }
    let dim = points.dim;
    let mut farthest: Vec<(f32, usize)> = assigned
        .par_iter()
        .enumerate()
        .map(|(i, &own)| (squared_distance(points.point(i), &codewords[own * dim..][..dim]), i))
        .collect();
    farthest.par_sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    // A point at distance 0 does not need another codeword.
    for (codeword, (_, i)) in dead.into_iter().zip(farthest.into_iter().filter(|point| point.0 > 0.0)) {
        codewords[codeword * dim..][..dim].copy_from_slice(points.point(i));
    }
}

fn sum_of_squares(points: &[f32]) -> f64 {
    let sums: Vec<f64> = points.par_chunks(CHUNK * 1024).map(squared_norm).collect();
    sums.iter().sum()
}
