//! The configuration of the network.

use serde::{Deserialize, Serialize};

use crate::Error;

/// A body that maps an image to f, and two heads on f. Dropout is applied to f.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// Whether the body is trained.
    pub backbone: Backbone,
    /// Share of the outputs of the body that dropout removes in training. In [0, 1).
    pub dropout: f64,
    /// Dimension of the feature, D.
    pub dim: usize,
    /// The layers below the heads.
    pub body: Body,
}

/// The layers below the heads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Body {
    /// No layers: the inputs are stored features, and only heads and codebooks are trained.
    Features,
    /// A small convolutional network: stages of 3×3 convolution, batch normalisation and ReLU, some
    /// with 2×2 pooling, then one hidden layer with ReLU.
    Small {
        /// Output channels of each stage.
        channels: Vec<usize>,
        /// Number of stages, counted from the first, that halve the image by pooling.
        pools: usize,
        /// Order of the operations of a stage.
        order: StageOrder,
        /// Units of the hidden layer.
        hidden: usize,
    },
    /// AlexNet: five convolutions with overlapping pooling, and two fully connected layers with
    /// dropout after the first.
    Alexnet {
        /// Which AlexNet.
        variant: Alexnet,
        /// Output channels of each convolution.
        channels: [usize; 5],
        /// Units of each fully connected layer.
        hidden: usize,
    },
    /// VGG-16 (Simonyan and Zisserman 2014, configuration D): thirteen 3×3 convolutions in five
    /// stages, and two fully connected layers with dropout after the first. Images have 224×224
    /// pixels.
    Vgg16 {
        /// Channels of each stage.
        channels: [usize; 5],
        /// Units of each fully connected layer.
        hidden: usize,
    },
    /// ResNet-50 (He et al. 2015) with the stride in the 3×3 convolution, as in torchvision. The
    /// result is the mean over positions.
    Resnet50 {
        /// Output channels of the first convolution. The result has 32 times as many.
        width: usize,
    },
}

impl Body {
    /// The names that [`Body::named`] accepts.
    pub const NAMES: [&'static str; 4] = ["alexnet", "alexnet-torchvision", "vgg16", "resnet50"];

    /// Returns the body of that name in its published size, or `None` for an unknown name.
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
    /// Returns an error for a network that cannot be built.
    pub(super) fn check(&self) -> Result<(), Error> {
        let in_range = |n: &usize| (1..=MAX_UNITS).contains(n);
        let refused = |key, expected| Err(Error::Config { key, expected });
        match &self.body {
            _ if !in_range(&self.dim) => refused("network.dim", "1 to 65536"),
            _ if !(0.0..1.0).contains(&self.dropout) => refused("network.dropout", "a share in [0, 1)"),
            Body::Features => Ok(()),
            Body::Small { channels, .. } if channels.is_empty() || !channels.iter().all(in_range) => {
                refused("network.body.small.channels", "at least one stage, of 1 to 65536 channels")
            }
            Body::Small { channels, pools, .. } if *pools > channels.len() => {
                refused("network.body.small.pools", "at most one a stage")
            }
            Body::Small { hidden, .. } if !in_range(hidden) => {
                refused("network.body.small.hidden", "1 to 65536")
            }
            Body::Alexnet { channels, hidden, .. } | Body::Vgg16 { channels, hidden }
                if !channels.iter().chain([hidden]).all(in_range) =>
            {
                refused("network.body", "1 to 65536 channels and units")
            }
            // Each of the two groups reads half of the channels of the layer before it.
            Body::Alexnet { variant: Alexnet::Caffe, channels, .. }
                if !channels.iter().all(|n| n.is_multiple_of(2)) =>
            {
                refused("network.body.alexnet.channels", "even numbers, for two groups")
            }
            Body::Resnet50 { width } if !(1..=MAX_UNITS / 32).contains(width) => {
                refused("network.body.resnet50.width", "1 to 2048")
            }
            Body::Small { .. } | Body::Alexnet { .. } | Body::Vgg16 { .. } | Body::Resnet50 { .. } => Ok(()),
        }
    }
}

/// Maximum number of channels or units of a layer, so that a damaged file cannot ask for huge
/// tensors.
const MAX_UNITS: usize = 1 << 16;

/// A variant of AlexNet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Alexnet {
    /// Krizhevsky et al. (2012) as in Caffe's `bvlc_alexnet`, the network of the paper: two groups
    /// of channels in the second, fourth and fifth convolution, and local response normalisation.
    /// Images have 227×227 pixels.
    Caffe,
    /// Krizhevsky (2014) as in torchvision: one group, no normalisation, and padding in the first
    /// convolution. Images have 224×224 pixels.
    Torchvision,
}

/// The order of the operations of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StageOrder {
    /// Convolution, pooling, normalisation, ReLU. Normalisation has a quarter of the work.
    ConvPoolNormRelu,
    /// Convolution, normalisation, ReLU, pooling: the usual order.
    ConvNormReluPool,
}

/// Whether the body is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backbone {
    /// The body is trained with the heads.
    Trained,
    /// The body keeps its initial weights, but normalisation still follows the images. With
    /// pretrained weights this is row E of the paper's Table 2. Without them the features are
    /// random.
    Frozen,
}
