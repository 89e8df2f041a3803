//! The network: a body and two heads.
//!
//! Names of parameters, as in files: `backbone.<layer>.<kind>` (the layers are those of `body`), `embed.{weight,bias}`,
//! `classifier.{weight,bias}`; kinds are weight, bias, and gamma, beta, mean, var of a batch normalisation.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor, Var};

use crate::Error;
use crate::body::{Layer, layers};
use crate::config::{Backbone, NetworkConfig};
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
    layers: Vec<Layer>,
    pub(crate) variables: BTreeMap<String, Var>,
    running: Tensors,
}

/// What a batch of inputs becomes.
pub(crate) struct Heads {
    /// x = tanh(W_s f + w_s), f32 `[n, D]`.
    pub(crate) features: Tensor,
    /// o = W_c f + w_c, f32 `[n, C]`.
    pub(crate) logits: Tensor,
}

/// The names and shapes of all tensors that a file holds, without the memory for them. Inputs are `[c, h, w]`.
///
/// # Errors
/// [`Error::Invalid`] if the inputs do not fit.
pub(crate) fn shapes(
    config: &NetworkConfig,
    input: [usize; 3],
    n_classes: usize,
) -> Result<BTreeMap<String, Vec<usize>>, Error> {
    let (layers, n_body) = layers(&config.body, input)?;
    let mut shapes: BTreeMap<_, _> = layers.iter().flat_map(Layer::shapes).collect();
    for (name, outputs) in [("embed", config.dim), ("classifier", n_classes)] {
        shapes.insert(format!("{name}.weight"), vec![outputs, n_body]);
        shapes.insert(format!("{name}.bias"), vec![outputs]);
    }
    Ok(shapes)
}

