//! The report of an epoch.

use std::collections::BTreeMap;

use serde::Serialize;

/// The report of an epoch of training.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EpochReport {
    /// The epoch, counted from 0.
    pub epoch: usize,
    /// Unweighted losses by name, averaged over the steps of the epoch.
    pub losses: BTreeMap<String, f64>,
    /// Training images per second of wall-clock time, over the steps of the epoch.
    pub images_per_second: f64,
    /// Wall-clock time of the epoch in seconds, with the time to fit codebooks.
    pub seconds: f64,
    /// The learning rate of the network in the last step.
    pub rate: f64,
    /// mean ‖x − x̂ˡ‖² / mean ‖x‖² at each code length, over the features of this epoch. Empty
    /// before codebooks start.
    pub relative_distortion: Vec<f64>,
    /// The use of the codewords of each level. Empty before codebooks start.
    pub usage: Vec<CodewordUsage>,
    /// Number of dead codewords, over all levels, that moved after this epoch.
    pub revived: usize,
}

/// The use of the codewords of a level.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CodewordUsage {
    /// Number of codewords that at least one item uses.
    pub used: usize,
    /// exp of the entropy of the shares of codewords: K if all are used equally.
    pub perplexity: f64,
    /// Number of codewords that no item uses.
    pub dead: usize,
}

/// The losses of an epoch: sum, count and last value of each.
#[derive(Default)]
pub(crate) struct Tally {
    sums: BTreeMap<&'static str, (f64, f64, f64)>,
}

impl Tally {
    pub(crate) fn add(&mut self, name: &'static str, value: f64) {
        let (sum, count, last) = self.sums.entry(name).or_default();
        (*sum, *count, *last) = (*sum + value, *count + 1.0, value);
    }

    pub(crate) fn means(&self) -> BTreeMap<String, f64> {
        self.sums.iter().map(|(&name, (sum, count, _))| (name.to_owned(), sum / count)).collect()
    }

    pub(crate) fn last(&self) -> BTreeMap<&'static str, f64> {
        self.sums.iter().map(|(&name, &(_, _, last))| (name, last)).collect()
    }
}
