//! Finds the codeword that fits a residual best, by a product of rounded matrices and, where that
//! is close, in f64.
//!
//! The error of a product of rounded vectors has a known bound. Codewords within that bound of the
//! best are compared again in f32, and those that are close in f32 are compared in f64, in one
//! fixed order. So the choice is that of f64 on every CPU, and only close choices cost more
//! distances.

use crate::Assignment;
use crate::norm::{is_safe, lanes, squared_distance, squared_norm, sum};
use crate::rounded::{Columns, Precision, Rounded, Rows};
use crate::vectorize::vectorize;

/// The codewords of one level, ready to be compared with residuals.
pub(crate) struct Level<'a> {
    assignment: Assignment,
    /// f32 [K, D].
    codewords: &'a [f32],
    dim: usize,
    /// The codewords minus an origin. Residuals are taken minus the same origin, so distances stay
    /// the same. For assignment by cosine, the codewords scaled to norm 1.
    columns: Columns,
    /// Half the squared norm of each column, f32 [K]; 0 for assignment by cosine.
    half_norms: Vec<f32>,
    max_half_norm: f64,
    /// The norm of the longest column.
    max_norm: f64,
    /// True if f32 neither loses nor overflows products of the columns with residuals of a safe
    /// norm.
    safe: bool,
}

/// Memory that [`Level::assign`] reuses.
#[derive(Default)]
pub(crate) struct Scratch {
    products: Vec<i32>,
    /// How well each codeword fits, f32 [K]: larger is better.
    fits: Vec<f32>,
}

impl<'a> Level<'a> {
    /// Euclidean residuals are rounded about `origin` [D], so it should be near them. Assignment by
    /// cosine ignores it.
    ///
    /// At the coarse precision, [`assign`](Self::assign) takes the codeword of the best rounded
    /// product, which may not be the one that fits best.
    pub(crate) fn new(
        assignment: Assignment,
        codewords: &'a [f32],
        origin: Vec<f32>,
        precision: Precision,
    ) -> Self {
        let dim = origin.len();
        let (columns, origin): (Vec<f32>, _) = match assignment {
            Assignment::Euclidean => {
                (codewords.iter().zip(origin.iter().cycle()).map(|(c, origin)| c - origin).collect(), origin)
            }
            Assignment::Cosine => (codewords.chunks_exact(dim).flat_map(unit).collect(), vec![0.0; dim]),
        };
        let squares: Vec<f64> = columns.chunks_exact(dim).map(squared_norm).collect();
        let half = if assignment == Assignment::Euclidean { 0.5 } else { 0.0 };
        let half_norms: Vec<f32> = squares.iter().map(|square| (half * square) as f32).collect();
        Self {
            assignment,
            codewords,
            dim,
            columns: Columns::new(&columns, origin, precision),
            max_half_norm: half_norms.iter().copied().fold(0.0, f32::max).into(),
            half_norms,
            max_norm: squares.iter().copied().fold(0.0, f64::max).sqrt(),
            safe: squares.iter().copied().all(is_safe),
        }
    }

    /// Returns what to subtract from residuals before they are rounded, f32 [D].
    pub(crate) fn origin(&self) -> &[f32] {
        &self.columns.origin
    }

    /// Returns the codeword that fits each of `residuals` [n, D] best, the first of equal ones.
    /// `rows` are the same residuals minus the origin, rounded.
    pub(crate) fn assign(
        &self,
        residuals: &[f32],
        rows: &Rows,
        scratch: &mut Scratch,
    ) -> impl Iterator<Item = usize> {
        let Scratch { products, fits } = scratch;
        fits.resize(self.half_norms.len(), 0.0);
        self.columns.products(rows, products);
        let products = rows.rounded.iter().zip(products.chunks_exact(self.columns.width()));
        residuals
            .chunks_exact(self.dim)
            .zip(products)
            .map(|(residual, (&rounded, products))| best(self, residual, rounded, products, fits))
    }

