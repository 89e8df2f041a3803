//! Features to codes and back.

use rayon::prelude::*;

use crate::assign::{Level, Memory};
use crate::norm::subtract;
use crate::rounded::Rows;
use crate::{CodeLength, Codebooks, Error};

/// Features encoded at a time by one thread.
const CHUNK: usize = 48;

impl Codebooks {
    /// Encodes features greedily: each level takes the codeword that fits its residual best, the least of equals.
    ///
    /// Source: the paper's b^l = argmin_k ‖r^l − c^l_k‖² (§1 of docs/architecture.md), or the largest cosine.
    /// Shapes: features [N, D]; returns codes [N, L]. The first l bytes of a row are its code at level l.
    ///
    /// Residuals are those of f32, r − c element by element, and the choice is that of f64: where the matrix product that
    /// does the bulk of the work cannot tell two codewords apart, they are compared once more. So codes are the same on
    /// every CPU, alone or in a batch. A residual of zero has cosine 0 with every codeword.
    ///
    /// # Errors
    /// [`Error::Length`] unless `features` is whole rows, [`Error::NotFinite`] if a value is NaN or infinite.
    pub fn encode(&self, features: &[f32]) -> Result<Vec<u8>, Error> {
        let n = self.check_features(features)?;
        let (dim, n_levels) = (self.dim(), self.n_levels());
        let levels: Vec<_> =
            (0..n_levels).map(|level| Level::new(self.assignment(), self.level(level), dim)).collect();
        let mut codes = vec![0; n * n_levels];
        codes.par_chunks_mut(CHUNK * n_levels).zip(features.par_chunks(CHUNK * dim)).for_each_init(
            || (Vec::new(), Rows::default(), Memory::default()),
            |(residuals, rows, memory), (codes, features)| {
                residuals.clear();
                residuals.extend_from_slice(features);
                for (i, level) in levels.iter().enumerate() {
                    rows.round(residuals, level.origin());
                    let best = level.assign(residuals, rows, memory);
                    codes[i..]
                        .iter_mut()
                        .step_by(n_levels)
                        .zip(best)
                        .for_each(|(code, best)| *code = best as u8);
                    for (residual, code) in
                        residuals.chunks_exact_mut(dim).zip(codes[i..].iter().step_by(n_levels))
                    {
                        subtract(residual, self.codeword(i, (*code).into()));
                    }
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
        self.check_length(length)?;
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
