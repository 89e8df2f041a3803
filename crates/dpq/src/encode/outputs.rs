//! What a model makes of images or features: the same for both.

use anyhow::Result;
use dpq_data::Dataset;
use dpq_model::{Model, Output};
use rayon::prelude::*;

/// What a model makes of its inputs, batch by batch.
pub(super) struct Outputs<'a> {
    pub(super) model: &'a Model,
    /// The temperature of the posterior where that is the feature.
    posterior: Option<f32>,
    pub(super) features: Vec<f32>,
    /// Empty where the posterior is the feature: the codebooks are of the other one.
    pub(super) codes: Vec<u8>,
    pub(super) predicted: Vec<u32>,
}

impl<'a> Outputs<'a> {
    pub(super) fn new(model: &'a Model, posterior: Option<f32>, n_items: usize) -> Self {
        let codebooks = model.codebooks();
        Self {
            model,
            posterior,
            features: Vec::with_capacity(n_items * codebooks.dim()),
            codes: Vec::with_capacity(n_items * codebooks.n_levels()),
            predicted: Vec::with_capacity(n_items),
        }
    }

    pub(super) fn push(&mut self, output: Output) -> Result<()> {
        self.predicted.extend(output.logits.chunks_exact(self.model.n_classes()).map(argmax));
        match self.posterior {
            None => {
                self.codes.extend(self.model.codebooks().encode(&output.features)?);
                self.features.extend(output.features);
            }
            Some(temperature) => {
                self.features.extend(self.model.posterior_features(&output.logits, temperature)?);
            }
        }
        Ok(())
    }
}

fn argmax(logits: &[f32]) -> u32 {
    (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best }) as u32
}

/// The share of rows whose only label is the one predicted; none where images have several labels.
pub(super) fn accuracy(dataset: &Dataset, rows: &[u32], predicted: &[u32]) -> Option<f64> {
    let right = rows.par_iter().zip(predicted).map(|(&row, class)| match dataset.labels(row as usize) {
        [label] => Some(u32::from(label == class)),
        _ => None,
    });
    Some(f64::from(right.sum::<Option<u32>>()?) / rows.len() as f64)
}
