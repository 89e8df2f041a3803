//! Residual k-means: codebooks from features alone.
//!
//! Level 0 is k-means on the features, each further level k-means on the residuals. Nothing is random: codewords start as one,
//! the mean, and grow in number as those of the largest error are split in two. Sums run over members in the order of their
//! rows, so threads do not change the result.

use rayon::prelude::*;

use crate::assign::{Level, Memory};
use crate::beam::weights_from;
use crate::codebooks::check_n_codewords;
use crate::error::{check_finite, check_rows};
use crate::norm::{add, mean, squared_distance, squared_norm, subtract};
use crate::rounded::Rows;
use crate::vectorize::vectorize;
use crate::{Assignment, Beam, CodeLength, Codebooks, Error};

/// The configuration of residual k-means.
///
/// Source: two-step training of the paper's ablation (Table 2), the strongest start and, here, the strongest result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResidualKMeans {
    /// Levels to fit, L.
    pub n_levels: usize,
    /// Codewords a level, K.
    pub n_codewords: usize,
    /// Rounds of Lloyd's algorithm a level once it has all codewords, at most; it stops when nothing moves.
    pub n_iterations: usize,
}

/// Features worked on at a time by one thread.
const CHUNK: usize = 48;

/// How much larger than that of the best code another's squared error may be. More leaves less at the longest lengths and more
/// at short ones, and where codewords are few more at all of them.
const NEARLY: f64 = 1.25;

/// Rounds of Lloyd's algorithm between one splitting and the next, and rounds of power iteration for the direction of one:
/// more of either leave hardly less distortion.
const GROWTH_ROUNDS: usize = 2;
const POWER_ROUNDS: usize = 2;

impl ResidualKMeans {
    /// Fits codebooks to features [N, D] by Euclidean residual k-means, for greedy codes.
    ///
    /// Splits the half of the codewords whose members have the largest error, along the direction of their largest
    /// variance, again and again; moves a codeword that lost all its members to the feature farthest from its own. The same
    /// features give the same bytes at any number of threads.
    /// `on_level` hears each level as it is done, with the share of the features' energy that it leaves. Takes memory for one and
    /// a half times the features beside them.
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
        let weights = vec![1.0; self.n_levels];
        self.train_beam(features, dim, Beam { width: 1, weights: &weights }, on_level)
    }

    /// [`train`](Self::train) for codes of a beam search: a level is fitted to what each code of the beam leaves that is nearly
    /// as good as the best, so to more than the features alone. Beside `train`, codes of other features leave less at the longer
    /// lengths, those of the features fitted only after [`refine`](Codebooks::refine), and short codes leave a little more
    /// (docs/codes.md).
    ///
    /// `on_level` hears what the best codes of a beam that ends there leave. Source: faiss's residual quantizer, which fits a
    /// level to all codes of the beam. Takes memory for about three times the beam's width times the features.
    ///
    /// # Errors
    /// As [`train`](Self::train); [`Error::Range`], [`Error::Length`], [`Error::NotFinite`] or [`Error::Weight`] if the beam
    /// does not fit.
    pub fn train_beam(
        &self,
        features: &[f32],
        dim: usize,
        beam: Beam<'_>,
        on_level: &mut dyn FnMut(usize, f64),
    ) -> Result<Codebooks, Error> {
        check_n_codewords(self.n_codewords)?;
        beam.check(self.n_levels, self.n_codewords)?;
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
        let share = |left: f64| if energy > 0.0 { left / energy } else { 0.0 };
        let weights = beam.normalized_weights();
        let weights_from = weights_from(&weights);
        let mut residuals = features.to_vec();
        let mut values = Vec::with_capacity(self.n_levels * self.n_codewords * dim);
        for level in 0..self.n_levels {
            let points = Points::new(&residuals, dim);
            let codewords = start(&points, self.n_codewords);
            let (codewords, _) = lloyd(&points, codewords, self.n_iterations);
            values.extend_from_slice(&codewords);
            if beam.width == 1 {
                let assigned = assign(&points, &codewords);
                let rows = residuals.par_chunks_exact_mut(dim).zip(&assigned);
                rows.for_each(|(residual, &codeword)| {
                    subtract(residual, &codewords[codeword * dim..][..dim])
                });
                on_level(level, share(sum_of_squares(&residuals)));
            } else {
                let codebooks =
                    Codebooks::new(values.clone(), level + 1, self.n_codewords, dim, Assignment::Euclidean)?;
                // Those of the codes up to here, as if the longer ones left as much.
                let weights = [&weights[..level], &weights_from[level..=level]].concat();
                let n_kept = if level + 1 == self.n_levels { 1 } else { beam.width };
                // Their memory is needed.
                drop(points);
                drop(std::mem::take(&mut residuals));
                let beam = Beam { weights: &weights, ..beam };
                let left;
                (left, residuals) = residuals_of_beam(&codebooks, features, beam, n_kept)?;
                on_level(level, share(left));
            }
        }
        Codebooks::new(values, self.n_levels, self.n_codewords, dim, Assignment::Euclidean)
    }
}

