//! Codebooks that fit all levels of their codes at once.
//!
//! Residual k-means fits a level to what the levels before it leave, and never looks back. Refinement goes over them in
//! turns: codes by beam search, then, for these codes, each codeword where the weighted squared error of all lengths is
//! least while the other levels stay. Only sums of features by codeword and counts of pairs of codewords enter.

use rayon::prelude::*;

use crate::beam::weights_from;
use crate::kmeans::members;
use crate::{Beam, Codebooks, Error};

/// Rounds over the levels for one set of codes. More of them gain little before codes change.
const SWEEPS: usize = 4;

impl Codebooks {
    /// Refines codebooks for features [N, D] that are encoded with `beam`, in at most `n_rounds` rounds.
    ///
    /// `on_round` hears the error of the start, as round 0, and of each round: the relative distortion of each length times
    /// its weight, summed. It ends with the first round that does not lower it, and returns the codebooks before that round,
    /// so the error never rises. A codeword without members stays as it is.
    ///
    /// # Errors
    /// As [`encode_beam`](Self::encode_beam); [`Error::Cosine`] for assignment by cosine whatever the width.
    pub fn refine(
        &self,
        features: &[f32],
        beam: Beam<'_>,
        n_rounds: usize,
        on_round: &mut dyn FnMut(usize, f64),
    ) -> Result<Self, Error> {
        if self.assignment() == crate::Assignment::Cosine {
            return Err(Error::Cosine);
        }
        let error = |codebooks: &Self, codes: &[u8]| {
            let distortion = codebooks.relative_distortion(features, codes)?;
            Ok::<_, Error>(
                distortion.iter().zip(beam.weights).map(|(d, &weight)| d * f64::from(weight)).sum(),
            )
        };
        let mut codebooks = self.clone();
        let mut codes = self.encode_beam(features, beam)?;
        let mut least: f64 = error(self, &codes)?;
        on_round(0, least);
        let weights_from = weights_from(&beam.normalized_weights());
        for round in 1..=n_rounds {
            let moved = codebooks.fitted(features, &codes, &weights_from)?;
            codes = moved.encode_beam(features, beam)?;
            let now = error(&moved, &codes)?;
            on_round(round, now);
            if now >= least {
                break;
            }
            (codebooks, least) = (moved, now);
        }
        Ok(codebooks)
    }

    /// The codebooks that fit `codes` better; `weights` by level, of all lengths that it is part of.
    fn fitted(&self, features: &[f32], codes: &[u8], weights: &[f32]) -> Result<Self, Error> {
        let (dim, n_levels, n_codewords) = (self.dim(), self.n_levels(), self.n_codewords());
        // By level and codeword, the sum of its members and how often it meets each codeword of each level.
        let sums: Vec<(Vec<f64>, Vec<u32>)> = (0..n_levels)
            .flat_map(|level| {
                let of_level: Vec<usize> =
                    codes.iter().skip(level).step_by(n_levels).map(|&code| code.into()).collect();
                members(&of_level, n_codewords)
            })
            .collect::<Vec<_>>()
            .into_par_iter()
            .map(|members| {
                let (mut sum, mut meets) = (vec![0.0; dim], vec![0; n_levels * n_codewords]);
                for member in members {
                    let x = &features[member * dim..][..dim];
                    sum.iter_mut().zip(x).for_each(|(sum, &x)| *sum += f64::from(x));
                    for (level, &code) in codes[member * n_levels..][..n_levels].iter().enumerate() {
                        meets[level * n_codewords + usize::from(code)] += 1;
                    }
                }
                (sum, meets)
            })
            .collect();
        let mut values = self.values().to_vec();
        let size = n_codewords * dim;
        for level in (0..SWEEPS).flat_map(|_| 0..n_levels) {
            let mut moved = values[level * size..][..size].to_vec();
            moved.par_chunks_exact_mut(dim).enumerate().for_each(|(codeword, moved)| {
                let row = level * n_codewords + codeword;
                let (sum, meets) = &sums[row];
                if meets[row] == 0 {
                    return;
                }
                // What the other levels leave of the members, in the lengths that both are part of.
                let mut left: Vec<f64> = sum.iter().map(|sum| f64::from(weights[level]) * sum).collect();
                for (other, &n) in meets.iter().enumerate().filter(|&(other, &n)| n > 0 && other != row) {
                    let weight = f64::from(n) * f64::from(weights[level.max(other / n_codewords)]);
                    let values = &values[other * dim..][..dim];
                    left.iter_mut().zip(values).for_each(|(left, &c)| *left -= weight * f64::from(c));
                }
                let share = f64::from(weights[level]) * f64::from(meets[row]);
                moved.iter_mut().zip(left).for_each(|(c, left)| *c = (left / share) as f32);
            });
            values[level * size..][..size].copy_from_slice(&moved);
        }
        Self::new(values, n_levels, n_codewords, dim, self.assignment())
    }
}
