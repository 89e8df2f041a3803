//! Retrieval among training images that were held out, while training goes on.

use std::collections::BTreeMap;

use anyhow::Result;
use dpq_codebook::CodeLength;
use dpq_eval::{Evaluator, Labels, MapRule, Ranker};
use dpq_model::Snapshot;
use rayon::prelude::*;
use serde::Serialize;

use super::source::{Items, Source};
use crate::eval;

/// Held-out images. Each searches all others, so that no image that the network learns from is ranked.
pub(super) struct HeldOut {
    items: Items,
    labels: Labels,
}

/// Mean average precision by code length, and of the features before quantization.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Validation {
    pub(super) map_rule: String,
    pub(super) images: usize,
    /// By bits; empty while there are no codebooks.
    pub(super) map_by_bits: BTreeMap<usize, f64>,
    pub(super) map_features: f64,
}

fn rule() -> MapRule {
    MapRule { exclude_self: true, ..MapRule::dpq() }
}

impl HeldOut {
    /// Reads the items of `rows`.
    pub(super) fn read(source: &Source, rows: &[u32]) -> Result<Self> {
        let labels = Labels::from_multi_hot(&source.multi_hot(rows), source.n_classes())?;
        Ok(Self { items: source.held_out(rows)?, labels })
    }

    /// Ranks by the network as it is now: queries by their features, the gallery by its codes at each length.
    pub(super) fn rank(&self, network: &Snapshot<'_>) -> Result<Validation> {
        let features = self.items.forward(network)?;
        let mut map_by_bits = BTreeMap::new();
        if let Some(codebooks) = network.codebooks() {
            let codes = codebooks.encode(&features)?;
            for levels in 1..=codebooks.n_levels() {
                let length = CodeLength::from_levels(levels)?;
                let decoded = codebooks.decode(&codes, length)?;
                map_by_bits.insert(length.bits(), self.map(&features, &decoded)?);
            }
        }
        Ok(Validation {
            map_rule: rule().to_string(),
            images: self.labels.len(),
            map_by_bits,
            map_features: self.map(&features, &features)?,
        })
    }

    /// Equal codes decode to equal vectors, so ties of codes are ties of scores.
    fn map(&self, queries: &[f32], gallery: &[f32]) -> Result<f64> {
        let n = self.labels.len();
        let (starts, ids): (Vec<u32>, Vec<u64>) = ((0..=n as u32).collect(), (0..n as u64).collect());
        let mut evaluator = Evaluator::new(&[rule()], &[], 0)?;
        let results = ids
            .par_iter()
            .zip(queries.par_chunks_exact(queries.len() / n))
            .map(|(&id, query)| {
                let relevant = self.labels.relevant(id as usize, &self.labels)?;
                let ranker = Ranker::new(&starts, &ids, &relevant);
                Ok(evaluator.query(&ranker.rank(&eval::scores(gallery, query), Some(id))?))
            })
            .collect::<Result<Vec<_>>>()?;
        results.iter().for_each(|result| evaluator.add(result));
        Ok(evaluator.finish()?.map[0].1)
    }
}
