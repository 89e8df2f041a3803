//! The search for a stationary grid: every point is the centroid of its cell.

use std::collections::VecDeque;

use crate::mixture::{Cells, Mixture, bounds};

/// A way to a stationary grid.
///
/// Each is Lloyd's algorithm, and differs in the grids that it tries before the next one of
/// Lloyd's. The first that ascends and does not raise the distortion is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Solver {
    /// None: each point moves to the centroid of its cell.
    Lloyd,
    /// The grid of Anderson's acceleration over the last 30 moves.
    Anderson,
    /// The grid of Newton's method with the tri-diagonal Hessian, then that of Anderson.
    #[default]
    Newton,
}

/// Moves that Anderson's acceleration combines.
const MEMORY: usize = 30;

/// Rounding of a distortion, in variances.
const ROUNDING: f64 = 1e-14;

/// A grid and the search for it.
pub(crate) struct Fit {
    pub(crate) points: Vec<f64>,
    /// The inner bounds of the cells of which the points are the centroids.
    pub(crate) bounds: Vec<f64>,
    /// The distortion of each grid on the way.
    pub(crate) distortions: Vec<f64>,
    /// The number of grids that were measured, without those of the start.
    pub(crate) sweeps: usize,
    /// The largest move of a point by the last step, in standard deviations.
    pub(crate) residual: f64,
}

/// Fits at most `n` points.
///
/// The last step is Lloyd's: points are centroids, and keep the mean, at any
/// tolerance.
pub(crate) fn fit(mixture: &Mixture, n: usize, solver: Solver, tolerance: f64, max_sweeps: usize) -> Fit {
    let deviation = mixture.deviation;
    if n == 1 || deviation <= 1e-14 * mixture.mean.abs() {
        let distortions = vec![deviation * deviation];
        return Fit { points: vec![mixture.mean], bounds: Vec::new(), distortions, sweeps: 0, residual: 0.0 };
    }
    let mut points = start(mixture, n);
    let mut cells = mixture.cells(&points);
    let mut distortions = vec![cells.distortion];
    let (mut anderson, mut sweeps) = (Anderson::default(), 1);
    let residual = loop {
        let residual = cells.shifts.iter().fold(0.0, |max: f64, shift| max.max(shift.abs())) / deviation;
        if residual <= tolerance || sweeps >= max_sweeps {
            break residual;
        }
        let lloyd: Vec<f64> = points.iter().zip(&cells.shifts).map(|(point, shift)| point + shift).collect();
        let accelerated = if solver == Solver::Lloyd { None } else { anderson.propose(&lloyd, &cells) };
        let newton = if solver == Solver::Newton { newton(&points, &cells) } else { None };
        let limit = cells.distortion + ROUNDING * deviation * deviation;
        let accepted = [newton, accelerated].into_iter().flatten().find_map(|points| {
            let ascends = points.is_sorted_by(|a, b| a < b);
            let cells = ascends.then(|| mixture.cells(&points))?;
            sweeps += 1;
            (cells.distortion <= limit).then_some((points, cells))
        });
        (points, cells) = accepted.unwrap_or_else(|| {
            let cells = mixture.cells(&lloyd);
            sweeps += 1;
            (lloyd, cells)
        });
        distortions.push(cells.distortion);
    };
    // The cell below takes an empty one.
    let kept: Vec<usize> = (0..n).filter(|&j| cells.masses[j] > 0.0).collect();
    let bounds = bounds(&points);
    let bounds = kept.iter().skip(1).map(|&j| bounds[j - 1]).collect();
    let points = kept.iter().map(|&j| points[j] + cells.shifts[j]).collect();
    Fit { points, bounds, distortions, sweeps, residual }
}

