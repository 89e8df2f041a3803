//! The network: a small convolutional backbone and two heads.
//!
//! Names of parameters, as in files: `backbone.conv.<i>.weight`, `backbone.norm.<i>.{gamma,beta,mean,var}`,
//! `backbone.hidden.{weight,bias}`, `embed.{weight,bias}`, `classifier.{weight,bias}`.

use std::collections::BTreeMap;

use candle_core::{Device, Result, Tensor, Var};

use crate::config::{Backbone, NetworkConfig, StageOrder};
use crate::ops;
use crate::rng::{Stream, mix, normal, rng, uniform};

/// Keeps the variance of batch normalisation from 0.
const EPSILON: f64 = 1e-5;

/// The share of a batch's moments in the running ones.
const MOMENTUM: f64 = 0.1;

/// Tensors by name.
pub(crate) type Tensors = BTreeMap<String, Tensor>;

/// A network in training: variables, and the running moments that inference will use.
pub(crate) struct Network {
    config: NetworkConfig,
    pub(crate) variables: BTreeMap<String, Var>,
    running: Tensors,
}

/// What a batch of images becomes.
pub(crate) struct Heads {
    /// x = tanh(W_s f + w_s), f32 `[n, D]`.
    pub(crate) features: Tensor,
    /// o = W_c f + w_c, f32 `[n, C]`.
    pub(crate) logits: Tensor,
}

/// The names and shapes of all tensors that a file holds, without the memory for them.
pub(crate) fn shapes(
    config: &NetworkConfig,
    shape: [usize; 3],
    n_classes: usize,
) -> BTreeMap<String, Vec<usize>> {
    let mut shapes = BTreeMap::new();
    let mut channels = shape[0];
    for (i, &out) in config.channels.iter().enumerate() {
        shapes.insert(format!("backbone.conv.{i}.weight"), vec![out, channels, 3, 3]);
        for name in ["gamma", "beta", "mean", "var"] {
            shapes.insert(format!("backbone.norm.{i}.{name}"), vec![out]);
        }
        channels = out;
    }
    let side = |side: usize| side >> config.pools;
    // A product that overflows is no size of any section.
    let n_flat = channels.saturating_mul(side(shape[1])).saturating_mul(side(shape[2]));
    for (name, inputs, outputs) in [
        ("backbone.hidden", n_flat, config.hidden),
        ("embed", config.hidden, config.dim),
        ("classifier", config.hidden, n_classes),
    ] {
        shapes.insert(format!("{name}.weight"), vec![outputs, inputs]);
        shapes.insert(format!("{name}.bias"), vec![outputs]);
    }
    shapes
}

impl Network {
    /// A network whose weights are drawn as `seed` decides: normal, of variance 2 / inputs before a ReLU (He et al. 2015)
    /// and 1 / inputs before a head; biases are 0.
    pub(crate) fn new(
        config: &NetworkConfig,
        shape: [usize; 3],
        n_classes: usize,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        let mut network =
            Self { config: config.clone(), variables: BTreeMap::new(), running: Tensors::new() };
        let mut rng = rng(seed, Stream::Weights);
        for (name, shape) in shapes(config, shape, n_classes) {
            let constant = |value: f32| Tensor::full(value, &shape[..], &Device::Cpu);
            let tensor = match name.rsplit('.').next() {
                Some("weight") => {
                    let gain = if name.starts_with("backbone.") { 2.0 } else { 1.0 };
                    let deviation = (gain / shape[1..].iter().product::<usize>() as f64).sqrt();
                    let n = shape.iter().product();
                    let values: Vec<f32> = (0..n).map(|_| (deviation * normal(&mut rng)) as f32).collect();
                    Tensor::from_vec(values, &shape[..], &Device::Cpu)?
                }
                Some("gamma" | "var") => constant(1.0)?,
                _ => constant(0.0)?,
            };
            let tensor = tensor.to_device(device)?;
            if name.ends_with(".mean") || name.ends_with(".var") {
                network.running.insert(name, tensor);
            } else {
                network.variables.insert(name, Var::from_tensor(&tensor)?);
            }
        }
        Ok(network)
    }

