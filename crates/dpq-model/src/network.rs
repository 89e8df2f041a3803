//! The network: a body and two heads.
//!
//! Parameters are named as in files: `backbone.<layer>.<kind>` (`body` names the layers),
//! `embed.{weight,bias}` and `classifier.{weight,bias}`, or `embed.weight` and `queries.weight` of
//! maps of pairs. A kind is `weight`, `bias`, or `gamma`,
//! `beta`, `mean` or `var` of a batch normalisation. Features with a posterior have
//! `classes.embedding` besides.

use candle_core::{DType, Device, Result as TensorResult, Tensor, Var};

use crate::Error;
use crate::body::{self, Layers};
use crate::config::{Backbone, Feature, Moments, NetworkConfig, TrainConfig};
use crate::ops;
use crate::pass::Pass;
use crate::quantize::{softmax, unit};
use crate::rng::{Stream, normal, rng};
use crate::tensors::{Shapes, Tensors, Variables};

/// A network in training: its variables, and tensors that no gradient changes.
pub(crate) struct Network {
    config: NetworkConfig,
    /// See [`TrainConfig::unit_parts`].
    unit_parts: usize,
    layers: Layers,
    pub(crate) body: Variables,
    pub(crate) heads: Variables,
    /// Running moments, for inference, and label embeddings.
    untrained: Tensors,
}

/// The label embeddings V at length 1, f32 `[C, D]`.
const EMBEDDINGS: &str = "classes.embedding";

/// The outputs of a network for a batch.
pub(crate) struct Heads {
    /// x, f32 `[n, D]`, see [`Feature`]; of pairs, those of the keys.
    pub(crate) features: Tensor,
    /// o = W_c f + w_c, f32 `[n, C]`; 0 columns without a classifier.
    pub(crate) logits: Tensor,
    /// For pairs in training, x of the queries, f32 `[n, D]`.
    pub(crate) queries: Option<Tensor>,
    /// Weight and bias of the classifier, if it reads features.
    pub(crate) classifier: Option<[Tensor; 2]>,
}

impl Heads {
    /// Returns the logits of features, `[n, C]`, of a classifier that reads features.
    pub(crate) fn classify(&self, x: &Tensor) -> TensorResult<Tensor> {
        let [weight, bias] = self.classifier.as_ref().expect("the configuration was checked");
        x.matmul(&weight.t()?)?.broadcast_add(bias)
    }
}

/// Returns the names and shapes of all tensors of a file, without allocating them: those of the
/// body, and those of the heads. Inputs are `[c, h, w]`.
pub(crate) fn shapes(
    config: &NetworkConfig,
    input: [usize; 3],
    n_classes: usize,
) -> Result<[Shapes; 2], Error> {
    let layers = Layers::new(config, input)?;
    let mut heads = Shapes::new();
    if config.feature == Feature::Linear {
        for name in ["embed", "queries"] {
            heads.insert(format!("{name}.weight"), vec![config.dim, layers.dim]);
        }
        return Ok([layers.shapes().collect(), heads]);
    }
    let classified = if config.feature == Feature::Classified { config.dim } else { layers.dim };
    let classifier = config.feature.has_classifier().then_some(("classifier", n_classes, classified));
    for (name, outputs, inputs) in classifier.into_iter().chain([("embed", config.dim, layers.dim)]) {
        heads.insert(format!("{name}.weight"), vec![outputs, inputs]);
        heads.insert(format!("{name}.bias"), vec![outputs]);
    }
    if let Feature::Posterior { .. } = config.feature {
        heads.insert(EMBEDDINGS.to_owned(), vec![n_classes, config.dim]);
    }
    Ok([layers.shapes().collect(), heads])
}

