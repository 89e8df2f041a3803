//! The search itself, one feature at a time.
//!
//! With the inner products of all codewords with each other, the squared error of a code is a sum
//! of table entries: ‖x − x̂‖² = ‖x‖² + Σ_l (‖c_l‖² − 2⟨x, c_l⟩ + 2 Σ_{j<l} ⟨c_j, c_l⟩).
//!
//! Products with x come from rounded vectors, whose error has a known bound. Products that can
//! belong to the best codes are computed again in f32, in one fixed order.

use rayon::prelude::*;

use super::{Beam, CHUNK, weights_from};
#[cfg(target_arch = "x86_64")]
use crate::dot::avx2;
use crate::dot::{self, dots_of, dots_of_many};
use crate::norm::{is_safe, lanes, squared_norm};
use crate::rounded::{Columns, Precision, Rounded, Rows};
use crate::vectorize::vectorize;
use crate::{Codebooks, Error};

/// The number of costs that are compared at a time.
const BLOCK: usize = u32::BITS as usize;

/// The error and cost of a code that is kept.
#[derive(Clone, Copy)]
struct Kept {
    /// ‖x − x̂‖² − ‖x‖².
    error: f32,
    /// The sum of the weighted errors of its lengths.
    cost: f32,
}

/// A kept code, by its position, continued by a codeword.
struct Continuation {
    kept: usize,
    codeword: usize,
    /// ‖x − x̂‖² − ‖x‖².
    error: f32,
    /// The cost of all lengths if longer codes left the same error.
    cost: f32,
}

/// Rounded products of some features with all codewords. Its memory is reused.
#[derive(Default)]
pub(super) struct Products {
    rows: Rows,
    /// Per level, i32 [n, width of its columns].
    by_level: Vec<Vec<i32>>,
}

/// Memory of a search, which is reused.
#[derive(Default)]
pub(super) struct Scratch {
    kept: Vec<Kept>,
    /// The kept codes, u8 [kept, levels so far].
    codes: Vec<u8>,
    /// ‖c‖² − 2⟨x, c⟩ of each codeword of a level, f32 [K], from rounded products.
    own_terms: Vec<f32>,
    /// The same from products in f32; NaN except for the codewords in `needed`.
    exact_terms: Vec<f32>,
    needed: Vec<usize>,
    /// ‖x − x̂‖² − ‖x‖² of a kept code's continuations, f32 [K], from rounded products.
    errors: Vec<f32>,
    /// The costs of all continuations, f32 [kept, K], from rounded products.
    costs: Vec<f32>,
    /// Some of the costs, among them the lowest.
    low_costs: Vec<f32>,
    best: Vec<Continuation>,
}

pub(super) struct Search<'a> {
    codebooks: &'a Codebooks,
    width: usize,
    /// The weight of each length, f32 [L]. They sum to 1, so no cost overflows.
    weights: Vec<f32>,
    weights_from: Vec<f32>,
    /// The codewords of each level.
    columns: Vec<Columns>,
    /// The norm of the longest codeword of each level, and the sum of these norms.
    max_norms: Vec<f64>,
    sum_of_max_norms: f64,
    /// Per level l, twice the inner products of the codewords of earlier levels and its own, f32
    /// [l·K, K].
    gram: &'a [Vec<f32>],
    /// Squared norms of all codewords, [L·K].
    norms: Vec<f32>,
}

impl<'a> Search<'a> {
    /// Returns `None` if codes are greedy: if the width is 1, or a codeword has a norm that is not
    /// safe.
    ///
    /// `gram` holds the products of some levels, or none. Those of the other levels are added.
    pub(super) fn new(codebooks: &'a Codebooks, beam: Beam<'_>, gram: &'a mut Vec<Vec<f32>>) -> Option<Self> {
        let (dim, values) = (codebooks.dim(), codebooks.values());
        if beam.width == 1 {
            return None;
        }
        let norms: Vec<f64> = values.chunks_exact(dim).map(squared_norm).collect();
        if !norms.iter().copied().all(is_safe) {
            return None;
        }
        let n_codewords = codebooks.n_codewords();
        let doubled: Vec<f32> = values.iter().map(|c| 2.0 * c).collect();
        for level in gram.len()..codebooks.n_levels() {
            let mut of_level = vec![0.0; level * n_codewords * n_codewords];
            let earlier = doubled[..level * n_codewords * dim].par_chunks(CHUNK * dim);
            let rows = of_level.par_chunks_mut(CHUNK * n_codewords).zip(earlier);
            rows.for_each(|(out, rows)| dots_of_many(rows, codebooks.level(level), dim, out));
            gram.push(of_level);
        }
        let max_norm = |squares: &[f64]| squares.iter().copied().fold(0.0, f64::max).sqrt();
        let max_norms: Vec<f64> = norms.chunks_exact(n_codewords).map(max_norm).collect();
        let weights = beam.normalized_weights();
        let columns = (0..codebooks.n_levels())
            .map(|level| Columns::new(codebooks.level(level), vec![0.0; dim], Precision::Fine));
        Some(Self {
            codebooks,
            width: beam.width,
            weights_from: weights_from(&weights),
            weights,
            columns: columns.collect(),
            sum_of_max_norms: max_norms.iter().sum(),
            max_norms,
            gram,
            norms: norms.into_iter().map(|norm| norm as f32).collect(),
        })
    }

