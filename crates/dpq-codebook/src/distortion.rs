//! How good codes are: distortion by length, and how many codewords are in use.

use std::collections::HashSet;

use rayon::prelude::*;

use crate::codebooks::{check_codes, check_sizes};
use crate::norm::squared_norm;
use crate::{CodeLength, Codebooks, Error, Expected};

/// The number of items per partial sum. Partial sums are added in order, so threads do not change
/// the result.
const CHUNK: usize = 1024;

impl Codebooks {
    /// Returns the mean squared error at each of [`lengths`](Self::lengths) as a share of the mean squared norm: mean ‖x −
    /// x̂^l‖² / mean ‖x‖².
    ///
    /// Source: the paper's hard distortion, divided by mean ‖x‖² because a loss may shrink x
    /// (docs/deviations.md, row 7). Shapes: features [N, D], codes [N, L]; returns one number
    /// per length, 0 if all features are.
    ///
    /// # Errors
    /// [`Error::Argument`] or [`Error::NotFinite`] if features or codes do not fit these codebooks.
    pub fn relative_distortion(&self, features: &[f32], codes: &[u8]) -> Result<Vec<f64>, Error> {
        let (dim, n_levels) = (self.dim(), self.n_levels());
        let n = self.check_features(features)?;
        self.check_codes(codes)?;
        Expected::Shape(vec![n, n_levels]).check("codes", codes.len())?;
        let min = self.lengths().next().map_or(1, CodeLength::levels);
        let sums: Vec<Vec<f64>> = features
            .par_chunks(CHUNK * dim)
            .zip(codes.par_chunks(CHUNK * n_levels))
            .map(|(features, codes)| {
                // The squared norm of x, then of what remains after each level.
                let mut sums = vec![0.0; n_levels + 1];
                let mut residual = vec![0.0; dim];
                for (x, code) in features.chunks_exact(dim).zip(codes.chunks_exact(n_levels)) {
                    residual.copy_from_slice(x);
                    sums[0] += squared_norm(&residual);
                    for (level, &codeword) in code.iter().enumerate() {
                        self.subtract(&mut residual, level, codeword);
                        if level + 1 >= min {
                            sums[level + 1] += squared_norm(&residual);
                        }
                    }
                }
                sums
            })
            .collect();
        let total = |level: usize| sums.iter().map(|sums| sums[level]).sum::<f64>();
        let energy = total(0);
        Ok((min..=n_levels).map(|level| if energy > 0.0 { total(level) / energy } else { 0.0 }).collect())
    }
}

/// How codes use one level.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct LevelUsage {
    /// Codewords that at least one code uses.
    pub used: usize,
    /// exp of the entropy of the codewords' shares: K if all are equally frequent, 1 if only one is
    /// used.
    pub perplexity: f64,
    /// Distinct codes at the length that ends with this level.
    pub distinct: usize,
}

/// Returns how codes [N, L] use each of the `n_levels` levels.
///
/// # Errors
/// [`Error::Argument`] unless `codes` is whole rows of codes less than `n_codewords`.
pub fn usage(codes: &[u8], n_levels: usize, n_codewords: usize) -> Result<Vec<LevelUsage>, Error> {
    check_sizes(n_levels, n_codewords)?;
    check_codes(codes, n_levels, n_codewords)?;
    let n = codes.len() / n_levels;
    let of_level = |level: usize| {
        let mut counts = [0usize; 256];
        codes.iter().skip(level).step_by(n_levels).for_each(|&code| counts[usize::from(code)] += 1);
        let shares = counts.iter().filter(|&&count| count > 0).map(|&count| count as f64 / n as f64);
        let entropy: f64 = shares.map(|share| -share * share.ln()).sum();
        LevelUsage {
            used: counts.iter().filter(|&&count| count > 0).count(),
            perplexity: entropy.exp(),
            distinct: codes.chunks_exact(n_levels).map(|code| &code[..=level]).collect::<HashSet<_>>().len(),
        }
    };
    Ok((0..n_levels).map(of_level).collect())
}
