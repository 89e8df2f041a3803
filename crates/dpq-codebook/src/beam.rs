//! Beam search: codes that look ahead, where greedy ones take the nearest codeword level by level.
//!
//! With the inner products of all codewords with each other, what a code leaves of a feature is a sum of table entries:
//! ‖x − x̂‖² = ‖x‖² + Σ_l (‖c_l‖² − 2⟨x, c_l⟩ + 2 Σ_{j<l} ⟨c_j, c_l⟩).
//!
//! Products with x are of rounded vectors. How wrong they can be is known, and those that may belong to the best are made
//! once more in f32, in one order.

use rayon::prelude::*;

use crate::assign::is_ordinary;
#[cfg(target_arch = "x86_64")]
use crate::dot::avx2;
use crate::dot::{dot, dots};
use crate::error::check_finite;
use crate::norm::{lanes, squared_norm};
use crate::rounded::{Columns, Rounded, Rows};
use crate::vectorize::vectorize;
use crate::{Assignment, Codebooks, Error};

/// Features encoded at a time by one thread.
const CHUNK: usize = 60;

/// Costs that are compared at a time.
const BLOCK: usize = 32;

/// Codewords of all levels, at most: their inner products with each other take 1 GiB then.
const MAX_CODEWORDS: usize = 1 << 14;

/// How codes are searched for, and what they are to be good at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Beam<'a> {
    /// Codes that are kept from one level to the next. 1 is greedy encoding.
    pub width: usize,
    /// By length `[L]`, how much its squared error ‖x − x̂^l‖² counts, at least 0. All equal is the paper's sum over
    /// lengths; 0 but for the last is the longest code alone, at the expense of its prefixes. The last is not 0: levels that
    /// no length counts would be arbitrary.
    pub weights: &'a [f32],
}

impl Beam<'_> {
    /// Refuses a beam that does not fit `codebooks`.
    pub(crate) fn check(&self, codebooks: &Codebooks) -> Result<(), Error> {
        if self.width == 0 {
            return Err(Error::Range { what: "beam width", found: 0, expected: "at least 1".to_owned() });
        }
        if self.weights.len() != codebooks.n_levels() {
            return Err(Error::Length {
                what: "weights",
                found: self.weights.len(),
                expected: format!("{}, one a length", codebooks.n_levels()),
            });
        }
        let n_codewords = codebooks.n_levels() * codebooks.n_codewords();
        if self.width > 1 && n_codewords > MAX_CODEWORDS {
            let expected = format!("at most {MAX_CODEWORDS} for a beam");
            return Err(Error::Range {
                what: "number of codewords of all levels",
                found: n_codewords,
                expected,
            });
        }
        check_finite("weights", self.weights)?;
        let last = self.weights.len() - 1;
        let is_wrong = |(at, &weight): (usize, &f32)| weight < 0.0 || at == last && weight == 0.0;
        match self.weights.iter().enumerate().position(is_wrong) {
            Some(position) => Err(Error::Weight { value: self.weights[position], position }),
            None if codebooks.assignment() == Assignment::Cosine && self.width > 1 => Err(Error::Cosine),
            None => Ok(()),
        }
    }

    /// By level, the sum of the weights of the lengths that it is part of.
    pub(crate) fn weights_from(&self) -> Vec<f32> {
        weights_from(self.weights)
    }
}

fn weights_from(weights: &[f32]) -> Vec<f32> {
    (0..weights.len()).map(|level| weights[level..].iter().sum()).collect()
}

