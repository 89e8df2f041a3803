//! The search itself, one feature at a time.
//!
//! With the inner products of all codewords with each other, what a code leaves of a feature is a sum of table entries:
//! ‖x − x̂‖² = ‖x‖² + Σ_l (‖c_l‖² − 2⟨x, c_l⟩ + 2 Σ_{j<l} ⟨c_j, c_l⟩).
//!
//! Products with x are of rounded vectors. How wrong they can be is known, and those that may belong to the best are made
//! once more in f32, in one order.

use rayon::prelude::*;

use super::{Beam, CHUNK, weights_from};
#[cfg(target_arch = "x86_64")]
use crate::dot::avx2;
use crate::dot::{self, dots, dots_of};
use crate::norm::{is_ordinary, lanes, squared_norm};
use crate::rounded::{Columns, Rounded, Rows};
use crate::vectorize::vectorize;
use crate::{Codebooks, Error};

/// Codewords that many others are multiplied with while they are in the cache.
const COLUMNS: usize = 16;

/// Costs that are compared at a time.
const BLOCK: usize = u32::BITS as usize;

/// What is known of a code that is kept.
#[derive(Clone, Copy)]
struct Kept {
    /// ‖x − x̂‖² − ‖x‖².
    error: f32,
    /// The weighted errors of the lengths so far.
    cost: f32,
}

/// A codeword that continues a code, by their positions.
struct Continuation {
    kept: usize,
    codeword: usize,
    /// ‖x − x̂‖² − ‖x‖².
    error: f32,
    /// Of all lengths if the longer ones left as much.
    cost: f32,
}

/// Rounded products of some features with all codewords, memory that is used again.
#[derive(Default)]
pub(super) struct Products {
    rows: Rows,
    /// By level [n, width of its columns].
    by_level: Vec<Vec<i32>>,
}

/// Memory of a search, which is used again.
#[derive(Default)]
pub(super) struct Memory {
    kept: Vec<Kept>,
    /// The codes that are kept, [kept, levels so far].
    codes: Vec<u8>,
    /// By codeword of a level [K], rounded: ‖c‖² − 2⟨x, c⟩.
    alone: Vec<f32>,
    /// The same in f32; NaN but for the codewords in `asked`.
    exact: Vec<f32>,
    asked: Vec<usize>,
    /// By codeword [K], rounded: ‖x − x̂‖² − ‖x‖² of a kept code's continuation.
    errors: Vec<f32>,
    /// By kept code and codeword [width, K], rounded.
    costs: Vec<f32>,
    /// Some of the costs, among them the least.
    least: Vec<f32>,
    best: Vec<Continuation>,
}

pub(super) struct Search<'a> {
    codebooks: &'a Codebooks,
    width: usize,
    /// By length [L], summing to 1: so no cost overflows.
    weights: Vec<f32>,
    weights_from: Vec<f32>,
    /// By level, its codewords.
    columns: Vec<Columns>,
    /// By level, the norm of its longest codeword, and the sum of these.
    longest: Vec<f64>,
    reach: f64,
    /// By level l, twice the inner products of the codewords of the levels before and its own, [l·K, K].
    gram: Vec<Vec<f32>>,
    /// Squared norms of all codewords, [L·K].
    norms: Vec<f32>,
}