impl Network {
    /// A network whose weights are drawn as `seed` decides: normal, of variance 2 / inputs before a ReLU (He et al. 2015)
    /// and 1 / inputs before a head; biases are 0.
    pub(crate) fn new(
        config: &NetworkConfig,
        input: [usize; 3],
        n_classes: usize,
        seed: u64,
        device: &Device,
    ) -> Result<Self, Error> {
        let (layers, _) = layers(&config.body, input)?;
        let mut network =
            Self { config: config.clone(), layers, variables: BTreeMap::new(), running: Tensors::new() };
        let mut rng = rng(seed, Stream::Weights);
        for (name, shape) in shapes(config, input, n_classes)? {
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

    /// Runs a batch in training: moments of the batch, and outputs of the body left out as `seed` decides.
    pub(crate) fn forward_train(&mut self, x: &Tensor, seed: u64) -> candle_core::Result<Heads> {
        let dropout = self.config.dropout;
        let mut pass =
            Pass::Training { variables: &self.variables, running: &mut self.running, dropout, seed };
        let f = pass.body(&self.layers, x)?;
        // What has no gradient is not updated.
        let f = match self.config.backbone {
            Backbone::Trained => f,
            Backbone::Frozen => f.detach(),
        };
        let f = pass.dropout(&f, None)?;
        pass.heads(&f)
    }

    /// Runs a batch in inference, without a graph of gradients.
    pub(crate) fn forward(&self, x: &Tensor) -> candle_core::Result<Heads> {
        let tensors = self.tensors();
        heads(&tensors, &body(&self.layers, &tensors, x)?)
    }

    /// Everything that a file holds, detached from the graph of gradients.
    pub(crate) fn tensors(&self) -> Tensors {
        let variables = self.variables.iter().map(|(name, var)| (name.clone(), var.as_detached_tensor()));
        variables.chain(self.running.clone()).collect()
    }

    /// Takes the values of `tensors`, which are named and shaped as those of [`Network::tensors`], or as some of them.
    pub(crate) fn set(&mut self, tensors: &Tensors) -> candle_core::Result<()> {
        for (name, value) in tensors {
            match (self.variables.get(name), self.running.get_mut(name)) {
                (Some(var), _) => var.set(value)?,
                (_, Some(running)) => *running = value.clone(),
                _ => {}
            }
        }
        Ok(())
    }
}

/// What the body makes of a batch in inference, f32 `[n, F]`: running moments, folded into a scale and a shift.
pub(crate) fn body(layers: &[Layer], tensors: &Tensors, x: &Tensor) -> candle_core::Result<Tensor> {
    Pass::Inference(tensors).body(layers, x)
}

/// Runs the heads on what the body made.
pub(crate) fn heads(tensors: &Tensors, f: &Tensor) -> candle_core::Result<Heads> {
    Pass::Inference(tensors).heads(f)
}

/// How a batch passes through the network, and where parameters come from.
pub(crate) enum Pass<'a> {
    /// With the moments of the batch, which become part of the running ones.
    Training { variables: &'a BTreeMap<String, Var>, running: &'a mut Tensors, dropout: f64, seed: u64 },
    /// With running moments.
    Inference(&'a Tensors),
}

impl Pass<'_> {
    fn body(&mut self, layers: &[Layer], x: &Tensor) -> candle_core::Result<Tensor> {
        layers.iter().try_fold(x.clone(), |x, layer| layer.forward(&x, self))
    }

    fn heads(&self, f: &Tensor) -> candle_core::Result<Heads> {
        Ok(Heads {
            features: self.linear(f, "embed", false)?.tanh()?,
            logits: self.linear(f, "classifier", false)?,
        })
    }

    /// The parameter of that name.
    pub(crate) fn get(&self, name: &str) -> &Tensor {
        match self {
            Self::Training { variables, .. } => &variables[name],
            Self::Inference(tensors) => &tensors[name],
        }
    }

    /// A linear layer, then a ReLU if `relu` is set.
    pub(crate) fn linear(&self, x: &Tensor, name: &str, relu: bool) -> candle_core::Result<Tensor> {
        let [weight, bias] = ["weight", "bias"].map(|kind| self.get(&format!("{name}.{kind}")));
        ops::linear(x, weight, Some(bias), relu)
    }

    /// What batch normalisation comes to in inference; none in training.
    pub(crate) fn scale_and_shift(&self, norm: &str) -> candle_core::Result<Option<[Tensor; 2]>> {
        if let Self::Training { .. } = self {
            return Ok(None);
        }
        let [gamma, beta, mean, var] =
            ["gamma", "beta", "mean", "var"].map(|kind| self.get(&format!("{norm}.{kind}")));
        let scale = (gamma / (var + EPSILON)?.sqrt()?)?;
        let shift = (beta - (mean * &scale)?)?;
        Ok(Some([scale, shift]))
    }

    /// Leaves out numbers of `[n, units]` in training: those of the body's result, or of the layer of that number inside it.
    pub(crate) fn dropout(&self, x: &Tensor, layer: Option<usize>) -> candle_core::Result<Tensor> {
        match self {
            Self::Training { dropout, seed, .. } if *dropout > 0.0 => {
                let seed = layer.map_or(*seed, |layer| mix(*seed, &[0, layer]));
                x * dropout_mask(x.dims2()?, *dropout, seed)?.to_device(x.device())?
            }
            _ => Ok(x.clone()),
        }
    }

    /// Batch normalisation in training, then a ReLU if `relu` is set.
    pub(crate) fn normalise(&mut self, x: &Tensor, norm: &str, relu: bool) -> candle_core::Result<Tensor> {
        let [gamma, beta] = ["gamma", "beta"].map(|kind| self.get(&format!("{norm}.{kind}")));
        let (y, mean, var) = ops::batch_norm(x, gamma, beta, EPSILON, relu)?;
        if let Self::Training { running, .. } = self {
            for (name, value) in [("mean", mean), ("var", var)] {
                let running = running.get_mut(&format!("{norm}.{name}")).expect("made with the network");
                *running = ((&*running * (1.0 - MOMENTUM))? + (value.detach() * MOMENTUM)?)?.detach();
            }
        }
        Ok(y)
    }
}

/// 0 with probability `share`, else 1 / (1 − share): what is left keeps its mean.
fn dropout_mask((n, units): (usize, usize), share: f64, seed: u64) -> candle_core::Result<Tensor> {
    let kept = (1.0 / (1.0 - share)) as f32;
    let mut values = Vec::with_capacity(n * units);
    for row in 0..n {
        let mut rng = rng(mix(seed, &[row]), Stream::Dropout);
        values.extend((0..units).map(|_| if uniform(&mut rng) < share { 0.0 } else { kept }));
    }
    Tensor::from_vec(values, (n, units), &Device::Cpu)
}