impl Network {
    /// Makes a network with random weights from the seed: normally distributed, with variance 2 /
    /// inputs before a ReLU (He et al. 2015) and 1 / inputs before a head. Biases are 0, and linear
    /// maps of pairs the identity.
    pub(crate) fn new(
        train: &TrainConfig,
        input: [usize; 3],
        n_classes: usize,
        device: &Device,
    ) -> Result<Self, Error> {
        let config = &train.network;
        let layers = Layers::new(config, input)?;
        let [body, heads] = shapes(config, input, n_classes)?;
        let mut rng = rng(train.seed, Stream::Weights);
        let mut untrained = Tensors::new();
        let mut variables = |shapes: Shapes, gain: f64| -> Result<Variables, Error> {
            let mut variables = Variables::new();
            for (name, shape) in shapes {
                let (_, kind) = name.rsplit_once('.').expect("a layer and a kind");
                let n = shape.iter().product();
                let values = match kind {
                    "weight" => {
                        let deviation = (gain / shape[1..].iter().product::<usize>() as f64).sqrt();
                        (0..n).map(|_| (deviation * normal(&mut rng)) as f32).collect()
                    }
                    "gamma" | "var" => vec![1.0f32; n],
                    _ => vec![0.0; n],
                };
                let is_trained = !["mean", "var", "embedding"].contains(&kind);
                let tensor = Tensor::from_vec(values, shape, device)?;
                if !is_trained {
                    untrained.insert(name, tensor);
                } else {
                    variables.insert(name, Var::from_tensor(&tensor)?);
                }
            }
            Ok(variables)
        };
        let (body, heads) = (variables(body, 2.0)?, variables(heads, 1.0)?);
        if config.feature == Feature::Linear {
            heads.values().try_for_each(|map| map.set(&Tensor::eye(config.dim, DType::F32, device)?))?;
        }
        Ok(Self { config: config.clone(), unit_parts: train.unit_parts(), layers, body, heads, untrained })
    }

    /// Runs a batch through the frozen stages, whose result the other stages take, without a graph
    /// of gradients.
    pub(crate) fn frozen(&self, x: &Tensor) -> TensorResult<Tensor> {
        let (frozen, _) = self.layers.split(self.config.freeze);
        body::forward(frozen, x, &mut Pass::Inference(&body::fold(frozen, &self.tensors())?))
    }

    /// Runs the result of the frozen stages through the others in training: applies dropout from
    /// `seed`.
    pub(crate) fn forward_train(&mut self, x: &Tensor, seed: u64) -> TensorResult<Heads> {
        let NetworkConfig { dropout, moments, freeze, feature, .. } = self.config;
        let variables = [&self.body, &self.heads];
        let mut pass = Pass::Training { variables, untrained: &mut self.untrained, moments, dropout, seed };
        let f = body::forward(self.layers.split(freeze).1, x, &mut pass)?;
        // An optimiser skips variables without a gradient.
        let f = match self.config.backbone {
            Backbone::Trained => f,
            Backbone::Frozen => f.detach(),
        };
        let f = pass.dropout(&f, None)?;
        heads(&f, &pass, feature, self.unit_parts)
    }

    /// Runs the result of the frozen stages in inference, without a graph of gradients.
    pub(crate) fn forward(&self, x: &Tensor) -> TensorResult<Heads> {
        let (_, layers) = self.layers.split(self.config.freeze);
        let tensors = body::fold(layers, &self.tensors())?;
        let mut pass = Pass::Inference(&tensors);
        heads(&body::forward(layers, x, &mut pass)?, &pass, self.config.feature, self.unit_parts)
    }

    pub(crate) fn variable(&self, name: &str) -> Option<&Var> {
        self.body.get(name).or_else(|| self.heads.get(name))
    }

    /// Returns all tensors of a file, detached from the graph of gradients.
    pub(crate) fn tensors(&self) -> Tensors {
        let variables = self.body.iter().chain(&self.heads);
        let variables = variables.map(|(name, var)| (name.clone(), var.as_detached_tensor()));
        variables.chain(self.untrained.clone()).collect()
    }