impl Codebooks {
    /// Encodes features by beam search: of all continuations of the codes kept at a level, those are kept whose weighted
    /// error up to here, with that of the longer codes as if they left as much, is least.
    ///
    /// Source: faiss's residual quantizer, for the weights of the longest code alone. A width of 1 is
    /// [`encode`](Self::encode). Shapes: features [N, D]; returns codes [N, L]. Takes 4·(L·K)² bytes beside. Errors are
    /// differences of sums in f32, so that codes whose errors differ by less than about D·2⁻²⁴ of ‖x‖² are not told apart:
    /// centre features far from the origin. Codes are the same on every CPU. Features whose norm is outside 1e-15 to 1e15 get
    /// the code of [`encode`](Self::encode), and so do all where a codeword's is.
    ///
    /// # Errors
    /// As [`encode`](Self::encode); [`Error::Range`], [`Error::Length`], [`Error::NotFinite`] or [`Error::Weight`] if the
    /// beam does not fit, [`Error::Cosine`] for assignment by cosine with a width above 1.
    pub fn encode_beam(&self, features: &[f32], beam: Beam<'_>) -> Result<Vec<u8>, Error> {
        beam.check(self)?;
        let is_ordinary = |x: &[f32]| is_ordinary(squared_norm(x));
        if beam.width == 1 || !self.values().chunks_exact(self.dim()).all(is_ordinary) {
            return self.encode(features);
        }
        let n = self.check_features(features)?;
        let search = Search::new(self, beam);
        let mut codes = vec![0; n * self.n_levels()];
        codes
            .par_chunks_mut(CHUNK * self.n_levels())
            .zip(features.par_chunks(CHUNK * self.dim()))
            .for_each_init(
                || (Products::default(), Memory::default()),
                |(products, memory), (codes, features)| search.encode(features, products, memory, codes),
            );
        let rows = features.chunks_exact(self.dim()).zip(codes.chunks_exact_mut(self.n_levels()));
        for (x, code) in rows.filter(|(x, _)| !is_ordinary(x)) {
            code.copy_from_slice(&self.encode(x)?);
        }
        Ok(codes)
    }
}

/// A code that is kept.
#[derive(Clone)]
struct Kept {
    /// By level, the row of its codeword among all.
    rows: Vec<usize>,
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
struct Products {
    rows: Rows,
    /// By level [n, width of its columns].
    by_level: Vec<Vec<i32>>,
}

/// Memory of a search, which is used again.
#[derive(Default)]
struct Memory {
    /// By codeword of a level [K], rounded: ‖c‖² − 2⟨x, c⟩.
    alone: Vec<f32>,
    /// The same in f32, NaN where it was not asked for.
    exact: Vec<f32>,
    /// By codeword [K], rounded: ‖x − x̂‖² − ‖x‖² of a kept code's continuation.
    errors: Vec<f32>,
    /// By kept code and codeword [width, K], rounded.
    costs: Vec<f32>,
    /// Some of the costs, among them the least.
    least: Vec<f32>,
    best: Vec<Continuation>,
}

struct Search<'a> {
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
    /// Twice the inner products of all codewords, f32 [L·K, L·K].
    gram: Vec<f32>,
    /// Squared norms of all codewords, [L·K].
    norms: Vec<f32>,
}

impl<'a> Search<'a> {
    fn new(codebooks: &'a Codebooks, beam: Beam<'_>) -> Self {
        let (dim, values) = (codebooks.dim(), codebooks.values());
        let n = values.len() / dim;
        let mut gram = vec![0.0; n * n];
        gram.par_chunks_mut(CHUNK * n).zip(values.par_chunks(CHUNK * dim)).for_each(|(gram, rows)| {
            // Some columns for all rows, as they are in the cache.
            for (i, columns) in values.chunks(CHUNK * dim).enumerate() {
                for (gram, row) in gram.chunks_exact_mut(n).zip(rows.chunks_exact(dim)) {
                    let gram = &mut gram[i * CHUNK..][..columns.len() / dim];
                    dots(row, columns, gram);
                    gram.iter_mut().for_each(|product| *product *= 2.0);
                }
            }
        });
        let norms: Vec<f64> = values.chunks_exact(dim).map(squared_norm).collect();
        let longest = |norms: &[f64]| norms.iter().copied().fold(0.0, f64::max).sqrt();
        let longest: Vec<f64> = norms.chunks_exact(codebooks.n_codewords()).map(longest).collect();
        let sum: f64 = beam.weights.iter().map(|&weight| f64::from(weight)).sum();
        let weights: Vec<f32> = beam.weights.iter().map(|&weight| (f64::from(weight) / sum) as f32).collect();
        let columns =
            (0..codebooks.n_levels()).map(|level| Columns::new(codebooks.level(level), vec![0.0; dim]));
        Self {
            codebooks,
            width: beam.width,
            weights_from: weights_from(&weights),
            weights,
            columns: columns.collect(),
            reach: longest.iter().sum(),
            longest,
            gram,
            norms: norms.into_iter().map(|norm| norm as f32).collect(),
        }
    }

