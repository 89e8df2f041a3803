//! The codeword that fits a residual best: found by a product of rounded matrices, decided in f64 where that cannot tell.
//!
//! How wrong a product of rounded vectors can be is known. Codewords that come within that bound of the best are compared
//! once more in f32, and those that are close there in f64, in one fixed order. So the choice is that of f64 on every CPU,
//! at the price of a few more distances where it was close.

use crate::Assignment;
use crate::norm::{is_ordinary, lanes, mean, squared_distance, squared_norm};
use crate::rounded::{Columns, Rounded, Rows};
use crate::vectorize::vectorize;

/// The codewords of one level, ready to be compared with residuals.
pub(crate) struct Level<'a> {
    assignment: Assignment,
    /// f32 [K, D].
    codewords: &'a [f32],
    dim: usize,
    /// The codewords less an origin, which changes no distance to a residual less the same; for assignment by cosine,
    /// vectors of norm 1 of the same directions.
    columns: Columns,
    /// By column [K]: half the squared norm; 0 for assignment by cosine, as that of directions makes no difference.
    norms: Vec<f32>,
    /// The largest of these, and the norm of the longest column.
    largest: f64,
    longest: f64,
    /// No column is so short or so long that f32 may lose or overflow its products with residuals of an ordinary norm.
    ordinary: bool,
}

/// What [`Level::assign`] needs, to be used again.
#[derive(Default)]
pub(crate) struct Memory {
    products: Vec<i32>,
    /// By codeword [K]: how well it fits.
    fits: Vec<f32>,
}

impl<'a> Level<'a> {
    pub(crate) fn new(assignment: Assignment, codewords: &'a [f32], dim: usize) -> Self {
        match assignment {
            Assignment::Euclidean => Self::about(mean(codewords, dim), codewords),
            Assignment::Cosine => {
                let columns: Vec<f32> = codewords.chunks_exact(dim).flat_map(unit).collect();
                Self::of_columns(assignment, codewords, &columns, vec![0.0; dim])
            }
        }
    }

    /// For Euclidean assignment of residuals that are near `origin` [D].
    pub(crate) fn about(origin: Vec<f32>, codewords: &'a [f32]) -> Self {
        let columns: Vec<f32> =
            codewords.iter().zip(origin.iter().cycle()).map(|(c, origin)| c - origin).collect();
        Self::of_columns(Assignment::Euclidean, codewords, &columns, origin)
    }

    fn of_columns(assignment: Assignment, codewords: &'a [f32], columns: &[f32], origin: Vec<f32>) -> Self {
        let dim = origin.len();
        let squares: Vec<f64> = columns.chunks_exact(dim).map(squared_norm).collect();
        let half = |&square: &f64| match assignment {
            Assignment::Euclidean => (0.5 * square) as f32,
            Assignment::Cosine => 0.0,
        };
        let norms: Vec<f32> = squares.iter().map(half).collect();
        Self {
            assignment,
            codewords,
            dim,
            columns: Columns::new(columns, origin),
            largest: norms.iter().copied().fold(0.0, f32::max).into(),
            norms,
            longest: squares.iter().copied().fold(0.0, f64::max).sqrt(),
            ordinary: squares.iter().copied().all(is_ordinary),
        }
    }

    /// What is to be subtracted from residuals before they are rounded, [D].
    pub(crate) fn origin(&self) -> &[f32] {
        &self.columns.origin
    }

    /// The codeword that fits best for each of `residuals` [n, D], the least of equals. `rows` are the same residuals, rounded
    /// about the origin; `memory` is used again.
    pub(crate) fn assign(
        &self,
        residuals: &[f32],
        rows: &Rows,
        memory: &mut Memory,
    ) -> impl Iterator<Item = usize> {
        let Memory { products, fits } = memory;
        fits.resize(self.norms.len(), 0.0);
        self.columns.products(rows, products);
        let products = rows.rounded.iter().zip(products.chunks_exact(self.columns.width()));
        residuals
            .chunks_exact(self.dim)
            .zip(products)
            .map(|(residual, (&rounded, products))| best(self, residual, rounded, products, fits))
    }

    /// `products` are those of the rounded residual and all codewords.
    #[inline(always)]
    fn best(&self, residual: &[f32], rounded: Rounded, products: &[i32], fits: &mut [f32]) -> usize {
        if !(self.ordinary && self.columns.is_ordinary(residual, rounded)) {
            return self.decide(residual, 0..self.norms.len());
        }
        let all = fits.iter_mut().zip(products).zip(&self.norms);
        all.for_each(|((fit, &p), norm)| *fit = p as f32 * rounded.scale * self.columns.scale - norm);
        let mut close = max(fits) - self.tolerance(rounded);
        if let Some(codeword) = only(fits, close) {
            return codeword;
        }
        if self.assignment == Assignment::Euclidean {
            for (fit, codeword) in fits.iter_mut().zip(self.codewords.chunks_exact(self.dim)) {
                let is_close = *fit >= close;
                *fit = if is_close { -squared_distance(residual, codeword) } else { f32::NEG_INFINITY };
            }
            let best = max(fits);
            // A sum of D squares in any order is wrong by D + 2 roundings at most, to first order; below the second
            // number, f32 has no full precision.
            close = best + best * (2.2 * (self.dim + 2) as f32 * 0.5f32.powi(24))
                - self.dim as f32 * f32::MIN_POSITIVE;
            if let Some(codeword) = only(fits, close) {
                return codeword;
            }
        }
        let close = fits.iter().enumerate().filter(|&(_, &fit)| fit >= close);
        self.decide(residual, close.map(|(codeword, _)| codeword))
    }

    /// More than the difference of two fits can be wrong by.
    ///
    /// Each fit by the rounding of residual and codeword, and by less than eight roundings in f32. A tenth is for the norm,
    /// itself a sum in f32.
    fn tolerance(&self, row: Rounded) -> f32 {
        let in_f32 = 8.0 * 0.5f64.powi(24) * (self.longest * row.norm + self.largest);
        (2.2 * (self.columns.bound(row, self.longest) + in_f32)) as f32
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

vectorize!(fn best(
    level: &Level<'_>, residual: &[f32], rounded: Rounded, products: &[i32], fits: &mut [f32]
) -> usize = Level::best, Level::best);

/// The vector of norm 1 that points where `codeword` does. One of norm 0 points nowhere and has cosine 0 with everything.
fn unit(codeword: &[f32]) -> impl Iterator<Item = f32> {
    let norm = squared_norm(codeword).sqrt();
    codeword.iter().map(move |&c| if norm == 0.0 { 0.0 } else { (f64::from(c) / norm) as f32 })
}

#[inline(always)]
fn max(values: &[f32]) -> f32 {
    let maxima = lanes(values, f32::NEG_INFINITY, |max, x| if x > max { x } else { max });
    maxima.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

/// The position of the only value that is not below `limit`, if there is one alone.
#[inline(always)]
fn only(values: &[f32], limit: f32) -> Option<usize> {
    // All bits of a position where it is, none of another: a loop that becomes vector instructions.
    let (mut n, mut position) = (0, 0);
    for (i, &value) in (0u32..).zip(values) {
        let is_found = u32::from(value >= limit);
        n += is_found;
        position |= is_found.wrapping_neg() & i;
    }
    (n == 1).then_some(position as usize)
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