/// What codes of a beam leave of features [n, D]: the sum of squares that the best leave, and the residuals [m, D] of all
/// among the first `n_kept` that are nearly as good, by feature.
fn residuals_of_beam(
    codebooks: &Codebooks,
    features: &[f32],
    beam: Beam<'_>,
    n_kept: usize,
) -> Result<(f64, Vec<f32>), Error> {
    let fold = |(left, residuals): &mut (f64, Vec<f32>), x: &[f32], codes: &[u8]| {
        let mut least = f64::INFINITY;
        for (i, code) in codes.chunks_exact(codebooks.n_levels()).take(n_kept).enumerate() {
            let at = residuals.len();
            residuals.extend_from_slice(x);
            for (level, &codeword) in code.iter().enumerate() {
                subtract(&mut residuals[at..], codebooks.codeword(level, codeword.into()));
            }
            let error = squared_norm(&residuals[at..]);
            if i == 0 {
                least = error;
                *left += error;
            } else if error > NEARLY * least {
                residuals.truncate(at);
            }
        }
    };
    let (left, residuals): (Vec<f64>, Vec<Vec<f32>>) =
        codebooks.fold_beam(features, beam, fold)?.into_iter().unzip();
    Ok((left.iter().sum(), residuals.concat()))
}

/// The points of one k-means, and what stays the same from round to round.
struct Points<'a> {
    /// [n, dim].
    values: &'a [f32],
    dim: usize,
    mean: Vec<f32>,
    /// By [`CHUNK`] points, less the mean.
    rounded: Vec<Rows>,
}

impl<'a> Points<'a> {
    fn new(values: &'a [f32], dim: usize) -> Self {
        let mean = mean(values, dim);
        let round = |values| {
            let mut rows = Rows::default();
            rows.round(values, &mean);
            rows
        };
        let rounded = values.par_chunks(CHUNK * dim).map(round).collect();
        Self { values, dim, mean, rounded }
    }

    fn point(&self, i: usize) -> &'a [f32] {
        &self.values[i * self.dim..][..self.dim]
    }
}

/// Lloyd's algorithm: assign to the nearest codeword, move codewords to the mean of their members, which are returned beside
/// them.
fn lloyd(points: &Points<'_>, mut codewords: Vec<f32>, n_rounds: usize) -> (Vec<f32>, Vec<Vec<usize>>) {
    let (mut before, mut of_codewords) = (Vec::new(), Vec::new());
    for _ in 0..n_rounds {
        let assigned = assign(points, &codewords);
        if assigned == before {
            break;
        }
        of_codewords = members(&assigned, codewords.len() / points.dim);
        let moved = codewords.par_chunks_exact_mut(points.dim).zip(&of_codewords);
        moved.for_each(|(codeword, members)| move_to_mean(codeword, points.values, members));
        revive(points, &of_codewords, &assigned, &mut codewords);
        before = assigned;
    }
    (codewords, of_codewords)
}

/// Codewords to start from: one, the mean, and from there half as many again and again, until there are `n_codewords`.
fn start(points: &Points<'_>, n_codewords: usize) -> Vec<f32> {
    let dim = points.dim;
    let mut codewords = points.mean.clone();
    let mut members = vec![(0..points.values.len() / dim).collect::<Vec<_>>()];
    loop {
        let n = members.len();
        if n == n_codewords {
            return codewords;
        }
        let of_codewords = codewords.par_chunks_exact(dim).zip(&members);
        let errors: Vec<f64> =
            of_codewords.map(|(codeword, members)| error(points, members, codeword)).collect();
        let mut split: Vec<usize> = (0..n).collect();
        split.sort_by(|&a, &b| errors[b].total_cmp(&errors[a]));
        split.truncate(n.div_ceil(2).min(n_codewords - n));
        let halves: Vec<Vec<f32>> =
            split.par_iter().map(|&i| half(points, &members[i], &codewords[i * dim..][..dim])).collect();
        for (i, half) in split.into_iter().zip(halves) {
            let codeword = &mut codewords[i * dim..][..dim];
            let other: Vec<f32> = codeword.iter().zip(&half).map(|(c, half)| c + half).collect();
            codeword.iter_mut().zip(half).for_each(|(c, half)| *c -= half);
            codewords.extend(other);
        }
        (codewords, members) = lloyd(points, codewords, GROWTH_ROUNDS);
    }
}