    /// Writes the codes [n, L] of `features` [n, D]; `products` and `memory` are used again.
    fn encode(&self, features: &[f32], products: &mut Products, memory: &mut Memory, codes: &mut [u8]) {
        let Products { rows, by_level } = products;
        let (dim, n_codewords) = (self.codebooks.dim(), self.codebooks.n_codewords());
        self.columns[0].round(features, rows);
        by_level.resize_with(self.columns.len(), Vec::new);
        self.columns.iter().zip(&mut *by_level).for_each(|(columns, out)| columns.products(rows, out));
        let rows = features.chunks_exact(dim).zip(codes.chunks_exact_mut(self.columns.len()));
        // The codes of the others are `encode_beam`'s.
        for (at, (x, code)) in rows.enumerate().filter(|(_, (x, _))| is_ordinary(squared_norm(x))) {
            let best = search(self, x, products, at, memory);
            code.iter_mut().zip(best.rows).for_each(|(code, row)| *code = (row % n_codewords) as u8);
        }
    }

    /// The best code of the feature x, which is number `at` of those whose products there are.
    #[inline(always)]
    fn search(
        &self,
        x: &[f32],
        products: &Products,
        at: usize,
        memory: &mut Memory,
        dot: impl Fn(&[f32], &[f32]) -> f32,
    ) -> Kept {
        let rounded = products.rows.rounded[at];
        let mut kept = vec![Kept { rows: Vec::new(), error: 0.0, cost: 0.0 }];
        for (level, &weight) in self.weights.iter().enumerate() {
            let width = self.columns[level].width();
            let products = &products.by_level[level][at * width..][..width];
            self.continuations((x, rounded), products, &kept, level, memory, &dot);
            let go_on = |best: &Continuation| {
                let (code, row) = (&kept[best.kept], level * self.codebooks.n_codewords() + best.codeword);
                Kept {
                    rows: code.rows.iter().copied().chain([row]).collect(),
                    error: best.error,
                    cost: code.cost + weight * best.error,
                }
            };
            kept = memory.best.iter().map(go_on).collect();
        }
        kept.swap_remove(0)
    }

