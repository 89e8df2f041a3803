//! Features to codes and back.

use rayon::prelude::*;

use crate::product::{argmax, half_squared_norms, product};
use crate::{Assignment, CodeLength, Codebooks, Error};

/// Features encoded at a time by one thread.
const CHUNK: usize = 256;

impl Codebooks {
    /// Encodes features greedily: each level takes the codeword that fits its residual best, the least of equals.
    ///
    /// Source: the paper's b^l = argmin_k ‖r^l − c^l_k‖² (§1 of docs/architecture.md), or the largest cosine.
    /// Shapes: features [N, D]; returns codes [N, L]. The first l bytes of a row are its code at level l.
    ///
    /// One matrix product gives the inner products of features and all codewords. Those of the residuals follow from the
    /// inner products between codewords, so a residual is never formed. Where two codewords are equally near up to the
    /// rounding of f32, another CPU may choose the other one.
    ///
    /// # Errors
    /// [`Error::Length`] unless `features` is whole rows, [`Error::NotFinite`] if a value is NaN or infinite.
    pub fn encode(&self, features: &[f32]) -> Result<Vec<u8>, Error> {
        let n = self.check_features(features)?;
        let (dim, n_levels) = (self.dim(), self.n_levels());
        let mut codes = vec![0; n * n_levels];
        if n == 0 {
            return Ok(codes);
        }
        let gram = self.gram.get_or_init(|| gram(&self.values, dim));
        let fit = Fit::new(self);
        codes.par_chunks_mut(CHUNK * n_levels).zip(features.par_chunks(CHUNK * dim)).for_each_init(
            Vec::new,
            |products, (codes, features)| {
                products.resize(features.len() / dim * fit.norms.len(), 0.0);
                product(features, &self.values, dim, products);
                for (code, row) in
                    codes.chunks_exact_mut(n_levels).zip(products.chunks_exact_mut(fit.norms.len()))
                {
                    fit.encode(gram, row, code);
                }
            },
        );
        Ok(codes)
    }

    /// Decodes codes at `length`: the sum of the codewords of the first levels, added in ascending order.
    ///
    /// Shapes: codes [N, L]; returns the approximations x̂ [N, D].
    ///
    /// # Errors
    /// [`Error::Length`] unless `codes` is whole rows, [`Error::Range`] if a code names no codeword or `length` is more
    /// than these codebooks have.
    pub fn decode(&self, codes: &[u8], length: CodeLength) -> Result<Vec<f32>, Error> {
        let n = self.check_codes(codes)?;
        if length > self.max_length() {
            return Err(Error::Range {
                what: "code length in bits",
                found: length.bits(),
                expected: format!("at most {}", self.max_length().bits()),
            });
        }
        let dim = self.dim();
        let mut features = vec![0.0; n * dim];
        features.par_chunks_exact_mut(dim).zip(codes.par_chunks_exact(self.n_levels())).for_each(
            |(x, code)| {
                x.copy_from_slice(self.codeword(0, code[0].into()));
                for (level, &codeword) in code.iter().enumerate().take(length.levels()).skip(1) {
                    x.iter_mut().zip(self.codeword(level, codeword.into())).for_each(|(x, c)| *x += c);
                }
            },
        );
        Ok(features)
    }
}

/// Inner products of all pairs of codewords, [L·K, L·K].
fn gram(values: &[f32], dim: usize) -> Vec<f32> {
    let m = values.len() / dim;
    let mut gram = vec![0.0; m * m];
    gram.par_chunks_mut(CHUNK * m)
        .zip(values.par_chunks(CHUNK * dim))
        .for_each(|(out, rows)| product(rows, values, dim, out));
    gram
}

/// How well codewords fit, from inner products with a residual.
struct Fit {
    assignment: Assignment,
    n_codewords: usize,
    /// By codeword [L·K]: half the squared norm (Euclidean) or the inverse of the norm (cosine).
    norms: Vec<f32>,
}

impl Fit {
    fn new(codebooks: &Codebooks) -> Self {
        let mut norms = half_squared_norms(&codebooks.values, codebooks.dim());
        if codebooks.assignment() == Assignment::Cosine {
            // A codeword of norm 0 points nowhere and has cosine 0 with everything.
            norms.iter_mut().for_each(|n| *n = if *n > 0.0 { 1.0 / (2.0 * *n).sqrt() } else { 0.0 });
        }
        Self { assignment: codebooks.assignment(), n_codewords: codebooks.n_codewords(), norms }
    }

    /// Encodes one feature from its inner products with all codewords [L·K], which become those of its residuals.
    fn encode(&self, gram: &[f32], products: &mut [f32], code: &mut [u8]) {
        let m = products.len();
        let mut fits = [0.0; 256];
        let fits = &mut fits[..self.n_codewords];
        for (level, code) in code.iter_mut().enumerate() {
            let begin = level * self.n_codewords;
            let end = begin + self.n_codewords;
            let inputs = products[begin..end].iter().zip(&self.norms[begin..end]);
            match self.assignment {
                Assignment::Euclidean => fits.iter_mut().zip(inputs).for_each(|(fit, (p, n))| *fit = p - n),
                Assignment::Cosine => fits.iter_mut().zip(inputs).for_each(|(fit, (p, n))| *fit = p * n),
            }
            let best = argmax(fits);
            *code = best as u8;
            // ⟨r − c, c'⟩ = ⟨r, c'⟩ − ⟨c, c'⟩ for the codewords c' of the levels to come.
            let taken = &gram[(begin + best) * m..][end..m];
            products[end..].iter_mut().zip(taken).for_each(|(product, taken)| *product -= taken);
        }
    }
}
