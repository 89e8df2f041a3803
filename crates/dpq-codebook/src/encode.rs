//! Features to codes and back.

use std::sync::atomic::AtomicBool;

use rayon::prelude::*;

use crate::assign::{Level, Scratch};
use crate::error::{MAX_VALUES, check_size};
use crate::norm::{gather, mean, subtract};
use crate::options::{check_interrupt, is_set};
use crate::rounded::{Precision, Rows};
use crate::{CodeLength, Codebooks, Error, Form};

/// The number of features that a thread encodes at a time.
const CHUNK: usize = 48;

impl Codebooks {
    /// Encodes features greedily: each level takes the codeword that fits its residual best,
    /// and the first of equal codewords. In product form the residual is a part of the feature.
    ///
    /// Source: the paper's b^l = argmin_k ‖r^l − c^l_k‖² (§1 of docs/architecture.md), or the
    /// largest cosine.
    /// Shapes: features [N, D]; returns codes [N, L]. The first l bytes of a row are its code of
    /// 8·l bits, unless the form is product.
    ///
    /// Residuals are those of f32, r − c element by element, and the choice is that of f64: where
    /// the matrix product that does most of the work cannot separate two codewords, they are
    /// compared again. So codes are the same on every CPU, alone or in a batch. A residual of zero
    /// has cosine 0 with every codeword.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `features` is whole rows, [`Error::NotFinite`] if a value is NaN
    /// or infinite, [`Error::TooLarge`] if memory cannot hold the codes.
    pub fn encode(&self, features: &[f32]) -> Result<Vec<u8>, Error> {
        self.encode_until(features, None)
    }

    pub(crate) fn encode_until(
        &self,
        features: &[f32],
        interrupt: Option<&AtomicBool>,
    ) -> Result<Vec<u8>, Error> {
        let (dim, n_levels) = (self.dim(), self.n_levels());
        let n_codes = check_size("codes", self.check_features(features)?, n_levels, MAX_VALUES)?;
        let levels: Vec<_> = (0..n_levels)
            .map(|level| {
                let origin = mean(self.level(level), self.width());
                Level::new(self.assignment(), self.level(level), origin, Precision::Fine)
            })
            .collect();
        let mut codes = vec![0; n_codes];
        codes.par_chunks_mut(CHUNK * n_levels).zip(features.par_chunks(CHUNK * dim)).for_each_init(
            || (Vec::new(), Rows::default(), Scratch::default()),
            |(residuals, rows, scratch), (codes, features)| {
                if is_set(interrupt) {
                    return;
                }
                for (i, level) in levels.iter().enumerate() {
                    if i == 0 || self.form() == Form::Product {
                        gather(features, dim, self.dims(i), residuals);
                    }
                    rows.round(residuals, level.origin());
                    let best = level.assign(residuals, rows, scratch);
                    let of_level = codes[i..].iter_mut().step_by(n_levels);
                    of_level.zip(best).for_each(|(code, best)| *code = best as u8);
                    let of_level = codes[i..].iter().step_by(n_levels);
                    let rows = residuals.chunks_exact_mut(self.width()).zip(of_level);
                    rows.for_each(|(residual, &code)| subtract(residual, self.codeword(i, code.into())));
                }
            },
        );
        check_interrupt(interrupt)?;
        Ok(codes)
    }

    /// Decodes codes at `length`: adds the codewords of its levels in ascending order.
    ///
    /// Shapes: codes [N, L]; returns the approximations x̂ [N, D].
    ///
    /// # Errors
    /// [`Error::Argument`] unless `codes` is whole rows of codes less than K, and for a `length`
    /// above that of the codes. [`Error::Length`] as in [`check_length`](Self::check_length).
    /// [`Error::TooLarge`] if memory cannot hold the approximations.
    pub fn decode(&self, codes: &[u8], length: CodeLength) -> Result<Vec<f32>, Error> {
        let n = self.check_codes(codes)?;
        self.check_length(length)?;
        let dim = self.dim();
        let mut features = vec![0.0; check_size("features", n, dim, MAX_VALUES)?];
        features.par_chunks_exact_mut(dim).zip(codes.par_chunks_exact(self.n_levels())).for_each(
            |(x, code)| {
                x[self.dims(0)].copy_from_slice(self.codeword(0, code[0].into()));
                for (level, &codeword) in code.iter().enumerate().take(length.levels()).skip(1) {
                    let terms = x[self.dims(level)].iter_mut().zip(self.codeword(level, codeword.into()));
                    terms.for_each(|(x, c)| *x += c);
                }
            },
        );
        Ok(features)
    }
}
