//! The configuration of the network.

use std::fmt;

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
    /// The side of images in pixels. The caller resizes them. `None` leaves images of a data set as
    /// they are; pretrained weights set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<usize>,
    /// The number of first stages of the body that are not trained: they keep their weights and
    /// normalise by their stored moments. A stage is a convolution of the small network or of
    /// AlexNet, the convolutions of one size in VGG-16, a linear layer; in a residual network its
    /// blocks of one size, the first stage with the layers below it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub freeze: usize,
    /// The moments that batch normalisation uses in training.
    #[serde(default, skip_serializing_if = "is_default")]
    pub moments: Moments,
    /// How the heads make the feature, x.
    #[serde(default, skip_serializing_if = "is_default")]
    pub feature: Feature,
    /// Smaller images in the first epochs, which take less time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_input: Option<FirstInput>,
    /// The parts of the body that the heads read. `None` for its last layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pyramid: Option<Pyramid>,
    /// The layers below the heads.
    pub body: Body,
}

/// Several stages of the body, each pooled over all positions and joined, in place of its last
/// layers (pyramid hybrid pooling, Zeng et al. 2021). Linear layers of the body fall away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pyramid {
    /// The number of last stages of convolutions that are read.
    pub stages: usize,
    /// How positions are pooled.
    pub pooling: Pooling,
}

/// How the positions of a stage become one number per channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// Their mean.
    Average,
    /// Their maximum.
    Maximum,
    /// Both, side by side.
    Both,
}

/// How the heads make a feature x of f.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Feature {
    /// x = tanh(W_s f + w_s), as in the paper.
    #[default]
    Tanh,
    /// x = Vᵀp + tanh · tanh(W_s f + w_s). p = softmax((W_c f + w_c) / temperature) is the
    /// posterior of the classes, and the rows of V are the label embeddings at length 1 (Norouzi et
    /// al. 2014, a convex combination of embeddings). Items have one label each.
    Posterior {
        /// Weight of the feature of the paper, which tells unseen classes apart.
        tanh: f64,
        /// Divides the logits. Above 0; above 1 it softens the posterior of a network that is too
        /// sure of its training images. The classification loss takes the logits as they are.
        #[serde(default = "super::full")]
        temperature: f64,
    },
    /// x = tanh(W_s f + w_s), and the classifier reads x instead of f, so that it can judge
    /// approximations of x too (PHPQ).
    Classified,
    /// For pairs: x = W_s f for keys and x = W_q f for queries. Both maps start as the identity,
    /// and there is no classifier.
    Linear,
    /// x = W_s f + w_s at length 1, for training without labels: there is no classifier. With
    /// product codebooks each part of x has length 1.
    Unit,
}

impl Feature {
    /// Whether the heads have a classifier.
    pub(crate) fn has_classifier(self) -> bool {
        !matches!(self, Self::Linear | Self::Unit)
    }
}

/// The images of the first epochs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirstInput {
    /// The side of images in pixels, less than `input`. Crops shrink in proportion.
    pub side: usize,
    /// Share of epochs. In (0, 1).
    pub share: f64,
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
    /// A residual network (He et al. 2015) as in torchvision: a 7×7 convolution and pooling, then
    /// four stages of blocks, of which the last three halve the image. The result is the mean over
    /// positions, so images may have any size.
    Resnet {
        /// The kind of block.
        block: Block,
        /// Blocks of each stage: 2, 2, 2 and 2 in ResNet-18, 3, 4, 6 and 3 in ResNet-34 and 50.
        blocks: [usize; 4],
        /// Output channels of the first convolution; 64 as published.
        width: usize,
    },
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Features => write!(f, "no body"),
            Self::Small { channels, .. } => write!(f, "a small network of {} stages", channels.len()),
            Self::Alexnet { variant: Alexnet::Caffe, .. } => write!(f, "Caffe's AlexNet"),
            Self::Alexnet { variant: Alexnet::Torchvision, .. } => write!(f, "torchvision's AlexNet"),
            Self::Vgg16 { .. } => write!(f, "VGG-16"),
            Self::Resnet { block, blocks: [a, b, c, d], .. } => {
                let kind = if *block == Block::Basic { "basic" } else { "bottleneck" };
                write!(f, "a residual network of {a}, {b}, {c} and {d} {kind} blocks")
            }
        }
    }
}

impl NetworkConfig {
    /// Returns an error for a network that cannot be built.
    pub(super) fn check(&self) -> Result<(), Error> {
        let in_range = |n: &usize| (1..=MAX_UNITS).contains(n);
        let refused = |key, expected| Err(Error::Config { key, expected });
        let grows = |first: FirstInput| {
            (1..self.input.unwrap_or(0)).contains(&first.side) && first.share > 0.0 && first.share < 1.0
        };
        let (tanh, temperature) = match self.feature {
            Feature::Tanh | Feature::Classified | Feature::Linear | Feature::Unit => (0.0, 1.0),
            Feature::Posterior { tanh, temperature } => (tanh, temperature),
        };
        let n_stages = match &self.body {
            Body::Features => 0,
            Body::Small { channels, .. } => channels.len(),
            Body::Alexnet { .. } | Body::Vgg16 { .. } => 5,
            Body::Resnet { .. } => 4,
        };
        match &self.body {
            _ if !self.pyramid.is_none_or(|pyramid| (1..=n_stages).contains(&pyramid.stages)) => {
                refused("network.pyramid.stages", "1 to the number of stages of convolutions of the body")
            }
            _ if !self.first_input.is_none_or(grows) => {
                refused("network.first_input", "a side less than `network.input` and a share in (0, 1)")
            }
            _ if !in_range(&self.dim) => refused("network.dim", "1 to 65536"),
            _ if !(0.0..f64::INFINITY).contains(&tanh) => {
                refused("network.feature.posterior.tanh", "a finite weight of at least 0")
            }
            _ if !(temperature > 0.0 && temperature.is_finite()) => {
                refused("network.feature.posterior.temperature", "a finite number above 0")
            }
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
            Body::Resnet { width, .. } if !(1..=MAX_UNITS / 32).contains(width) => {
                refused("network.body.resnet.width", "1 to 2048")
            }
            Body::Resnet { blocks, .. } if !blocks.iter().all(|n| (1..=256).contains(n)) => {
                refused("network.body.resnet.blocks", "1 to 256 in each stage")
            }
            Body::Small { .. } | Body::Alexnet { .. } | Body::Vgg16 { .. } | Body::Resnet { .. } => Ok(()),
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

/// The moments by which batch normalisation normalises in training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Moments {
    /// Mean and variance of the batch. Running means of them serve inference.
    #[default]
    Batch,
    /// The stored mean and variance, those of pretrained weights, which become a part of the
    /// weights of convolutions. Normalisation then takes no time.
    Stored,
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The kind of block of a residual network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Block {
    /// Two 3×3 convolutions, as in ResNet-18 and 34.
    Basic,
    /// A 1×1, a 3×3 and a 1×1 convolution, of which the last has four times as many channels, as in
    /// ResNet-50. The 3×3 convolution has the stride.
    Bottleneck,
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
