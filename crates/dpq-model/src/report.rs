//! What an epoch has to say.

use std::collections::BTreeMap;

use dpq_codebook::{Codebooks, usage};
use serde::Serialize;

use crate::Error;

/// One epoch of training, as it is logged.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EpochReport {
    /// The epoch, from 0.
    pub epoch: usize,
    /// Means over the epoch's steps, by name, unweighted.
    pub losses: BTreeMap<String, f64>,
    /// Training images a second of wall clock, over the epoch's steps.
    pub images_per_second: f64,
    /// Wall-clock seconds of the epoch, with the fitting of codebooks where that belongs to it.
    pub seconds: f64,
    /// The network's rate in the last step.
    pub rate: f64,
    /// mean ‖x − x̂ˡ‖² / mean ‖x‖² at each code length, over this epoch's features; empty while there are no codebooks.
    pub relative_distortion: Vec<f64>,
    /// The use of each level's codewords; empty while there are no codebooks.
    pub usage: Vec<CodewordUsage>,
    /// Dead codewords that moved after this epoch, of all levels.
    pub revived: usize,
}

/// How a level's codewords are used.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CodewordUsage {
    /// Codewords that at least one item has.
    pub used: usize,
    /// exp of the entropy of the codewords' shares: K if all are used alike.
    pub perplexity: f64,
    /// Codewords that no item has.
    pub dead: usize,
}

impl EpochReport {
    /// Adds what codebooks make of features `[n, D]`, whose codes are `codes`.
    pub(crate) fn add_codebooks(
        &mut self,
        codebooks: &Codebooks,
        features: &[f32],
        codes: &[u8],
    ) -> Result<(), Error> {
        self.relative_distortion = codebooks.relative_distortion(features, codes)?;
        let (n_levels, n_codewords) = (codebooks.n_levels(), codebooks.n_codewords());
        self.usage = usage(codes, n_levels, n_codewords)?
            .into_iter()
            .map(|level| CodewordUsage {
                used: level.used,
                perplexity: level.perplexity,
                dead: n_codewords - level.used,
            })
            .collect();
        Ok(())
    }
}

/// Sums of losses over an epoch.
#[derive(Default)]
pub(crate) struct Tally {
    sums: BTreeMap<&'static str, (f64, f64)>,
}

impl Tally {
    pub(crate) fn add(&mut self, name: &'static str, value: f64) {
        let (sum, count) = self.sums.entry(name).or_default();
        *sum += value;
        *count += 1.0;
    }

    pub(crate) fn means(&self) -> BTreeMap<String, f64> {
        self.sums.iter().map(|(&name, (sum, count))| (name.to_owned(), sum / count)).collect()
    }
}