    /// Calls `report` with each of `features` [n, D] and the codes kept of it, best first.
    pub(super) fn encode(
        &self,
        features: &[f32],
        products: &mut Products,
        scratch: &mut Scratch,
        mut report: impl FnMut(&[f32], &[u8]),
    ) -> Result<(), Error> {
        let Products { rows, by_level } = products;
        rows.round(features, &self.columns[0].origin);
        by_level.resize_with(self.columns.len(), Vec::new);
        self.columns.iter().zip(&mut *by_level).for_each(|(columns, out)| columns.products(rows, out));
        for (at, x) in features.chunks_exact(self.codebooks.dim()).enumerate() {
            if self.columns[0].is_safe(x, products.rows.rounded[at]) {
                search(self, x, products, at, scratch);
            } else {
                scratch.codes = self.codebooks.encode(x)?;
            }
            report(x, &scratch.codes);
        }
        Ok(())
    }

    /// Leaves the kept codes of the feature x in `scratch`, best first. The products of x are at
    /// row `at`.
    #[inline(always)]
    fn search(
        &self,
        x: &[f32],
        products: &Products,
        at: usize,
        scratch: &mut Scratch,
        dots_of: impl Fn(&[f32], [&[f32]; dot::ROWS]) -> [f32; dot::ROWS],
    ) {
        let rounded = products.rows.rounded[at];
        scratch.kept.clear();
        scratch.kept.push(Kept { error: 0.0, cost: 0.0 });
        scratch.codes.clear();
        for (level, &weight) in self.weights.iter().enumerate() {
            let width = self.columns[level].width();
            let products = &products.by_level[level][at * width..][..width];
            self.continuations((x, rounded), products, level, scratch, &dots_of);

            let Scratch { kept, codes, best, .. } = scratch;
            let n_kept = kept.len();
            for best in best {
                let cost = kept[best.kept].cost + weight * best.error;
                kept.push(Kept { error: best.error, cost });
                codes.extend_from_within(best.kept * level..(best.kept + 1) * level);
                codes.push(best.codeword as u8);
            }
            kept.drain(..n_kept);
            codes.drain(..n_kept * level);
        }
    }

