//! The body of a network: its layers with the names and shapes of their parameters.

use std::iter;

use candle_core::{Result as TensorResult, Tensor};

use crate::Error;
use crate::config::{NetworkConfig, Pooling, StageOrder};
use crate::ops;
use crate::pass::{Pass, scale_and_shift, shift_alone};
use crate::tensors::Tensors;
use builder::{Builder, product};

mod builder;

/// The layers of a body.
pub(crate) struct Layers {
    pub(crate) layers: Vec<Layer>,
    /// The number of layers up to the end of each stage.
    pub(crate) stages: Vec<usize>,
    /// The length of the result.
    pub(crate) dim: usize,
}

/// A layer of a body.
pub(crate) enum Layer {
    Conv(Conv),
    Pool(Pool),
    ResponseNorm,
    /// A linear layer on flattened inputs, then a ReLU.
    Linear {
        name: String,
        /// `[out, in]`.
        shape: [usize; 2],
    },
    /// Dropout after the layer of that number.
    Dropout(usize),
    /// The sum of a block of convolutions and of its input, or of the shortcut of its input, then a
    /// ReLU.
    Residual {
        block: Vec<Conv>,
        shortcut: Option<Conv>,
    },
    /// The mean over all positions.
    Mean,
    /// Stages whose results are each pooled over all positions, and joined.
    Pyramid {
        stages: Vec<Vec<Layer>>,
        pooling: Pooling,
    },
}

/// A convolution with a bias or batch normalisation, optionally a ReLU and pooling.
pub(crate) struct Conv {
    name: String,
    /// The name of the normalisation and the order of the stage, or `None` for a bias.
    norm: Option<(String, StageOrder)>,
    /// Input and output channels.
    channels: [usize; 2],
    kernel: usize,
    stride: usize,
    padding: usize,
    /// Each group of output channels reads a group of input channels.
    groups: usize,
    relu: bool,
    pool: Option<Pool>,
}

/// Max pooling.
#[derive(Clone, Copy)]
pub(crate) struct Pool {
    kernel: usize,
    stride: usize,
    padding: usize,
}

impl Layers {
    /// Returns the layers of a body for inputs of `[c, h, w]`.
    pub(crate) fn new(config: &NetworkConfig, input: [usize; 3]) -> Result<Self, Error> {
        let mut builder = Builder::new(input);
        builder.body(&config.body);
        if let Some(pyramid) = config.pyramid {
            builder.pyramid(pyramid);
        }
        let Builder { shape, layers, stages, .. } = builder;
        // A kernel that does not fit leaves no positions.
        if shape.contains(&0) {
            return Err(Error::TooSmall(input));
        }
        Ok(Self { layers, stages, dim: product(shape) })
    }

    /// Returns the layers of the first `n` stages, and those above them.
    pub(crate) fn split(&self, n: usize) -> (&[Layer], &[Layer]) {
        // A training set refuses more stages than there are.
        self.layers.split_at(n.checked_sub(1).map_or(0, |last| self.stages[last]))
    }

    /// The names and shapes of all tensors.
    pub(crate) fn shapes(&self) -> impl Iterator<Item = (String, Vec<usize>)> {
        self.layers.iter().flat_map(Layer::shapes)
    }
}

/// Runs a batch through the layers.
pub(crate) fn forward(layers: &[Layer], x: &Tensor, pass: &mut Pass) -> TensorResult<Tensor> {
    layers.iter().try_fold(x.clone(), |x, layer| layer.forward(&x, pass))
}

/// Prepares the tensors of a network for inference: batch normalisation becomes a scale and a
/// shift, and where it follows a convolution directly, a factor on its weights.
pub(crate) fn fold(layers: &[Layer], tensors: &Tensors) -> TensorResult<Tensors> {
    let mut folded = tensors.clone();
    for conv in layers.iter().flat_map(Layer::convolutions) {
        let Some((norm, order)) = &conv.norm else { continue };
        let [scale, shift] = scale_and_shift(tensors, norm)?;
        if conv.pooled_first(*order).is_none() {
            let name = format!("{}.weight", conv.name);
            let weight = tensors[&name].broadcast_mul(&scale.reshape(((), 1, 1, 1))?)?;
            folded.insert(name, weight);
        }
        folded.insert(format!("{norm}.scale"), scale);
        folded.insert(format!("{norm}.shift"), shift);
    }
    Ok(folded)
}

/// Moves batch normalisation by running moments into the weights of convolutions, so that it only
/// adds `beta`. The network stays the same function.
pub(crate) fn absorb(layers: &[Layer], tensors: &Tensors) -> TensorResult<Tensors> {
    let mut folded = fold(layers, tensors)?;
    for (norm, _) in layers.iter().flat_map(Layer::convolutions).filter_map(|conv| conv.norm.as_ref()) {
        folded.remove(&format!("{norm}.scale"));
        let shift = folded.remove(&format!("{norm}.shift")).expect("folding left it");
        folded.extend(shift_alone(shift)?.map(|(kind, tensor)| (format!("{norm}.{kind}"), tensor)));
    }
    Ok(folded)
}

