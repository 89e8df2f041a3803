//! The law of one variable after a step: a mixture, and what a grid is to it.

use crate::update::{Edge, Quadratic};

/// A mixture of quadratic polynomials of a normal variable.
pub(crate) struct Mixture {
    parts: Vec<(f64, Quadratic)>,
    pub(crate) mean: f64,
    pub(crate) deviation: f64,
}

/// The cells of a grid.
pub(crate) struct Cells {
    /// The probability of each cell.
    pub(crate) masses: Vec<f64>,
    /// The centroid of each cell less its point; 0 for a cell without mass.
    pub(crate) shifts: Vec<f64>,
    /// The density of the mixture at each inner bound.
    pub(crate) densities: Vec<f64>,
    /// The mean squared distance to the point of the cell.
    pub(crate) distortion: f64,
}

/// Returns the midpoints of neighbours.
pub(crate) fn bounds(points: &[f64]) -> Vec<f64> {
    points.windows(2).map(|pair| 0.5 * (pair[0] + pair[1])).collect()
}

impl Mixture {
    /// Takes weights that sum to 1. Equal parts become one.
    pub(crate) fn new(mut parts: Vec<(f64, Quadratic)>) -> Self {
        let key = |step: &Quadratic| [step.constant, step.linear, step.square].map(f64::to_bits);
        parts.sort_by_key(|(_, step)| key(step));
        parts.dedup_by(|next, kept| {
            let equal = key(&next.1) == key(&kept.1);
            kept.0 += if equal { next.0 } else { 0.0 };
            equal
        });
        let mean: f64 = parts.iter().map(|(weight, step)| weight * step.mean()).sum();
        let spread = |step: &Quadratic| step.variance() + (step.mean() - mean).powi(2);
        let variance: f64 = parts.iter().map(|(weight, step)| weight * spread(step)).sum();
        Self { parts, mean, deviation: variance.sqrt() }
    }

    /// Measures the cells of ascending points.
    pub(crate) fn cells(&self, points: &[f64]) -> Cells {
        let n = points.len();
        let bounds = bounds(points);
        let (mut masses, mut firsts, mut densities) = (vec![0.0; n], vec![0.0; n], vec![0.0; n - 1]);
        for (weight, step) in &self.parts {
            let mut add = |j: usize, lower: &Edge, upper: &Edge| {
                let [mass, first] = step.between(lower, upper, points[j]);
                masses[j] += weight * mass;
                firsts[j] += weight * first;
            };
            let mut lower = step.edge(f64::NEG_INFINITY);
            for (j, bound) in bounds.iter().enumerate() {
                let upper = step.edge(*bound);
                add(j, &lower, &upper);
                densities[j] += weight * step.density(&upper);
                lower = upper;
            }
            add(n - 1, &lower, &step.edge(f64::INFINITY));
        }
        // E (U − y)² over a cell is E U² − y² p − 2 y E (U − y), centred at the mean.
        let explained = |(&y, (&mass, &first)): (&f64, (&f64, &f64))| {
            let y = y - self.mean;
            y * (y * mass + 2.0 * first)
        };
        let explained: f64 = points.iter().zip(masses.iter().zip(&firsts)).map(explained).sum();
        let distortion = self.deviation * self.deviation - explained;
        let shift = |(first, mass): (f64, &f64)| if *mass > 0.0 { first / mass } else { 0.0 };
        let shifts = firsts.into_iter().zip(&masses).map(shift).collect();
        Cells { masses, shifts, densities, distortion }
    }
}