    /// Leaves the best continuations of all codes in `memory`, the first of equals first. `products` are the rounded ones
    /// with the codewords of the level.
    #[inline(always)]
    fn continuations(
        &self,
        (x, rounded): (&[f32], Rounded),
        products: &[i32],
        kept: &[Kept],
        level: usize,
        memory: &mut Memory,
        dot: impl Fn(&[f32], &[f32]) -> f32,
    ) {
        let Memory { alone, exact, errors, costs, least, best } = memory;
        let n_codewords = self.codebooks.n_codewords();
        let first = level * n_codewords;
        let norms = &self.norms[first..][..n_codewords];
        let scale = 2.0 * rounded.scale * self.columns[level].scale;
        alone.clear();
        alone.extend(norms.iter().zip(products).map(|(norm, &product)| norm - product as f32 * scale));

        costs.resize(kept.len() * n_codewords, 0.0);
        least.clear();
        for (code, costs) in kept.iter().zip(costs.chunks_exact_mut(n_codewords)) {
            errors.clone_from(alone);
            for row in &code.rows {
                let gram = &self.gram[row * self.norms.len() + first..][..n_codewords];
                errors.iter_mut().zip(gram).for_each(|(error, gram)| *error += gram);
            }
            for (error, cost) in errors.iter().zip(&mut *costs) {
                *cost = code.cost + self.weights_from[level] * (error + code.error);
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
        best.clear();
        for (at, (code, costs)) in kept.iter().zip(costs.chunks_exact(n_codewords)).enumerate() {
            for (block, costs) in costs.chunks(BLOCK).enumerate() {
                let n_within: u32 = costs.iter().map(|&cost| u32::from(cost <= limit)).sum();
                if n_within == 0 {
                    continue;
                }
                for (i, _) in costs.iter().enumerate().filter(|&(_, &cost)| cost <= limit) {
                    let codeword = block * BLOCK + i;
                    let alone = &mut exact[codeword];
                    if alone.is_nan() {
                        *alone = norms[codeword] - 2.0 * dot(x, self.codebooks.codeword(level, codeword));
                    }
                    let gram = |row: &usize| self.gram[row * self.norms.len() + first + codeword];
                    let error =
                        code.rows.iter().map(gram).fold(*alone, |error, gram| error + gram) + code.error;
                    let cost = code.cost + self.weights_from[level] * error;
                    best.push(Continuation { kept: at, codeword, error, cost });
                }
            }
        }
        best.sort_by(|a, b| a.cost.total_cmp(&b.cost));
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
    fn search(search: &Search<'_>, x: &[f32], products: &Products, at: usize, memory: &mut Memory) -> Kept =
        |search: &Search<'_>, x, products, at, memory| {
            search.search(x, products, at, memory, |x, row| avx2::dot(x, row))
        },
        |search: &Search<'_>, x, products, at, memory| search.search(x, products, at, memory, dot)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails may panic")]
mod tests {
    use super::*;

    /// The search from its definition, with every product in f32.
    fn search(codebooks: &Codebooks, x: &[f32], beam: Beam<'_>) -> Vec<u8> {
        let sum: f32 = beam.weights.iter().sum();
        let weights: Vec<f32> = beam.weights.iter().map(|weight| weight / sum).collect();
        let codeword = |row: usize| &codebooks.values()[row * codebooks.dim()..][..codebooks.dim()];
        let mut kept = vec![Kept { rows: Vec::new(), error: 0.0, cost: 0.0 }];
        for (level, weight_from) in weights_from(&weights).into_iter().enumerate() {
            let mut all = Vec::new();
            for code in &kept {
                for row in (0..codebooks.n_codewords()).map(|k| level * codebooks.n_codewords() + k) {
                    let c = codeword(row);
                    let alone = squared_norm(c) as f32 - 2.0 * dot(x, c);
                    let products = code.rows.iter().map(|&row| 2.0 * dot(codeword(row), c));
                    let error = products.fold(alone, |error, product| error + product) + code.error;
                    let rows = code.rows.iter().copied().chain([row]).collect();
                    all.push((code.cost + weight_from * error, code.cost, Kept { rows, error, cost: 0.0 }));
                }
            }
            all.sort_by(|a, b| a.0.total_cmp(&b.0));
            let go_on =
                |(_, cost, code): (f32, f32, Kept)| Kept { cost: cost + weights[level] * code.error, ..code };
            kept = all.into_iter().take(beam.width).map(go_on).collect();
        }
        kept[0].rows.iter().map(|row| (row % codebooks.n_codewords()) as u8).collect()
    }

    #[test]
    fn rounding_loses_no_code() {
        let mut state = 1u64;
        let mut number = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        for dim in [1, 7, 64, 301] {
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
                for (width, weights) in [(2, [0.0, 0.0, 1.0]), (5, [1.0, 1.0, 2.0])] {
                    let beam = Beam { width, weights: &weights };
                    let codes = codebooks.encode_beam(&features, beam).unwrap();
                    for (x, code) in features.chunks_exact(dim).zip(codes.chunks_exact(n_levels)) {
                        assert_eq!(
                            code,
                            search(&codebooks, x, beam),
                            "dim {dim}, spread {spread}, size {size}"
                        );
                    }
                }
            }
        }
    }
}
