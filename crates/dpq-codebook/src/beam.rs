//! Beam search: codes that look ahead, where greedy ones take the nearest codeword level by level.
//!
//! With the inner products of all codewords with each other, what a code leaves of a feature is a sum of table entries:
//! ‖x − x̂‖² = ‖x‖² + Σ_l (‖c_l‖² − 2⟨x, c_l⟩ + 2 Σ_{j<l} ⟨c_j, c_l⟩).

use rayon::prelude::*;

use crate::assign::is_ordinary;
use crate::error::check_finite;
use crate::product::{Columns, squared_norm};
use crate::{Assignment, Codebooks, Error};

/// Features encoded at a time by one thread.
const CHUNK: usize = 60;

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
        (0..self.weights.len()).map(|level| self.weights[level..].iter().sum()).collect()
    }
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
            .for_each_init(Vec::new, |products, (codes, features)| search.encode(features, products, codes));
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
    error: f32,
    /// The cost of all lengths if the longer ones left as much.
    cost: f32,
}

struct Search<'a> {
    beam: Beam<'a>,
    weights_from: Vec<f32>,
    n_codewords: usize,
    columns: Columns,
    /// Inner products of all codewords, f32 [L·K, width of the columns].
    gram: Vec<f32>,
    /// Squared norms of all codewords, [L·K].
    norms: Vec<f32>,
}

impl<'a> Search<'a> {
    fn new(codebooks: &Codebooks, beam: Beam<'a>) -> Self {
        let (dim, values) = (codebooks.dim(), codebooks.values());
        let columns = Columns::new(values, dim);
        let width = columns.width();
        let mut gram = vec![0.0; values.len() / dim * width];
        gram.par_chunks_mut(CHUNK * width).zip(values.par_chunks(CHUNK * dim)).for_each_init(
            Vec::new,
            |products, (gram, rows)| {
                columns.products(rows, products);
                gram.copy_from_slice(products);
            },
        );
        Self {
            beam,
            weights_from: beam.weights_from(),
            n_codewords: codebooks.n_codewords(),
            norms: values.chunks_exact(dim).map(|codeword| squared_norm(codeword) as f32).collect(),
            columns,
            gram,
        }
    }

    /// Writes the codes [n, L] of `features` [n, D]; `products` is reused memory.
    fn encode(&self, features: &[f32], products: &mut Vec<f32>, codes: &mut [u8]) {
        self.columns.products(features, products);
        let n_levels = self.weights_from.len();
        for (products, code) in
            products.chunks_exact(self.columns.width()).zip(codes.chunks_exact_mut(n_levels))
        {
            let best = self.search(products);
            code.iter_mut().zip(best.rows).for_each(|(code, row)| *code = (row % self.n_codewords) as u8);
        }
    }

    /// The best code of a feature, of which `products` holds the inner products with all codewords.
    fn search(&self, products: &[f32]) -> Kept {
        let mut kept = vec![Kept { rows: Vec::new(), error: 0.0, cost: 0.0 }];
        let (mut alone, mut errors) = (vec![0.0; self.n_codewords], vec![0.0; self.n_codewords]);
        for (level, &weight) in self.beam.weights.iter().enumerate() {
            let first = level * self.n_codewords;
            let norms_and_products = self.norms[first..].iter().zip(&products[first..]);
            alone
                .iter_mut()
                .zip(norms_and_products)
                .for_each(|(e, (norm, product))| *e = norm - 2.0 * product);
            let mut best: Vec<Continuation> = Vec::with_capacity(self.beam.width + 1);
            for (i, code) in kept.iter().enumerate() {
                errors.copy_from_slice(&alone);
                for row in &code.rows {
                    let gram = &self.gram[row * self.columns.width() + first..][..self.n_codewords];
                    errors.iter_mut().zip(gram).for_each(|(error, product)| *error += 2.0 * product);
                }
                self.offer(i, code, level, &errors, &mut best);
            }
            let go_on = |best: &Continuation| {
                let code = &kept[best.kept];
                let rows = code.rows.iter().copied().chain([first + best.codeword]).collect();
                Kept { rows, error: best.error, cost: code.cost + weight * best.error }
            };
            kept = best.iter().map(go_on).collect();
        }
        kept.swap_remove(0)
    }

    /// Takes those continuations of a code into `best`, in ascending order of cost, that are among the best. Of equals the
    /// first stays.
    fn offer(&self, kept: usize, code: &Kept, level: usize, errors: &[f32], best: &mut Vec<Continuation>) {
        for (codeword, &error) in errors.iter().enumerate() {
            let error = code.error + error;
            let cost = code.cost + self.weights_from[level] * error;
            let is_full = best.len() == self.beam.width;
            if is_full && best.last().is_some_and(|worst| cost >= worst.cost) {
                continue;
            }
            let at = best.partition_point(|other| other.cost <= cost);
            best.insert(at, Continuation { kept, codeword, error, cost });
            best.truncate(self.beam.width);
        }
    }
}
