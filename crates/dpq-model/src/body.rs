//! The body of a network as a list of layers: what its parameters are called and shaped, and what a batch passes through.

use candle_core::Tensor;

use crate::Error;
use crate::config::{Body, StageOrder};
use crate::network::Pass;
use crate::ops;

/// A layer of a body.
pub(crate) enum Layer {
    Stage(Stage),
    /// Inputs are flattened first; a ReLU follows.
    Linear {
        name: String,
        shape: [usize; 2],
    },
}

/// A 3×3 convolution with batch normalisation, ReLU and maybe 2×2 pooling.
pub(crate) struct Stage {
    /// Names of the convolution and of the normalisation.
    names: [String; 2],
    /// Channels in and out.
    channels: [usize; 2],
    pools: bool,
    order: StageOrder,
}

/// The layers of a body over inputs of `[c, h, w]`, and the length of its result.
///
/// # Errors
/// [`Error::Invalid`] if the inputs do not fit.
pub(crate) fn layers(body: &Body, input: [usize; 3]) -> Result<(Vec<Layer>, usize), Error> {
    let [mut channels, mut height, mut width] = input;
    let mut layers = Vec::new();
    match body {
        Body::Features => Ok((layers, channels)),
        Body::Small { channels: stages, pools, order, hidden } => {
            for (i, &out) in stages.iter().enumerate() {
                let pools = i < *pools;
                layers.push(Layer::Stage(Stage {
                    names: [format!("backbone.conv.{i}"), format!("backbone.norm.{i}")],
                    channels: [channels, out],
                    pools,
                    order: *order,
                }));
                channels = out;
                if pools {
                    (height, width) = (height / 2, width / 2);
                }
            }
            if height == 0 || width == 0 {
                let reason = format!("found {input:?}, too small for {pools} poolings");
                return Err(Error::invalid("image shape", reason));
            }
            // A product that overflows is no size of any section.
            let n_flat = channels.saturating_mul(height).saturating_mul(width);
            layers.push(Layer::Linear { name: "backbone.hidden".to_owned(), shape: [*hidden, n_flat] });
            Ok((layers, *hidden))
        }
    }
}

impl Layer {
    /// The names and shapes of its tensors.
    pub(crate) fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        match self {
            Self::Stage(Stage { names: [conv, norm], channels: [n_in, n_out], .. }) => {
                let mut shapes = vec![(format!("{conv}.weight"), vec![*n_out, *n_in, 3, 3])];
                let norm =
                    ["gamma", "beta", "mean", "var"].map(|name| (format!("{norm}.{name}"), vec![*n_out]));
                shapes.extend(norm);
                shapes
            }
            Self::Linear { name, shape } => {
                vec![(format!("{name}.weight"), shape.to_vec()), (format!("{name}.bias"), vec![shape[0]])]
            }
        }
    }

    /// Runs a batch through it.
    pub(crate) fn forward(&self, x: &Tensor, pass: &mut Pass) -> candle_core::Result<Tensor> {
        match self {
            Self::Stage(stage) => stage.forward(x, pass),
            Self::Linear { name, .. } => pass.linear(&x.flatten_from(1)?, name, true),
        }
    }
}

impl Stage {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> candle_core::Result<Tensor> {
        let [conv, norm] = &self.names;
        let weight = pass.get(&format!("{conv}.weight"));
        let pools_first = self.pools && self.order == StageOrder::ConvPoolNormRelu;
        if let Some([scale, shift]) = pass.scale_and_shift(norm)? {
            return if pools_first {
                // A negative scale does not commute with the maximum, so it stays behind the pooling.
                let y = ops::conv2d_pool(x, weight, None, 1, 1, (2, 2), false)?;
                ops::scale_shift(&y, &scale, &shift, true)
            } else {
                let weight = weight.broadcast_mul(&scale.reshape(((), 1, 1, 1))?)?;
                match self.pools {
                    true => ops::conv2d_pool(x, &weight, Some(&shift), 1, 1, (2, 2), true),
                    false => ops::conv2d(x, &weight, Some(&shift), 1, 1, true),
                }
            };
        }
        let y = match pools_first {
            true => ops::conv2d_pool(x, weight, None, 1, 1, (2, 2), false)?,
            false => ops::conv2d(x, weight, None, 1, 1, false)?,
        };
        let y = pass.normalise(&y, norm)?;
        if self.pools && !pools_first { ops::max_pool2d(&y, 2, 2) } else { Ok(y) }
    }
}