impl Layer {
    fn convolutions(&self) -> Box<dyn Iterator<Item = &Conv> + '_> {
        match self {
            Self::Conv(conv) => Box::new(iter::once(conv)),
            Self::Residual { block, shortcut } => Box::new(block.iter().chain(shortcut)),
            Self::Pyramid { stages, .. } => Box::new(stages.iter().flatten().flat_map(Self::convolutions)),
            _ => Box::new(iter::empty()),
        }
    }

    /// The names and shapes of the tensors of the layer.
    pub(crate) fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        match self {
            Self::Linear { name, shape } => {
                vec![(format!("{name}.weight"), shape.to_vec()), (format!("{name}.bias"), vec![shape[0]])]
            }
            _ => self.convolutions().flat_map(Conv::shapes).collect(),
        }
    }

    /// Runs a batch through the layer.
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> TensorResult<Tensor> {
        match self {
            Self::Conv(conv) => conv.forward(x, pass),
            Self::Pool(pool) => pool.forward(x),
            Self::ResponseNorm => ops::response_norm(x),
            Self::Linear { name, .. } => pass.linear(&x.flatten_from(1)?, name, true),
            Self::Dropout(number) => pass.dropout(x, Some(*number)),
            Self::Residual { block, shortcut } => {
                let y = block.iter().try_fold(x.clone(), |x, conv| conv.forward(&x, pass))?;
                match shortcut {
                    Some(conv) => ops::add_relu(&y, &conv.forward(x, pass)?),
                    None => ops::add_relu(&y, x),
                }
            }
            Self::Mean => x.flatten_from(2)?.mean(2),
            Self::Pyramid { stages, pooling } => {
                let (mut x, mut pooled) = (x.clone(), Vec::new());
                for stage in stages {
                    x = forward(stage, &x, pass)?;
                    let positions = x.flatten_from(2)?.contiguous()?;
                    if *pooling != Pooling::Maximum {
                        pooled.push(positions.mean(2)?);
                    }
                    if *pooling != Pooling::Average {
                        // The gradient goes to the first maximum alone, unlike that of candle.
                        let first = positions.detach().argmax_keepdim(2)?;
                        pooled.push(positions.gather(&first, 2)?.squeeze(2)?);
                    }
                }
                Tensor::cat(&pooled, 1)
            }
        }
    }
}

impl Pool {
    fn out(self, [c, h, w]: [usize; 3]) -> [usize; 3] {
        let n = |len| n_windows(len, self.kernel, self.stride, self.padding);
        [c, n(h), n(w)]
    }

    fn forward(self, x: &Tensor) -> TensorResult<Tensor> {
        ops::max_pool2d(x, self.kernel, [self.stride, self.padding])
    }
}

/// Returns the number of windows that fit into a row of `len`.
fn n_windows(len: usize, kernel: usize, stride: usize, padding: usize) -> usize {
    if len == 0 { 0 } else { (len + 2 * padding).checked_sub(kernel).map_or(0, |rest| rest / stride + 1) }
}

impl Conv {
    fn out(&self, [_, h, w]: [usize; 3]) -> [usize; 3] {
        let n = |len| n_windows(len, self.kernel, self.stride, self.padding);
        let shape = [self.channels[1], n(h), n(w)];
        self.pool.map_or(shape, |pool| pool.out(shape))
    }

    fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        let ([n_in, n_out], kernel) = (self.channels, self.kernel);
        let weight = vec![n_out, n_in / self.groups, kernel, kernel];
        let mut shapes = vec![(format!("{}.weight", self.name), weight)];
        match &self.norm {
            Some((norm, _)) => {
                let kinds = ["gamma", "beta", "mean", "var"];
                shapes.extend(kinds.map(|kind| (format!("{norm}.{kind}"), vec![n_out])));
            }
            None => shapes.push((format!("{}.bias", self.name), vec![n_out])),
        }
        shapes
    }

    fn forward(&self, x: &Tensor, pass: &mut Pass) -> TensorResult<Tensor> {
        let weight = pass.get(&format!("{}.weight", self.name));
        let Some((norm, order)) = &self.norm else {
            let bias = pass.get(&format!("{}.bias", self.name));
            return self.convolve(x, weight, Some(bias), self.pool, self.relu);
        };
        let first = self.pooled_first(*order);
        let last = if first.is_some() { None } else { self.pool };
        if let Some([scale, shift]) = pass.scale_and_shift(norm) {
            if first.is_some() {
                // A negative scale does not commute with the maximum, so it follows the pooling.
                let y = self.convolve(x, weight, None, first, false)?;
                return ops::scale_shift(&y, scale, shift, self.relu);
            }
            return self.convolve(x, weight, Some(shift), last, self.relu);
        }
        if let Some(shift) = pass.shift(norm) {
            return self.convolve(x, weight, Some(shift), self.pool, self.relu);
        }
        let y = self.convolve(x, weight, None, first, false)?;
        let y = pass.normalise(&y, norm, self.relu)?;
        last.map_or(Ok(y.clone()), |pool| pool.forward(&y))
    }

    /// The pooling between the convolution and its normalisation.
    fn pooled_first(&self, order: StageOrder) -> Option<Pool> {
        self.pool.filter(|_| order == StageOrder::ConvPoolNormRelu)
    }

    /// Applies the convolution, then pooling and a ReLU (which commute), group by group.
    fn convolve(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        pool: Option<Pool>,
        relu: bool,
    ) -> TensorResult<Tensor> {
        let pool = pool.map(|pool| (pool.kernel, pool.stride));
        let run = |x: &Tensor, weight: &Tensor, bias: Option<&Tensor>| {
            ops::conv2d(x, weight, bias, [self.stride, self.padding], pool, relu)
        };
        if self.groups == 1 {
            return run(x, weight, bias);
        }
        let [n_in, n_out] = self.channels.map(|n| n / self.groups);
        let group = |i: usize| {
            let bias = bias.map(|bias| bias.narrow(0, i * n_out, n_out)).transpose()?;
            run(&x.narrow(1, i * n_in, n_in)?, &weight.narrow(0, i * n_out, n_out)?, bias.as_ref())
        };
        Tensor::cat(&(0..self.groups).map(group).collect::<TensorResult<Vec<_>>>()?, 1)
    }
}
