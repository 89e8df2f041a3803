//! Refinement: fits all levels of codebooks together.
//!
//! Residual k-means fits a level to the residuals of the levels before it and never revisits it.
//! Refinement alternates between two steps. It finds codes by beam search. Then, for these codes,
//! it moves each codeword to where the weighted squared error of all lengths is smallest while the
//! other levels stay. The second step needs only sums of features by codeword and counts of pairs
//! of codewords.

use rayon::prelude::*;

use crate::beam::weights_from;
use crate::kmeans::members_of;
use crate::{Assignment, Beam, Codebooks, Error, FitOptions};

/// Rounds over the levels for one set of codes. More rounds gain little before the codes change.
const SWEEPS: usize = 4;

impl Codebooks {
    /// Refines codebooks for features [N, D], in at most `n_rounds` rounds.
    ///
    /// `progress` is called with the error before refinement as round 0, then after each round. The
    /// error is the relative distortion of each length times its weight, summed. Refinement ends
    /// with the first round that does not lower the error and returns the codebooks before that
    /// round, so the error never rises. A codeword without members stays as it is.
    ///
    /// # Errors
    /// As [`encode_beam`](Self::encode_beam). [`Error::Cosine`] for assignment by cosine and
    /// [`Error::Product`] for product codebooks, at any width. [`Error::Interrupted`] if the caller
    /// interrupts.
    pub fn refine(
        &self,
        features: &[f32],
        n_rounds: usize,
        mut options: FitOptions<'_>,
    ) -> Result<Self, Error> {
        self.check_progressive()?;
        if self.assignment() == Assignment::Cosine {
            return Err(Error::Cosine);
        }
        let equal = vec![1.0; self.n_levels()];
        let beam = options.beam.unwrap_or(Beam { width: 1, weights: &equal });
        let interrupt = options.interrupt;
        let encode = |codebooks: &Self| {
            let codes = codebooks.encode_beam_until(features, beam, interrupt)?;
            let distortion = codebooks.relative_distortion(features, &codes)?;
            let error: f64 =
                distortion.iter().zip(beam.weights).map(|(d, &weight)| d * f64::from(weight)).sum();
            Ok::<_, Error>((codes, error))
        };
        let mut codebooks = self.clone();
        let (mut codes, mut error) = encode(self)?;
        options.report(0, error);
        let weights_from = weights_from(&beam.normalized_weights());
        for round in 1..=n_rounds {
            let moved = codebooks.fitted(features, &codes, &weights_from)?;
            let (new_codes, new_error) = encode(&moved)?;
            options.report(round, new_error);
            if new_error >= error {
                break;
            }
            (codebooks, codes, error) = (moved, new_codes, new_error);
        }
        Ok(codebooks)
    }

    /// Returns codebooks that fit `codes` better. The weight of a level is the sum over all lengths
    /// that include it.
    fn fitted(&self, features: &[f32], codes: &[u8], weights: &[f32]) -> Result<Self, Error> {
        let (dim, n_levels, n_codewords) = (self.dim(), self.n_levels(), self.n_codewords());
        // Per codeword of each level: the sum of its members, and how many of them have each
        // codeword of each level.
        let sums: Vec<(Vec<f64>, Vec<u32>)> = (0..n_levels)
            .flat_map(|level| {
                let of_level: Vec<usize> =
                    codes.iter().skip(level).step_by(n_levels).map(|&code| code.into()).collect();
                members_of(&of_level, n_codewords)
            })
            .collect::<Vec<_>>()
            .into_par_iter()
            .map(|members| {
                let (mut sum, mut counts) = (vec![0.0; dim], vec![0; n_levels * n_codewords]);
                for member in members {
                    let x = &features[member * dim..][..dim];
                    sum.iter_mut().zip(x).for_each(|(sum, &x)| *sum += f64::from(x));
                    for (level, &code) in codes[member * n_levels..][..n_levels].iter().enumerate() {
                        counts[level * n_codewords + usize::from(code)] += 1;
                    }
                }
                (sum, counts)
            })
            .collect();
        let mut values = self.values().to_vec();
        let size = n_codewords * dim;
        for level in (0..SWEEPS).flat_map(|_| 0..n_levels) {
            let mut moved = values[level * size..][..size].to_vec();
            moved.par_chunks_exact_mut(dim).enumerate().for_each(|(codeword, moved)| {
                let row = level * n_codewords + codeword;
                let (sum, counts) = &sums[row];
                if counts[row] == 0 {
                    return;
                }
                // The members minus their other codewords, weighted by the lengths that include
                // both levels.
                let mut target: Vec<f64> = sum.iter().map(|sum| f64::from(weights[level]) * sum).collect();
                for (other, &n) in counts.iter().enumerate().filter(|&(other, &n)| n > 0 && other != row) {
                    let weight = f64::from(n) * f64::from(weights[level.max(other / n_codewords)]);
                    let values = &values[other * dim..][..dim];
                    target.iter_mut().zip(values).for_each(|(target, &c)| *target -= weight * f64::from(c));
                }
                let share = f64::from(weights[level]) * f64::from(counts[row]);
                moved.iter_mut().zip(target).for_each(|(c, target)| *c = (target / share) as f32);
            });
            values[level * size..][..size].copy_from_slice(&moved);
        }
        Self::new(values, n_levels, n_codewords, dim, self.assignment())
    }
}