impl<'a> Search<'a> {
    /// None where codes are the greedy ones: if the width is 1, or a codeword's norm is none that can be searched by.
    pub(super) fn new(codebooks: &'a Codebooks, beam: Beam<'_>) -> Option<Self> {
        let (dim, values) = (codebooks.dim(), codebooks.values());
        if beam.width == 1 {
            return None;
        }
        let norms: Vec<f64> = values.chunks_exact(dim).map(squared_norm).collect();
        if !norms.iter().copied().all(is_ordinary) {
            return None;
        }
        let n_codewords = codebooks.n_codewords();
        let doubled: Vec<f32> = values.iter().map(|c| 2.0 * c).collect();
        let gram = |level: usize| {
            let mut gram = vec![0.0; level * n_codewords * n_codewords];
            let rows = gram.par_chunks_mut(CHUNK * n_codewords).zip(doubled.par_chunks(CHUNK * dim));
            rows.for_each(|(gram, rows)| {
                // Some columns for all rows, as they are in the cache.
                for (i, columns) in codebooks.level(level).chunks(COLUMNS * dim).enumerate() {
                    for (gram, row) in gram.chunks_exact_mut(n_codewords).zip(rows.chunks_exact(dim)) {
                        dots(row, columns, &mut gram[i * COLUMNS..][..columns.len() / dim]);
                    }
                }
            });
            gram
        };
        let longest = |norms: &[f64]| norms.iter().copied().fold(0.0, f64::max).sqrt();
        let longest: Vec<f64> = norms.chunks_exact(n_codewords).map(longest).collect();
        let weights = beam.normalized_weights();
        let columns =
            (0..codebooks.n_levels()).map(|level| Columns::new(codebooks.level(level), vec![0.0; dim]));
        Some(Self {
            codebooks,
            width: beam.width,
            weights_from: weights_from(&weights),
            weights,
            columns: columns.collect(),
            reach: longest.iter().sum(),
            longest,
            gram: (0..codebooks.n_levels()).map(gram).collect(),
            norms: norms.into_iter().map(|norm| norm as f32).collect(),
        })
    }

    /// Hands each of `features` [n, D] and the codes that are kept of it, the best first, to `found`; `products` and `memory`
    /// are used again.
    pub(super) fn encode(
        &self,
        features: &[f32],
        products: &mut Products,
        memory: &mut Memory,
        mut found: impl FnMut(&[f32], &[u8]),
    ) -> Result<(), Error> {
        let Products { rows, by_level } = products;
        rows.round(features, &self.columns[0].origin);
        by_level.resize_with(self.columns.len(), Vec::new);
        self.columns.iter().zip(&mut *by_level).for_each(|(columns, out)| columns.products(rows, out));
        for (at, x) in features.chunks_exact(self.codebooks.dim()).enumerate() {
            if self.columns[0].is_ordinary(x, products.rows.rounded[at]) {
                search(self, x, products, at, memory);
            } else {
                memory.codes = self.codebooks.encode(x)?;
            }
            found(x, &memory.codes);
        }
        Ok(())
    }

