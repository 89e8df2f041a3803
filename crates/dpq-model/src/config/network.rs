//! The network's part of the configuration.

use serde::{Deserialize, Serialize};

use crate::Error;

/// A body that makes f of an image, and two heads on it with dropout in between.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// Whether the body learns.
    pub backbone: Backbone,
    /// The share of the body's outputs that each training image does without. In [0, 1).
    pub dropout: f64,
    /// Dimensions of the feature, D.
    pub dim: usize,
    /// All below the heads.
    pub body: Body,
}

/// All below the heads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Body {
    /// Nothing: features that something else made are the input, and only heads and codebooks are trained.
    Features,
    /// A small convolutional network: stages of 3×3 convolution, batch normalisation and ReLU, some with 2×2 pooling;
    /// then one hidden layer with ReLU.
    Small {
        /// Channels that each stage puts out.
        channels: Vec<usize>,
        /// How many stages, from the first, halve the image by pooling.
        pools: usize,
        /// Where a stage pools.
        order: StageOrder,
        /// Units of the hidden layer.
        hidden: usize,
    },
}

impl NetworkConfig {
    /// Refuses what cannot be built.
    pub(super) fn check(&self) -> Result<(), Error> {
        let in_range = |n: &usize| (1..=MOST).contains(n);
        let refused = |what, reason: &str| Err(Error::invalid(what, reason));
        match &self.body {
            _ if !in_range(&self.dim) => refused("network.dim", "expected 1 to 65536"),
            _ if !(0.0..1.0).contains(&self.dropout) => {
                refused("network.dropout", "expected a share in [0, 1)")
            }
            Body::Features => Ok(()),
            Body::Small { channels, .. } if channels.is_empty() || !channels.iter().all(in_range) => {
                refused("network.body.small.channels", "expected at least one stage, of 1 to 65536 channels")
            }
            Body::Small { channels, pools, .. } if *pools > channels.len() => {
                refused("network.body.small.pools", "expected at most one a stage")
            }
            Body::Small { hidden, .. } if !in_range(hidden) => {
                refused("network.body.small.hidden", "expected 1 to 65536")
            }
            Body::Small { .. } => Ok(()),
        }
    }
}

/// The most channels or units of a layer: a damaged file must not ask for absurd tensors.
const MOST: usize = 1 << 16;

/// The order of a stage's operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StageOrder {
    /// Convolution, pooling, normalisation, ReLU: normalisation has a quarter of the work.
    ConvPoolNormRelu,
    /// Convolution, normalisation, ReLU, pooling: the usual one.
    ConvNormReluPool,
}

/// Whether all below the heads learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backbone {
    /// It learns with the heads.
    Trained,
    /// It stays as it was drawn, and the heads learn from random features; normalisation still follows the images. In
    /// place of E of the paper's Table 2, whose frozen backbone is pretrained: there is no pretrained one here.
    FrozenRandom,
}