    /// `products` are the inner products of the rounded residual with all columns.
    #[inline(always)]
    fn best(&self, residual: &[f32], rounded: Rounded, products: &[i32], fits: &mut [f32]) -> usize {
        if !(self.safe && self.columns.is_safe(residual, rounded)) {
            return self.decide(residual, 0..self.half_norms.len());
        }
        let all = fits.iter_mut().zip(products).zip(&self.half_norms);
        all.for_each(|((fit, &p), norm)| *fit = p as f32 * rounded.scale * self.columns.scale - norm);
        let is_coarse = self.columns.precision == Precision::Coarse;
        let mut threshold = max(fits) - if is_coarse { 0.0 } else { self.tolerance(rounded) };
        if let Some(codeword) = single_candidate(fits, threshold) {
            return codeword;
        }
        if is_coarse {
            return fits.iter().position(|&fit| fit >= threshold).expect("a level has codewords");
        }
        if self.assignment == Assignment::Euclidean {
            for (fit, codeword) in fits.iter_mut().zip(self.codewords.chunks_exact(self.dim)) {
                let is_candidate = *fit >= threshold;
                *fit = if is_candidate { -squared_distance(residual, codeword) } else { f32::NEG_INFINITY };
            }
            let best = max(fits);
            // To first order, a sum of D squares in any order has an error of at most D + 2
            // roundings. The last term covers numbers so small that f32 loses precision.
            threshold = best + best * (2.2 * (self.dim + 2) as f32 * 0.5f32.powi(24))
                - self.dim as f32 * f32::MIN_POSITIVE;
            if let Some(codeword) = single_candidate(fits, threshold) {
                return codeword;
            }
        }
        let candidates = fits.iter().enumerate().filter(|&(_, &fit)| fit >= threshold);
        self.decide(residual, candidates.map(|(codeword, _)| codeword))
    }

    /// Returns a bound on the error of the difference of two fits.
    ///
    /// Each fit has the error of rounding residual and codeword, and of fewer than eight roundings
    /// in f32. A tenth is added because the norm itself is a sum in f32.
    fn tolerance(&self, row: Rounded) -> f32 {
        let in_f32 = 8.0 * 0.5f64.powi(24) * (self.max_norm * row.norm + self.max_half_norm);
        (2.2 * (self.columns.bound(row, self.max_norm) + in_f32)) as f32
    }

    /// Returns the codeword of `codewords` that fits best in f64, the first of equal ones.
    #[inline(never)]
    fn decide(&self, residual: &[f32], codewords: impl Iterator<Item = usize>) -> usize {
        let square = |x: f64| x * x;
        let fit = |codeword: usize| {
            let c = &self.codewords[codeword * self.dim..][..self.dim];
            match self.assignment {
                Assignment::Euclidean => -sum(residual, c, |r, c| square(f64::from(r) - f64::from(c))),
                Assignment::Cosine => match squared_norm(c) {
                    0.0 => 0.0,
                    norm => sum(residual, c, |r, c| f64::from(r) * f64::from(c)) / norm.sqrt(),
                },
            }
        };
        codewords
            .map(|codeword| (codeword, fit(codeword)))
            .reduce(|best, next| if next.1 > best.1 { next } else { best })
            .expect("a level has codewords")
            .0
    }
}

vectorize!(fn best(
    level: &Level<'_>, residual: &[f32], rounded: Rounded, products: &[i32], fits: &mut [f32]
) -> usize = Level::best, Level::best);

/// Scales `codeword` to norm 1. A codeword of norm 0 stays 0, so its cosine is 0.
fn unit(codeword: &[f32]) -> impl Iterator<Item = f32> {
    let norm = squared_norm(codeword).sqrt();
    codeword.iter().map(move |&c| if norm == 0.0 { 0.0 } else { (f64::from(c) / norm) as f32 })
}

#[inline(always)]
fn max(values: &[f32]) -> f32 {
    let maxima = lanes(values, f32::NEG_INFINITY, |max, x| if x > max { x } else { max });
    maxima.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

/// Returns the position of the value that is at least `threshold`, if exactly one is.
#[inline(always)]
fn single_candidate(values: &[f32], threshold: f32) -> Option<usize> {
    // Without branches, so that the loop becomes vector instructions.
    let (mut n, mut position) = (0, 0);
    for (i, &value) in (0u32..).zip(values) {
        let is_candidate = u32::from(value >= threshold);
        n += is_candidate;
        position |= is_candidate.wrapping_neg() & i;
    }
    (n == 1).then_some(position as usize)
}