    /// Leaves the best codes of the feature x in `memory`, the best first; x is number `at` of those whose products there are.
    #[inline(always)]
    fn search(
        &self,
        x: &[f32],
        products: &Products,
        at: usize,
        memory: &mut Memory,
        dots_of: impl Fn(&[f32], [&[f32]; dot::ROWS]) -> [f32; dot::ROWS],
    ) {
        let rounded = products.rows.rounded[at];
        memory.kept.clear();
        memory.kept.push(Kept { error: 0.0, cost: 0.0 });
        memory.codes.clear();
        for (level, &weight) in self.weights.iter().enumerate() {
            let width = self.columns[level].width();
            let products = &products.by_level[level][at * width..][..width];
            self.continuations((x, rounded), products, level, memory, &dots_of);

            let Memory { kept, codes, best, .. } = memory;
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

    /// Leaves the best continuations of all codes in `memory`, of equal costs the least error, then the first. `products` are
    /// the rounded ones with the codewords of the level.
    #[inline(always)]
    fn continuations(
        &self,
        (x, rounded): (&[f32], Rounded),
        products: &[i32],
        level: usize,
        memory: &mut Memory,
        dots_of: impl Fn(&[f32], [&[f32]; dot::ROWS]) -> [f32; dot::ROWS],
    ) {
        let Memory { kept, codes, alone, exact, asked, errors, costs, least, best } = memory;
        let n_codewords = self.codebooks.n_codewords();
        let norms = &self.norms[level * n_codewords..][..n_codewords];
        let weight_from = self.weights_from[level];
        let scale = 2.0 * rounded.scale * self.columns[level].scale;
        alone.clear();
        alone.extend(norms.iter().zip(products).map(|(norm, &product)| norm - product as f32 * scale));

        // By codeword of a code, its products with the codewords of this level.
        let gram = |code: usize| {
            let rows = codes[code * level..][..level].iter().enumerate();
            rows.map(|(l, &k)| {
                &self.gram[level][(l * n_codewords + usize::from(k)) * n_codewords..][..n_codewords]
            })
        };
        costs.resize(kept.len() * n_codewords, 0.0);
        least.clear();
        for (at, (&code, costs)) in kept.iter().zip(costs.chunks_exact_mut(n_codewords)).enumerate() {
            errors.clone_from(alone);
            for gram in gram(at) {
                errors.iter_mut().zip(gram).for_each(|(error, gram)| *error += gram);
            }
            for (error, cost) in errors.iter().zip(&mut *costs) {
                *cost = code.cost + weight_from * (error + code.error);
            }
            least.extend(lanes(costs, f32::INFINITY, |least, cost| if cost < least { cost } else { least }));
        }

        // As many costs as codes are kept: none that is higher than all of them, by more than they can be wrong, is among the
        // best.
        if least.len() < self.width {
            least.clone_from(costs);
        }
        let limit = match least.len() >= self.width {
            true => *least.select_nth_unstable_by(self.width - 1, f32::total_cmp).1,
            false => f32::INFINITY,
        };
        let limit = limit + self.tolerance(rounded, level);
        exact.clear();
        exact.resize(n_codewords, f32::NAN);
        asked.clear();
        best.clear();
        for (at, costs) in costs.chunks_exact(n_codewords).enumerate() {
            for (block, costs) in costs.chunks(BLOCK).enumerate() {
                // As bits, which become vector instructions.
                let bits = (0..).zip(costs).map(|(i, &cost)| u32::from(cost <= limit) << i);
                let mut within: u32 = bits.fold(0, |within, bit| within | bit);
                while within != 0 {
                    let codeword = block * BLOCK + within.trailing_zeros() as usize;
                    within &= within - 1;
                    if exact[codeword].is_nan() {
                        exact[codeword] = 0.0;
                        asked.push(codeword);
                    }
                    best.push(Continuation { kept: at, codeword, error: 0.0, cost: 0.0 });
                }
            }
        }
        for asked in asked.chunks(dot::ROWS) {
            // For rows that are missing the last stands in.
            let row = |i: usize| self.codebooks.codeword(level, asked[i.min(asked.len() - 1)]);
            for (&codeword, product) in asked.iter().zip(dots_of(x, std::array::from_fn(row))) {
                exact[codeword] = norms[codeword] - 2.0 * product;
            }
        }
        for Continuation { kept: at, codeword, error, cost } in &mut *best {
            let code = &kept[*at];
            let products = gram(*at).map(|gram| gram[*codeword]);
            *error = products.fold(exact[*codeword], |error, gram| error + gram) + code.error;
            *cost = code.cost + weight_from * *error;
        }
        // Where a weight is too small to tell costs apart, errors do.
        best.sort_by(|a, b| a.cost.total_cmp(&b.cost).then(a.error.total_cmp(&b.error)));
        best.truncate(self.width);
    }

    /// More than twice what a rounded cost can differ from that in f32.
    ///
    /// By what a product is wrong as both sides are rounded, and as its sum in f32 is; and by the roundings of what either cost
    /// is made of in f32, fewer than L + 6 of numbers that are at most (‖x‖ + Σ_l ‖c_l‖)². A tenth is for the norm, itself a
    /// sum in f32, for weights that sum to 1 but for roundings, and for adding this to the limit.
    fn tolerance(&self, row: Rounded, level: usize) -> f32 {
        let unit = 0.5f64.powi(24);
        let (longest, dim, n_levels) =
            (self.longest[level], self.codebooks.dim() as f64, self.longest.len() as f64);
        let product = self.columns[level].bound(row, longest) + (dim + 2.0) * unit * row.norm * longest;
        let rest = 2.0 * (n_levels + 6.0) * unit * (row.norm + self.reach).powi(2);
        (2.2 * (2.0 * f64::from(self.weights_from[level]) * product + rest)) as f32
    }
}

vectorize! {
    fn search(search: &Search<'_>, x: &[f32], products: &Products, at: usize, memory: &mut Memory) =
        |search: &Search<'_>, x, products, at, memory| {
            search.search(x, products, at, memory, |x, rows| avx2::dots_of(x, rows))
        },
        |search: &Search<'_>, x, products, at, memory| search.search(x, products, at, memory, dots_of)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails may panic")]
mod tests {
    use super::*;
    use crate::Assignment;

    /// The search from its definition, with every product in f32: all codes that are kept, the best first.
    fn search(codebooks: &Codebooks, x: &[f32], beam: Beam<'_>) -> Vec<u8> {
        let weights = beam.normalized_weights();
        let dot = |a: &[f32], b: &[f32]| dots_of(a, [b; dot::ROWS])[0];
        let mut kept = vec![(Vec::<u8>::new(), Kept { error: 0.0, cost: 0.0 })];
        for (level, weight_from) in weights_from(&weights).into_iter().enumerate() {
            let mut all = Vec::new();
            for (code, so_far) in &kept {
                for k in 0..codebooks.n_codewords() {
                    let c = codebooks.codeword(level, k);
                    let alone = squared_norm(c) as f32 - 2.0 * dot(x, c);
                    let products =
                        code.iter().enumerate().map(|(l, &k)| 2.0 * dot(codebooks.codeword(l, k.into()), c));
                    let error = products.fold(alone, |error, product| error + product) + so_far.error;
                    let longer: Vec<u8> = code.iter().copied().chain([k as u8]).collect();
                    let kept = Kept { error, cost: so_far.cost + weights[level] * error };
                    all.push((so_far.cost + weight_from * error, (longer, kept)));
                }
            }
            all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.1.error.total_cmp(&b.1.1.error)));
            kept = all.into_iter().take(beam.width).map(|(_, code)| code).collect();
        }
        kept.into_iter().flat_map(|(code, _)| code).collect()
    }

    #[test]
    fn rounding_loses_no_code() {
        let mut state = 1u64;
        let mut number = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        // Miri would take hours for more dimensions.
        let dims: &[usize] = if cfg!(miri) { &[7] } else { &[1, 7, 64, 301] };
        for &dim in dims {
            // Codewords all over the place, close to each other, and far from the origin; features at very different scales.
            for (spread, offset, size) in
                [(1.0, 0.0, 1.0), (1e-3, 1.0, 1.0), (0.1, 30.0, 1.0), (1.0, 0.0, 1e-6), (1.0, 0.0, 1e6)]
            {
                let (n_levels, n_codewords) = (3, 40);
                let values: Vec<f32> = (0..n_levels * n_codewords * dim)
                    .map(|i| match i / (n_codewords * dim) {
                        0 => offset + spread * number(),
                        level => spread * 0.3f32.powi(level as i32) * number(),
                    })
                    .collect();
                let codebooks =
                    Codebooks::new(values, n_levels, n_codewords, dim, Assignment::Euclidean).unwrap();
                let features: Vec<f32> = (0..50 * dim).map(|_| size * (offset + spread * number())).collect();
                // The last keeps more codes than there are at first.
                for (width, weights, n) in
                    [(2, [0.0, 0.0, 1.0], 50), (5, [1.0, 1.0, 2.0], 50), (45, [1.0; 3], 2)]
                {
                    let features = &features[..n * dim];
                    let beam = Beam { width, weights: &weights };
                    let found = codebooks
                        .fold_beam(features, beam, |found: &mut Vec<_>, _, kept| found.push(kept.to_vec()))
                        .unwrap()
                        .concat();
                    let codes = codebooks.encode_beam(features, beam).unwrap();
                    let rows = features.chunks_exact(dim).zip(found).zip(codes.chunks_exact(n_levels));
                    for ((x, found), code) in rows {
                        let expected = search(&codebooks, x, beam);
                        assert_eq!(found, expected, "dim {dim}, spread {spread}, size {size}, width {width}");
                        assert_eq!(code, &expected[..n_levels]);
                    }
                }
            }
        }
    }

    #[test]
    fn features_that_cannot_be_searched_have_their_greedy_code_alone() {
        let codebooks = Codebooks::new(vec![1.0, 2.0, 0.1, 0.3], 2, 2, 1, Assignment::Euclidean).unwrap();
        let beam = Beam { width: 3, weights: &[1.0; 2] };
        let kept = |found: &mut Vec<usize>, _: &[f32], kept: &[u8]| found.push(kept.len() / 2);
        let features = [1.1, 1e20, 1.4, 1e-20];
        assert_eq!(codebooks.fold_beam(&features, beam, kept).unwrap().concat(), [3, 1, 3, 1]);
        let beam = Beam { width: 1, ..beam };
        assert_eq!(codebooks.fold_beam(&features, beam, kept).unwrap().concat(), [1; 4]);
    }
}