/// How far from their mean the means of the two halves of `members` are, if they spread like a Gaussian: the direction of
/// their largest variance, by power iteration, times 0.8 standard deviations.
#[inline(always)]
fn half_any(points: &Points<'_>, members: &[usize], mean: &[f32]) -> Vec<f32> {
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
        normalise(&mut direction);
        let mut next = vec![0.0; points.dim];
        for &member in members {
            let x = points.point(member);
            let along = along(x, mean, &direction);
            next.iter_mut().zip(x).zip(mean).for_each(|((next, x), mean)| *next += along * (x - mean));
        }
        direction = next;
    }
    normalise(&mut direction);
    let variance: f64 =
        members.iter().map(|&m| f64::from(along(points.point(m), mean, &direction)).powi(2)).sum::<f64>()
            / members.len() as f64;
    let length = (0.8 * variance.sqrt()) as f32;
    direction.iter_mut().for_each(|d| *d *= length);
    direction
}

vectorize! {
    fn half(points: &Points<'_>, members: &[usize], mean: &[f32]) -> Vec<f32> = half_any, half_any
}

/// Gives a vector the norm 1, if it has any.
#[inline(always)]
fn normalise(x: &mut [f32]) {
    let norm = squared_norm(x).sqrt();
    if norm > 0.0 {
        x.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
    }
}

/// The inner product of x − mean and `direction`, in one order: eight partial sums, so that the loop becomes vector
/// instructions.
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

/// The nearest codeword of each point; the least of equals.
fn assign(points: &Points<'_>, codewords: &[f32]) -> Vec<usize> {
    let level = Level::about(points.mean.clone(), codewords);
    let mut assigned = vec![0; points.values.len() / points.dim];
    let chunks = points.values.par_chunks(CHUNK * points.dim).zip(&points.rounded);
    assigned.par_chunks_mut(CHUNK).zip(chunks).for_each_init(
        Memory::default,
        |memory, (assigned, (points, rounded))| {
            let best = level.assign(points, rounded, memory);
            assigned.iter_mut().zip(best).for_each(|(assigned, best)| *assigned = best);
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

/// Moves a codeword to the mean of its members among `points` [n, dim]; one without any stays where it is.
fn move_to_mean(codeword: &mut [f32], points: &[f32], members: &[usize]) {
    if members.is_empty() {
        return;
    }
    let dim = codeword.len();
    let row = |&member: &usize| &points[member * dim..][..dim];
    let mut sums = vec![0.0f64; dim];
    let (fours, rest) = members.as_chunks();
    fours.iter().for_each(|four| add_four(&mut sums, four.each_ref().map(row)));
    rest.iter().for_each(|member| add(&mut sums, row(member)));
    codeword.iter_mut().zip(sums).for_each(|(c, sum)| *c = (sum / members.len() as f64) as f32);
}

vectorize! {
    fn add_four(sums: &mut [f64], rows: [&[f32]; 4]) = add_four_any, add_four_any
}

/// Adds rows in their order, which come from memory side by side.
#[inline(always)]
fn add_four_any(sums: &mut [f64], rows: [&[f32]; 4]) {
    let [a, b, c, d] = rows.map(|row| &row[..sums.len()]);
    for (i, sum) in sums.iter_mut().enumerate() {
        *sum = *sum + f64::from(a[i]) + f64::from(b[i]) + f64::from(c[i]) + f64::from(d[i]);
    }
}

vectorize! {
    fn error(points: &Points<'_>, members: &[usize], codeword: &[f32]) -> f64 = error_any, error_any
}

/// The sum of the squared distances of a codeword and its members.
#[inline(always)]
fn error_any(points: &Points<'_>, members: &[usize], codeword: &[f32]) -> f64 {
    let mut error = 0.0;
    for &member in members {
        error += f64::from(squared_distance(points.point(member), codeword));
    }
    error
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
    // A point that its codeword meets exactly has no use for another one.
    for (codeword, (_, i)) in dead.into_iter().zip(farthest.into_iter().filter(|point| point.0 > 0.0)) {
        codewords[codeword * dim..][..dim].copy_from_slice(points.point(i));
    }
}

fn sum_of_squares(points: &[f32]) -> f64 {
    let sums: Vec<f64> = points.par_chunks(CHUNK * 1024).map(squared_norm).collect();
    sums.iter().sum()
}
