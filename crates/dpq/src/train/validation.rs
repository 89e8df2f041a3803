//! Retrieval among training images that were held out, while training goes on.

use std::collections::BTreeMap;

use anyhow::Result;
use dpq_codebook::inner_products;
use dpq_eval::{Labels, MapRule};
use dpq_formats::Matrix;
use dpq_index::Index;
use dpq_model::Snapshot;
use indicatif::ProgressBar;
use serde::Serialize;

use super::source::Source;
use crate::eval::{Gallery, Protocol};
use crate::inputs::Items;

/// Held-out images. Each searches all others, so that no image that the network learns from is
/// ranked.
pub(super) struct HeldOut {
    items: Items,
    protocol: Protocol,
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
    pub(super) fn read(source: &Source, rows: &[u32]) -> Result<Self> {
        let items = source.held_out(rows)?;
        let labels = Labels::from_multi_hot(&source.multi_hot(rows), source.n_classes())?;
        let ids: Vec<u64> = (0..labels.len() as u64).collect();
        let protocol = Protocol::new([labels.clone(), labels].into(), ids.clone(), Some(ids), vec![rule()])?;
        Ok(Self { items, protocol })
    }

    /// Ranks by the current network, as `dpq eval` does: queries by their features, the gallery by
    /// its codes at each length.
    pub(super) fn rank(&self, network: &Snapshot<'_>) -> Result<Validation> {
        let output = match &self.items {
            Items::Images(images) => network.forward(images)?,
            Items::Features(features) => network.forward_features(features)?,
        };
        let (rows, values, bar) = (self.protocol.ids.len(), output.features, ProgressBar::hidden());
        let queries = Matrix { rows, columns: values.len() / rows, values };
        let mut map_by_bits = BTreeMap::new();
        if let (Some(codebooks), Some(codes)) = (network.codebooks(), network.encode(&queries.values)?) {
            let index = Index::builder(codebooks, &codes).build()?;
            for length in codebooks.lengths() {
                let evaluated = self.protocol.evaluate_codes(&index, length, &queries, &bar)?;
                map_by_bits.insert(length.bits(), evaluated.report.map[0].1);
            }
        }
        let starts: Vec<u32> = (0..).take(rows + 1).collect();
        let gallery = Gallery { starts: &starts, ids: &self.protocol.ids, batch: rows };
        let score = |(): &(), _, query: &[f32], scores: &mut [f32]| {
            Ok(inner_products(query, &queries.values, scores)?)
        };
        let evaluated = self.protocol.evaluate(&gallery, &queries, |_| Ok(()), score, &bar)?;
        Ok(Validation {
            map_rule: rule().to_string(),
            images: rows,
            map_by_bits,
            map_features: evaluated.report.map[0].1,
        })
    }
}
