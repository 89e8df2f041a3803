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
    /// The losses of two views of each image, without labels, after MeCoQ (Wang et al. 2022).
    Mecoq(MecoqConfig),
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

/// The weights of L = mean_l C(x̂^l) + entropy · H + diversity · V. C(x̂) is the cross-entropy of
/// finding the other view of an image among the views of all images by their cosines, and x̂^l the
/// soft approximation by l levels. H is the mean entropy of soft codes, and V the mean cosine of
/// the codewords of a level. A weight of 0 removes its term.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MecoqConfig {
    /// The temperature that divides cosines, at least 0.05.
    pub temperature: f64,
    /// The share of images that are taken to show the same as a given one, ρ: their part leaves the
    /// sum over negatives. 0 for none. In [0, 1).
    pub positives: f64,
    /// Weight of the entropy, λ.
    pub entropy: f64,
    /// Weight of the mean cosine of codewords, γ.
    pub diversity: f64,
    /// Number of soft codes of past steps that are negatives, too; 0 for none.
    pub memory: usize,
    /// Share of epochs before the memory starts. In [0, 1).
    pub memory_after: f64,
}

impl Objective {
    /// Whether training reads labels.
    pub fn needs_labels(&self) -> bool {
        *self == Self::Dpq
    }

    /// Returns an error for weights that mean nothing.
    pub(super) fn check(&self) -> Result<(), Error> {
        let at_least_0 = |x: f64| (0.0..f64::INFINITY).contains(&x);
        match *self {
            Self::Dpq => Ok(()),
            Self::Mopq(MopqConfig { temperature, keys, reconstruction, workers }) => check_all(&[
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
            ]),
            Self::Mecoq(config) => config.check(),
        }
    }
}

impl MecoqConfig {
    fn check(&self) -> Result<(), Error> {
        let Self { temperature, positives, entropy, diversity, memory, memory_after } = *self;
        let (share, at_least_0) = (0.0..1.0, 0.0..f64::INFINITY);
        check_all(&[
            // The exponential of a cosine over less has no place in a float.
            (
                temperature >= 0.05 && temperature.is_finite(),
                "objective.mecoq.temperature",
                "a finite number of at least 0.05",
            ),
            (share.contains(&positives), "objective.mecoq.positives", "a share in [0, 1)"),
            (share.contains(&memory_after), "objective.mecoq.memory_after", "a share in [0, 1)"),
            (
                at_least_0.contains(&entropy) && at_least_0.contains(&diversity),
                "objective.mecoq",
                "finite weights of at least 0",
            ),
            (memory <= 1 << 16, "objective.mecoq.memory", "at most 65536"),
        ])
    }
}