    /// Leaves the best continuations of all kept codes in `scratch`. Among equal costs, the lower
    /// error comes first, then the lower position. `products` are the rounded products with the
    /// codewords of the level.
    #[inline(always)]
    fn continuations(
        &self,
        (x, rounded): (&[f32], Rounded),
        products: &[i32],
        level: usize,
        scratch: &mut Scratch,
        dots_of: impl Fn(&[f32], [&[f32]; dot::ROWS]) -> [f32; dot::ROWS],
    ) {
        let Scratch { kept, codes, own_terms, exact_terms, needed, errors, costs, low_costs, best } = scratch;
        let n_codewords = self.codebooks.n_codewords();
        let norms = &self.norms[level * n_codewords..][..n_codewords];
        let weight_from = self.weights_from[level];
        let scale = 2.0 * rounded.scale * self.columns[level].scale;
        own_terms.clear();
        own_terms.extend(norms.iter().zip(products).map(|(norm, &product)| norm - product as f32 * scale));

        // For each codeword of a kept code, twice its products with the codewords of this level.
        let gram = |code: usize| {
            let rows = codes[code * level..][..level].iter().enumerate();
            rows.map(|(l, &k)| {
                &self.gram[level][(l * n_codewords + usize::from(k)) * n_codewords..][..n_codewords]
            })
        };
        costs.resize(kept.len() * n_codewords, 0.0);
        low_costs.clear();
        for (at, (&code, costs)) in kept.iter().zip(costs.chunks_exact_mut(n_codewords)).enumerate() {
            errors.clone_from(own_terms);
            for gram in gram(at) {
                errors.iter_mut().zip(gram).for_each(|(error, gram)| *error += gram);
            }
            for (error, cost) in errors.iter().zip(&mut *costs) {
                *cost = code.cost + weight_from * (error + code.error);
            }
            low_costs.extend(lanes(costs, f32::INFINITY, |low, cost| if cost < low { cost } else { low }));
        }

        // At least `width` costs are at most `limit`. A cost that is higher by more than the
        // tolerance is not among the best.
        if low_costs.len() < self.width {
            low_costs.clone_from(costs);
        }
        let limit = match low_costs.len() >= self.width {
            true => *low_costs.select_nth_unstable_by(self.width - 1, f32::total_cmp).1,
            false => f32::INFINITY,
        };
        let limit = limit + self.tolerance(rounded, level);
        exact_terms.clear();
        exact_terms.resize(n_codewords, f32::NAN);
        needed.clear();
        best.clear();
        for (at, costs) in costs.chunks_exact(n_codewords).enumerate() {
            for (block, costs) in costs.chunks(BLOCK).enumerate() {
                // A sum of bits lets the loop become vector instructions.
                let bits = (0..).zip(costs).map(|(i, &cost)| u32::from(cost <= limit) << i);
                let mut within: u32 = bits.fold(0, |within, bit| within | bit);
                while within != 0 {
                    let codeword = block * BLOCK + within.trailing_zeros() as usize;
                    within &= within - 1;
                    if exact_terms[codeword].is_nan() {
                        exact_terms[codeword] = 0.0;
                        needed.push(codeword);
                    }
                    best.push(Continuation { kept: at, codeword, error: 0.0, cost: 0.0 });
                }
            }
        }
        for needed in needed.chunks(dot::ROWS) {
            // The last row stands in for missing ones.
            let row = |i: usize| self.codebooks.codeword(level, needed[i.min(needed.len() - 1)]);
            for (&codeword, product) in needed.iter().zip(dots_of(x, std::array::from_fn(row))) {
                exact_terms[codeword] = norms[codeword] - 2.0 * product;
            }
        }
        for Continuation { kept: at, codeword, error, cost } in &mut *best {
            let code = &kept[*at];
            let products = gram(*at).map(|gram| gram[*codeword]);
            *error = products.fold(exact_terms[*codeword], |error, gram| error + gram) + code.error;
            *cost = code.cost + weight_from * *error;
        }
        // Errors decide where a weight is too small to change the cost.
        best.sort_by(|a, b| a.cost.total_cmp(&b.cost).then(a.error.total_cmp(&b.error)));
        best.truncate(self.width);
    }

    /// Returns a bound on twice the difference between a cost from rounded products and the same
    /// cost in f32.
    ///
    /// The difference has two parts. One is the error of the product: of rounding both vectors, and
    /// of its sum in f32. The other is the rounding of both costs in f32: fewer than L + 6
    /// roundings of numbers up to (‖x‖ + Σ_l ‖c_l‖)². A tenth is added for the norm, itself a sum
    /// in f32, for weights whose sum is rounded, and for adding this to the limit.
    fn tolerance(&self, row: Rounded, level: usize) -> f32 {
        let unit = 0.5f64.powi(24);
        let (max_norm, dim, n_levels) =
            (self.max_norms[level], self.codebooks.dim() as f64, self.max_norms.len() as f64);
        let product = self.columns[level].bound(row, max_norm) + (dim + 2.0) * unit * row.norm * max_norm;
        let rest = 2.0 * (n_levels + 6.0) * unit * (row.norm + self.sum_of_max_norms).powi(2);
        (2.2 * (2.0 * f64::from(self.weights_from[level]) * product + rest)) as f32
    }
}

vectorize! {
    fn search(search: &Search<'_>, x: &[f32], products: &Products, at: usize, scratch: &mut Scratch) =
        |search: &Search<'_>, x, products, at, scratch| {
            search.search(x, products, at, scratch, |x, rows| avx2::dots_of(x, rows))
        },
        |search: &Search<'_>, x, products, at, scratch| search.search(x, products, at, scratch, dots_of)
}

#[cfg(test)]
mod tests;
