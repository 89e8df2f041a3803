//! The configuration of the objective.

use serde::{Deserialize, Serialize};

use super::check_all;
use crate::Error;

/// The loss that training minimises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Objective {
    /// The losses of labelled items, see [`LossConfig`](super::LossConfig).
    #[default]
    Dpq,
    /// The losses of pairs of a query and a key, after MoPQ (Xiao et al. 2021).
    Mopq(MopqConfig),
}

/// The weights of L = keys · M(k) + mean_l M(k̂^l) + reconstruction · Σ_l ‖k − k̂^l‖². M(k) is the
/// cross-entropy of choosing the key of a query among the keys k of the batch by softmax(⟨q, k⟩ /
/// temperature), and k̂^l the approximation of a key by l levels. A weight of 0 removes its term.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MopqConfig {
    /// The temperature; 1 in the paper.
    pub temperature: f64,
    /// Weight of the loss of the keys before quantization; 1 in the authors' code.
    pub keys: f64,
    /// Weight of the squared error; 10⁻⁸ in the authors' code.
    pub reconstruction: f64,
    /// Workers that share a batch and its negatives. Gradients equal those of one worker but for
    /// rounding.
    pub workers: usize,
}

impl Objective {
    /// Returns an error for weights that mean nothing.
    pub(super) fn check(&self) -> Result<(), Error> {
        let Self::Mopq(MopqConfig { temperature, keys, reconstruction, workers }) = *self else {
            return Ok(());
        };
        let at_least_0 = |x: f64| (0.0..f64::INFINITY).contains(&x);
        check_all(&[
            (
                temperature > 0.0 && temperature.is_finite(),
                "objective.mopq.temperature",
                "a finite number above 0",
            ),
            (
                at_least_0(keys) && at_least_0(reconstruction),
                "objective.mopq",
                "finite weights of at least 0",
            ),
            ((1..=256).contains(&workers), "objective.mopq.workers", "1 to 256"),
        ])
    }
}
