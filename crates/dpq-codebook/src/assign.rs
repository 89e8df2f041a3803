//! The codeword that fits a residual best: found by a matrix product in f32, decided in f64 where f32 cannot tell.
//!
//! The error of a matrix product in f32 has a bound that holds for every order of summation. Codewords that come within
//! that bound of the best are compared once more in f64, in one fixed order. So the choice is that of f64 on every CPU,
//! whatever its matrix product rounds, at the price of a few more inner products where it was close.

use crate::Assignment;
use crate::product::{Columns, squared_norm};
use crate::vectorize::vectorize;

/// The codewords of one level, ready to be compared with residuals.
pub(crate) struct Level<'a> {
    assignment: Assignment,
    /// f32 [K, D].
    codewords: &'a [f32],
    columns: Columns,
    dim: usize,
    /// By codeword [K]: half the squared norm (Euclidean) or the inverse of the norm (cosine).
    norms: Vec<f32>,
    longest: f64,
    /// No codeword is so short or so long that f32 may lose or overflow its products with residuals of an ordinary norm.
    ordinary: bool,
}

/// Norms whose products with each other f32 holds with full precision.
const ORDINARY: std::ops::RangeInclusive<f64> = 1e-15..=1e15;

/// Whether a vector of this squared norm has such a norm, or is zero.
pub(crate) fn is_ordinary(square: f64) -> bool {
    square == 0.0 || ORDINARY.contains(&square.sqrt())
}

impl<'a> Level<'a> {
    pub(crate) fn new(assignment: Assignment, codewords: &'a [f32], dim: usize) -> Self {
        let squares: Vec<f64> = codewords.chunks_exact(dim).map(squared_norm).collect();
        let norm = |&square: &f64| match assignment {
            Assignment::Euclidean => (0.5 * square) as f32,
            // A codeword of norm 0 points nowhere and has cosine 0 with everything.
            Assignment::Cosine if square == 0.0 => 0.0,
            Assignment::Cosine => square.sqrt().recip() as f32,
        };
        Self {
            assignment,
            codewords,
            columns: Columns::new(codewords, dim),
            dim,
            norms: squares.iter().map(norm).collect(),
            longest: squares.iter().copied().fold(0.0, f64::max).sqrt(),
            ordinary: squares.iter().copied().all(is_ordinary),
        }
    }

    /// The codeword that fits best for each of `residuals` [n, D], the least of equals; `products` is reused memory.
    pub(crate) fn assign(&self, residuals: &[f32], products: &mut Vec<f32>) -> impl Iterator<Item = usize> {
        self.columns.products(residuals, products);
        let fits = products.chunks_exact_mut(self.columns.width()).map(|fits| &mut fits[..self.norms.len()]);
        residuals.chunks_exact(self.dim).zip(fits).map(|(residual, fits)| best(self, residual, fits))
    }

    /// `fits` holds the inner products of the residual and all codewords.
    #[inline(always)]
    fn best(&self, residual: &[f32], fits: &mut [f32]) -> usize {
        let norm = f64::from(lanes(residual, 0.0, |sum, x| sum + x * x).iter().sum::<f32>()).sqrt();
        // Squares of the smallest numbers are 0, so a norm of 0 may be that of a residual which is not.
        let is_zero = norm == 0.0 && residual.iter().all(|&x| x == 0.0);
        if !self.ordinary || !(is_zero || ORDINARY.contains(&norm)) {
            return self.decide(residual, 0..self.norms.len());
        }
        let fits_and_norms = fits.iter_mut().zip(&self.norms);
        match self.assignment {
            Assignment::Euclidean => fits_and_norms.for_each(|(fit, norm)| *fit -= norm),
            Assignment::Cosine => fits_and_norms.for_each(|(fit, norm)| *fit *= norm),
        }
        let maxima = lanes(fits, f32::NEG_INFINITY, |max, fit| if fit > max { fit } else { max });
        let close = maxima.into_iter().fold(f32::NEG_INFINITY, f32::max) - self.tolerance(norm);
        // All bits of a position that is close, none of another: a loop that becomes vector instructions.
        let (mut n_close, mut position) = (0, 0);
        for (i, &fit) in (0u32..).zip(&*fits) {
            let is_close = u32::from(fit >= close);
            n_close += is_close;
            position |= is_close.wrapping_neg() & i;
        }
        if n_close == 1 {
            return position as usize;
        }
        let close = fits.iter().enumerate().filter(|&(_, &fit)| fit >= close);
        self.decide(residual, close.map(|(codeword, _)| codeword))
    }

    /// More than the difference of two fits can be wrong by, for a residual of this norm.
    ///
    /// A sum of D products, in any order, is wrong by at most D·u·‖r‖·‖c‖ to first order, u = 2⁻²⁴; the sixteen stand for
    /// the roundings of norms and differences, one tenth for higher orders and for the norm, itself a sum in f32.
    fn tolerance(&self, norm: f64) -> f32 {
        let scale = match self.assignment {
            Assignment::Euclidean => self.longest * (norm + self.longest),
            Assignment::Cosine => norm,
        };
        (2.2 * (self.dim + 16) as f64 * 0.5f64.powi(24) * scale) as f32
    }

    /// The best of `codewords`, in f64; the first of equals.
    #[inline(never)]
    fn decide(&self, residual: &[f32], codewords: impl Iterator<Item = usize>) -> usize {
        let fit = |codeword: usize| {
            let c = &self.codewords[codeword * self.dim..][..self.dim];
            match self.assignment {
                Assignment::Euclidean => -sum(residual, c, |r, c| (r - c) * (r - c)),
                Assignment::Cosine => match squared_norm(c) {
                    0.0 => 0.0,
                    square => sum(residual, c, |r, c| r * c) / square.sqrt(),
                },
            }
        };
        codewords
            .map(|codeword| (codeword, fit(codeword)))
            .reduce(|best, other| if other.1 > best.1 { other } else { best })
            .expect("a level has codewords")
            .0
    }
}

vectorize!(fn best(level: &Level<'_>, residual: &[f32], fits: &mut [f32]) -> usize = Level::best, Level::best);

/// Sixteen partial results of folding `values`, so that the loop becomes vector instructions.
#[inline(always)]
fn lanes(values: &[f32], init: f32, fold: impl Fn(f32, f32) -> f32) -> [f32; 16] {
    let mut lanes = [init; 16];
    let (blocks, tail) = values.as_chunks::<16>();
    for block in blocks {
        lanes.iter_mut().zip(block).for_each(|(lane, &value)| *lane = fold(*lane, value));
    }
    lanes.iter_mut().zip(tail).for_each(|(lane, &value)| *lane = fold(*lane, value));
    lanes
}

/// The sum of `term` over both slices, in one order: eight partial sums, so that the loop becomes vector instructions.
fn sum(a: &[f32], b: &[f32], term: impl Fn(f64, f64) -> f64) -> f64 {
    let term = |a: &f32, b: &f32| term(f64::from(*a), f64::from(*b));
    let mut sums = [0.0; 8];
    let ((a, a_tail), (b, b_tail)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..8 {
            sums[lane] += term(&a[lane], &b[lane]);
        }
    }
    a_tail.iter().zip(b_tail).map(|(a, b)| term(a, b)).chain(sums).sum()
}
