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
    /// Five convolutions and two fully connected layers, with dropout after the first of those; overlapping pooling.
    Alexnet {
        /// Whose.
        variant: Alexnet,
        /// Channels that each convolution puts out.
        channels: [usize; 5],
        /// Units of each fully connected layer.
        hidden: usize,
    },
    /// Simonyan and Zisserman (2014), configuration D: thirteen 3×3 convolutions in five stages and two fully connected layers,
    /// with dropout after the first of those; 224×224 images.
    Vgg16 {
        /// Channels of each stage.
        channels: [usize; 5],
        /// Units of each fully connected layer.
        hidden: usize,
    },
    /// He et al. (2015), 50 layers, with the stride in the 3×3 convolution as in torchvision; the mean over positions.
    Resnet50 {
        /// Channels of the first convolution; the result has 32 times as many.
        width: usize,
    },
}

impl Body {
    /// The names that [`Body::named`] knows.
    pub const NAMES: [&'static str; 4] = ["alexnet", "alexnet-torchvision", "vgg16", "resnet50"];

    /// A body in the size that its weights are published in; none for another name.
    pub fn named(name: &str) -> Option<Self> {
        let (channels, hidden) = ([64, 128, 256, 512, 512], 4096);
        match name {
            "alexnet" => {
                let channels = [96, 256, 384, 384, 256];
                Some(Self::Alexnet { variant: Alexnet::Caffe, channels, hidden })
            }
            "alexnet-torchvision" => {
                let channels = [64, 192, 384, 256, 256];
                Some(Self::Alexnet { variant: Alexnet::Torchvision, channels, hidden })
            }
            "vgg16" => Some(Self::Vgg16 { channels, hidden }),
            "resnet50" => Some(Self::Resnet50 { width: 64 }),
            _ => None,
        }
    }
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
            Body::Alexnet { channels, hidden, .. } | Body::Vgg16 { channels, hidden }
                if !channels.iter().chain([hidden]).all(in_range) =>
            {
                refused("network.body", "expected 1 to 65536 channels and units")
            }
            // The two groups of the second convolution read the first's channels, and so on.
            Body::Alexnet { variant: Alexnet::Caffe, channels, .. }
                if !channels.iter().all(|n| n.is_multiple_of(2)) =>
            {
                refused("network.body.alexnet.channels", "expected even numbers, for two groups")
            }
            Body::Resnet50 { width } if !(1..=MOST / 32).contains(width) => {
                refused("network.body.resnet50.width", "expected 1 to 2048")
            }
            Body::Alexnet { .. } | Body::Vgg16 { .. } | Body::Resnet50 { .. } => Ok(()),
        }
    }
}

/// The most channels or units of a layer: a damaged file must not ask for absurd tensors.
const MOST: usize = 1 << 16;

/// Whose AlexNet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Alexnet {
    /// Krizhevsky et al. (2012) as in Caffe's `bvlc_alexnet`, which the paper starts from: two groups of channels in the
    /// second, fourth and fifth convolution, local response normalisation; 227×227 images.
    Caffe,
    /// Krizhevsky (2014) as in torchvision: one group, no normalisation, a first convolution with a border; 224×224 images.
    Torchvision,
}

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
    /// It stays as it started, and the heads learn from its features; normalisation still follows the images. With
    /// pretrained weights this is E of the paper's Table 2, without them features are random.
    #[serde(alias = "frozen-random")]
    Frozen,
}