    /// Runs a batch in training: moments of the batch, and hidden units left out as `seed` decides.
    pub(crate) fn forward_train(&mut self, x: &Tensor, seed: u64) -> Result<Heads> {
        let mut x = x.clone();
        for i in 0..self.config.channels.len() {
            let get = |name: &str| &self.variables[&format!("backbone.{name}")];
            let (gamma, beta) = (get(&format!("norm.{i}.gamma")), get(&format!("norm.{i}.beta")));
            let (pools, order) = (i < self.config.pools, self.config.order);
            let y = convolve(&x, get(&format!("conv.{i}.weight")), pools, order)?;
            let (y, mean, var) = ops::batch_norm(&y, gamma, beta, EPSILON, true)?;
            x = if pools && order == StageOrder::ConvNormReluPool { ops::max_pool2d(&y, 2, 2)? } else { y };
            for (name, value) in [("mean", mean), ("var", var)] {
                let running =
                    self.running.get_mut(&format!("backbone.norm.{i}.{name}")).expect("made by new");
                *running = ((&*running * (1.0 - MOMENTUM))? + (value.detach() * MOMENTUM)?)?.detach();
            }
        }
        let hidden = self.linear(&x.flatten_from(1)?, "backbone.hidden", true)?;
        // What has no gradient is not updated.
        let hidden = match self.config.backbone {
            Backbone::Trained => hidden,
            Backbone::FrozenRandom => hidden.detach(),
        };
        let hidden = if self.config.dropout > 0.0 {
            (&hidden * dropout_mask(hidden.dims2()?, self.config.dropout, seed)?.to_device(x.device())?)?
        } else {
            hidden
        };
        Ok(Heads {
            features: self.linear(&hidden, "embed", false)?.tanh()?,
            logits: self.linear(&hidden, "classifier", false)?,
        })
    }

    fn linear(&self, x: &Tensor, name: &str, relu: bool) -> Result<Tensor> {
        let (weight, bias) =
            (&self.variables[&format!("{name}.weight")], &self.variables[&format!("{name}.bias")]);
        ops::linear(x, weight, Some(bias), relu)
    }

    /// Everything that a file holds, detached from the graph of gradients.
    pub(crate) fn tensors(&self) -> Tensors {
        let variables = self.variables.iter().map(|(name, var)| (name.clone(), var.as_detached_tensor()));
        variables.chain(self.running.clone()).collect()
    }

    /// Takes the values of `tensors`, which are named and shaped as those of [`Network::tensors`].
    pub(crate) fn set(&mut self, tensors: &Tensors) -> Result<()> {
        for (name, var) in &self.variables {
            var.set(&tensors[name])?;
        }
        for (name, value) in &mut self.running {
            *value = tensors[name].clone();
        }
        Ok(())
    }
}

/// Runs a batch in inference: running moments, folded into a scale and a shift; all hidden units.
pub(crate) fn forward(config: &NetworkConfig, tensors: &Tensors, x: &Tensor) -> Result<Heads> {
    let mut x = x.clone();
    for i in 0..config.channels.len() {
        let norm = |name: &str| &tensors[&format!("backbone.norm.{i}.{name}")];
        let scale = (norm("gamma") / (norm("var") + EPSILON)?.sqrt()?)?;
        let shift = (norm("beta") - (norm("mean") * &scale)?)?;
        let weight = &tensors[&format!("backbone.conv.{i}.weight")];
        let (pools, pool) = (i < config.pools, (2, 2));
        x = if pools && config.order == StageOrder::ConvPoolNormRelu {
            // A negative scale does not commute with the maximum, so it stays behind the pooling.
            ops::scale_shift(&ops::conv2d_pool(&x, weight, None, 1, 1, pool, false)?, &scale, &shift, true)?
        } else {
            let weight = weight.broadcast_mul(&scale.reshape(((), 1, 1, 1))?)?;
            match pools {
                true => ops::conv2d_pool(&x, &weight, Some(&shift), 1, 1, pool, true)?,
                false => ops::conv2d(&x, &weight, Some(&shift), 1, 1, true)?,
            }
        };
    }
    let linear = |x: &Tensor, name: &str, relu| {
        ops::linear(x, &tensors[&format!("{name}.weight")], Some(&tensors[&format!("{name}.bias")]), relu)
    };
    let hidden = linear(&x.flatten_from(1)?, "backbone.hidden", true)?;
    Ok(Heads {
        features: linear(&hidden, "embed", false)?.tanh()?,
        logits: linear(&hidden, "classifier", false)?,
    })
}

/// A stage's convolution, with its pooling where that comes first. Normalisation follows, so there is no bias.
fn convolve(x: &Tensor, weight: &Tensor, pools: bool, order: StageOrder) -> Result<Tensor> {
    if pools && order == StageOrder::ConvPoolNormRelu {
        ops::conv2d_pool(x, weight, None, 1, 1, (2, 2), false)
    } else {
        ops::conv2d(x, weight, None, 1, 1, false)
    }
}

/// 0 with probability `share`, else 1 / (1 − share): what is left keeps its mean.
fn dropout_mask((n, units): (usize, usize), share: f64, seed: u64) -> Result<Tensor> {
    let kept = (1.0 / (1.0 - share)) as f32;
    let mut values = Vec::with_capacity(n * units);
    for row in 0..n {
        let mut rng = rng(mix(seed, &[row]), Stream::Dropout);
        values.extend((0..units).map(|_| if uniform(&mut rng) < share { 0.0 } else { kept }));
    }
    Tensor::from_vec(values, (n, units), &Device::Cpu)
}