/// Returns points whose density is the cube root of the mixture's density, which is optimal as n
/// grows. Each pass measures the density with the grid of the pass before.
fn start(mixture: &Mixture, n: usize) -> Vec<f64> {
    const PASSES: usize = 4;
    let spread = 4.0 * mixture.deviation;
    let uniform = |j: usize| mixture.mean + spread * ((2 * j + 1) as f64 / n as f64 - 1.0);
    let mut points: Vec<f64> = (0..n).map(uniform).collect();
    for _ in 0..PASSES {
        let cells = mixture.cells(&points);
        let mut ends = bounds(&points);
        ends.insert(0, 2.0 * points[0] - ends[0]);
        ends.push(2.0 * points[n - 1] - ends[n - 1]);
        let shares: Vec<f64> = (0..n)
            .map(|j| cells.masses[j].max(0.0).cbrt() * (ends[j + 1] - ends[j]).powi(2).cbrt())
            .collect();
        let each = shares.iter().sum::<f64>() / n as f64;
        let (mut j, mut below) = (0, 0.0);
        let place = |k: usize| {
            let target = (k as f64 + 0.5) * each;
            while j + 1 < n && below + shares[j] < target {
                below += shares[j];
                j += 1;
            }
            ends[j] + (ends[j + 1] - ends[j]) * ((target - below) / shares[j]).min(1.0)
        };
        points = (0..n).map(place).collect();
    }
    points
}

/// Returns the points after a step of Newton's method, or none where the Hessian has no positive
/// pivot.
fn newton(points: &[f64], cells: &Cells) -> Option<Vec<f64>> {
    let n = points.len();
    let coupling: Vec<f64> = cells
        .densities
        .iter()
        .zip(points.windows(2))
        .map(|(f, pair)| 0.5 * f * (pair[1] - pair[0]))
        .collect();
    let (mut pivots, mut steps) = (vec![0.0; n], vec![0.0; n]);
    for j in 0..n {
        let below = if j > 0 { coupling[j - 1] } else { 0.0 };
        let above = if j + 1 < n { coupling[j] } else { 0.0 };
        pivots[j] = 2.0 * cells.masses[j] - below - above;
        steps[j] = 2.0 * cells.masses[j] * cells.shifts[j];
        if j > 0 {
            let factor = below / pivots[j - 1];
            pivots[j] -= factor * below;
            steps[j] += factor * steps[j - 1];
        }
        if pivots[j].is_nan() || pivots[j] <= 0.0 {
            return None;
        }
    }
    for j in (0..n).rev() {
        let above = if j + 1 < n { coupling[j] * steps[j + 1] } else { 0.0 };
        steps[j] = (steps[j] + above) / pivots[j];
    }
    Some(points.iter().zip(steps).map(|(point, step)| point + step).collect())
}

/// Anderson's acceleration: the combination of the last images whose shift is the least, weighted
/// by the masses of the cells.
#[derive(Default)]
struct Anderson {
    last: Option<(Vec<f64>, Vec<f64>)>,
    /// Differences of images and of shifts, the newest first.
    moves: VecDeque<(Vec<f64>, Vec<f64>)>,
}

impl Anderson {
    /// Takes Lloyd's image of the points and returns the accelerated one, if there is a move to
    /// learn from.
    fn propose(&mut self, image: &[f64], cells: &Cells) -> Option<Vec<f64>> {
        let less = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<f64>>();
        if let Some((last_image, last_shift)) = self.last.replace((image.to_vec(), cells.shifts.clone())) {
            self.moves.push_front((less(image, &last_image), less(&cells.shifts, &last_shift)));
            self.moves.truncate(MEMORY.min(image.len()));
        }
        let dot = |a: &[f64], b: &[f64]| -> f64 {
            a.iter().zip(b).zip(&cells.masses).map(|((a, b), mass)| a * b * mass).sum()
        };
        let add = |a: &mut [f64], factor: f64, b: &[f64]| {
            a.iter_mut().zip(b).for_each(|(a, b)| *a += factor * b);
        };
        let (mut proposal, mut shift) = (image.to_vec(), cells.shifts.clone());
        let mut basis: Vec<(Vec<f64>, Vec<f64>)> = Vec::new();
        for (image_move, shift_move) in &self.moves {
            let (mut of_image, mut of_shift) = (image_move.clone(), shift_move.clone());
            let before = dot(&of_shift, &of_shift);
            for (image, shift) in &basis {
                let factor = -dot(&of_shift, shift);
                add(&mut of_image, factor, image);
                add(&mut of_shift, factor, shift);
            }
            let norm = dot(&of_shift, &of_shift);
            if norm > 1e-20 * before {
                let scale = norm.sqrt().recip();
                of_image.iter_mut().chain(&mut of_shift).for_each(|value| *value *= scale);
                let factor = -dot(&shift, &of_shift);
                add(&mut proposal, factor, &of_image);
                add(&mut shift, factor, &of_shift);
                basis.push((of_image, of_shift));
            }
        }
        (!basis.is_empty()).then_some(proposal)
    }
}