    /// Takes pretrained weights of the body. Normalisation by stored moments becomes a part of
    /// them.
    pub(crate) fn start_from(&mut self, weights: Tensors) -> TensorResult<()> {
        match self.config.moments {
            Moments::Batch => self.set(&weights),
            Moments::Stored => self.set(&body::absorb(&self.layers.layers, &weights)?),
        }
    }

    /// Takes label embeddings of any length other than 0, f32 `[C, D]`, if features need them.
    pub(crate) fn embed_classes(&mut self, embeddings: &Tensor) -> TensorResult<()> {
        if let Some(of_classes) = self.untrained.get_mut(EMBEDDINGS) {
            *of_classes = embeddings.broadcast_div(&embeddings.sqr()?.sum_keepdim(1)?.sqrt()?)?;
        }
        Ok(())
    }

    /// Takes the values of `tensors`, which have names and shapes of [`Network::tensors`].
    pub(crate) fn set(&mut self, tensors: &Tensors) -> TensorResult<()> {
        for (name, value) in tensors {
            if let Some(untrained) = self.untrained.get_mut(name) {
                *untrained = value.clone();
            } else if let Some(var) = self.variable(name) {
                var.set(value)?;
            }
        }
        Ok(())
    }
}

/// Runs the heads on the result of the body. Unit features have `unit_parts` parts of length 1.
pub(crate) fn heads(f: &Tensor, pass: &Pass, feature: Feature, unit_parts: usize) -> TensorResult<Heads> {
    match feature {
        Feature::Linear => return maps(f, pass),
        Feature::Unit => {
            let x = pass.linear(f, "embed", false)?;
            let (n, dim) = x.dims2()?;
            let features = unit(&x.reshape((n * unit_parts, dim / unit_parts))?)?.reshape((n, dim))?;
            let logits = Tensor::zeros((n, 0), DType::F32, f.device())?;
            return Ok(Heads { features, logits, queries: None, classifier: None });
        }
        Feature::Classified => {
            let features = pass.linear(f, "embed", false)?.tanh()?;
            let logits = pass.linear(&features, "classifier", false)?;
            let classifier = ["weight", "bias"].map(|kind| pass.get(&format!("classifier.{kind}")).clone());
            return Ok(Heads { features, logits, queries: None, classifier: Some(classifier) });
        }
        Feature::Tanh | Feature::Posterior { .. } => {}
    }
    let logits = pass.linear(f, "classifier", false)?;
    let of_paper = pass.linear(f, "embed", false)?.tanh()?;
    let features = match feature {
        Feature::Tanh | Feature::Classified | Feature::Linear | Feature::Unit => of_paper,
        Feature::Posterior { tanh, temperature } => {
            let embeddings = pass.get(EMBEDDINGS).t()?.contiguous()?;
            let posterior = softmax(&(&logits / temperature)?)?;
            let expected = ops::linear(&posterior, &embeddings, None, false)?;
            (expected + (of_paper * tanh)?)?
        }
    };
    Ok(Heads { features, logits, queries: None, classifier: None })
}

/// Applies the linear maps of pairs: in training to the queries, the first half of f, and to the
/// keys, the rest; in inference that of the keys.
fn maps(f: &Tensor, pass: &Pass) -> TensorResult<Heads> {
    let (keys, queries) = match pass {
        Pass::Training { .. } => {
            let n = f.dim(0)? / 2;
            (f.narrow(0, n, n)?, Some(pass.linear(&f.narrow(0, 0, n)?, "queries", false)?))
        }
        Pass::Inference(_) => (f.clone(), None),
    };
    let logits = Tensor::zeros((keys.dim(0)?, 0), DType::F32, f.device())?;
    Ok(Heads { features: pass.linear(&keys, "embed", false)?, logits, queries, classifier: None })
}

#[cfg(test)]
pub(crate) mod tests;
