//! Beam search: codes that look ahead, where greedy ones take the nearest codeword level by level.
//!
//! With the inner products of all codewords with each other, what a code leaves of a feature is a sum of table entries:
//! ‖x − x̂‖² = ‖x‖² + Σ_l (‖c_l‖² − 2⟨x, c_l⟩ + 2 Σ_{j<l} ⟨c_j, c_l⟩).

use rayon::prelude::*;

use crate::assign::is_ordinary;
use crate::error::check_finite;
use crate::product::{Columns, lanes, squared_norm};
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
    /// centre features far from the origin. Codes are the same on every CPU with fused multiply-add; elsewhere the last bit of
    /// a sum may decide otherwise. Features whose norm is outside 1e-15 to 1e15 get the code of [`encode`](Self::encode), and so
    /// do all where a codeword's is.
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
                || (Vec::new(), Memory::default()),
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
    /// Of all lengths if the longer ones left as much.
    cost: f32,
}

/// Memory of a search, which is used again.
#[derive(Default)]
struct Memory {
    /// By codeword of a level [K]: ‖c‖² − 2⟨x, c⟩.
    alone: Vec<f32>,
    /// By kept code and codeword [width, K]: ‖x − x̂‖² − ‖x‖² of the continuation, and its cost.
    errors: Vec<f32>,
    costs: Vec<f32>,
    /// Some of the costs, among them the least.
    least: Vec<f32>,
    best: Vec<Continuation>,
}

struct Search {
    width: usize,
    /// By length [L], summing to 1: so no cost overflows.
    weights: Vec<f32>,
    weights_from: Vec<f32>,
    n_codewords: usize,
    columns: Columns,
    /// Twice the inner products of all codewords, f32 [L·K, width of the columns].
    gram: Vec<f32>,
    /// Squared norms of all codewords, [L·K].
    norms: Vec<f32>,
}

impl Search {
    fn new(codebooks: &Codebooks, beam: Beam<'_>) -> Self {
        let (dim, values) = (codebooks.dim(), codebooks.values());
        let columns = Columns::new(values, dim);
        let width = columns.width();
        let mut gram = vec![0.0; values.len() / dim * width];
        gram.par_chunks_mut(CHUNK * width).zip(values.par_chunks(CHUNK * dim)).for_each_init(
            Vec::new,
            |products, (gram, rows)| {
                columns.products(rows, products);
                gram.iter_mut().zip(products).for_each(|(gram, product)| *gram = 2.0 * *product);
            },
        );
        let sum: f64 = beam.weights.iter().map(|&weight| f64::from(weight)).sum();
        let weights: Vec<f32> = beam.weights.iter().map(|&weight| (f64::from(weight) / sum) as f32).collect();
        Self {
            width: beam.width,
            weights_from: weights_from(&weights),
            weights,
            n_codewords: codebooks.n_codewords(),
            norms: values.chunks_exact(dim).map(|codeword| squared_norm(codeword) as f32).collect(),
            columns,
            gram,
        }
    }

    /// Writes the codes [n, L] of `features` [n, D]; `products` and `memory` are used again.
    fn encode(&self, features: &[f32], products: &mut Vec<f32>, memory: &mut Memory, codes: &mut [u8]) {
        self.columns.products(features, products);
        let n_levels = self.weights_from.len();
        for (products, code) in
            products.chunks_exact(self.columns.width()).zip(codes.chunks_exact_mut(n_levels))
        {
            let best = search(self, products, memory);
            code.iter_mut().zip(best.rows).for_each(|(code, row)| *code = (row % self.n_codewords) as u8);
        }
    }

    /// The best code of a feature, of which `products` holds the inner products with all codewords.
    #[inline(always)]
    fn search(&self, products: &[f32], memory: &mut Memory) -> Kept {
        let mut kept = vec![Kept { rows: Vec::new(), error: 0.0, cost: 0.0 }];
        for (level, &weight) in self.weights.iter().enumerate() {
            self.continuations(products, &kept, level, memory);
            let go_on = |best: &Continuation| {
                let code = &kept[best.kept];
                let rows =
                    code.rows.iter().copied().chain([level * self.n_codewords + best.codeword]).collect();
                let error = memory.errors[best.kept * self.n_codewords + best.codeword];
                Kept { rows, error, cost: code.cost + weight * error }
            };
            kept = memory.best.iter().map(go_on).collect();
        }
        kept.swap_remove(0)
    }

    /// Leaves the best continuations of all codes in `memory`, the first of equals first, and their errors.
    #[inline(always)]
    fn continuations(&self, products: &[f32], kept: &[Kept], level: usize, memory: &mut Memory) {
        let Memory { alone, errors, costs, least, best } = memory;
        let (first, n_codewords, width) = (level * self.n_codewords, self.n_codewords, self.width);
        alone.clear();
        let norms_and_products = self.norms[first..][..n_codewords].iter().zip(&products[first..]);
        alone.extend(norms_and_products.map(|(norm, product)| norm - 2.0 * product));

        errors.resize(kept.len() * n_codewords, 0.0);
        costs.resize(kept.len() * n_codewords, 0.0);
        least.clear();
        let by_code = errors.chunks_exact_mut(n_codewords).zip(costs.chunks_exact_mut(n_codewords));
        for (code, (errors, costs)) in kept.iter().zip(by_code) {
            errors.copy_from_slice(alone);
            for row in &code.rows {
                let gram = &self.gram[row * self.columns.width() + first..][..n_codewords];
                errors.iter_mut().zip(gram).for_each(|(error, gram)| *error += gram);
            }
            for (error, cost) in errors.iter_mut().zip(&mut *costs) {
                *error += code.error;
                *cost = code.cost + self.weights_from[level] * *error;
            }
            least.extend(lanes(costs, f32::INFINITY, |least, cost| if cost < least { cost } else { least }));
        }

        // As many costs as codes are kept: none that is higher than all of them is among the best.
        let limit = match least.len() > width {
            true => *least.select_nth_unstable_by(width - 1, f32::total_cmp).1,
            false => f32::INFINITY,
        };
        best.clear();
        for (kept, costs) in costs.chunks_exact(n_codewords).enumerate() {
            for (block, costs) in costs.chunks(BLOCK).enumerate() {
                let n_within: u32 = costs.iter().map(|&cost| u32::from(cost <= limit)).sum();
                if n_within > 0 {
                    let within = costs.iter().enumerate().filter(|&(_, &cost)| cost <= limit);
                    best.extend(within.map(|(i, &cost)| Continuation {
                        kept,
                        codeword: block * BLOCK + i,
                        cost,
                    }));
                }
            }
        }
        best.sort_by(|a, b| a.cost.total_cmp(&b.cost));
        best.truncate(width);
    }
}

vectorize! {
    fn search(search: &Search, products: &[f32], memory: &mut Memory) -> Kept = Search::search, Search::search
}
