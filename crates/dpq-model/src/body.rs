//! The body of a network: its layers with the names and shapes of their parameters.

use std::slice;

use candle_core::{Result as TensorResult, Tensor};

use crate::Error;
use crate::config::{Alexnet, Block, Body, StageOrder};
use crate::ops;
use crate::pass::{Pass, scale_and_shift, shift_alone};
use crate::tensors::Tensors;

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
    pub(crate) fn new(body: &Body, input: [usize; 3]) -> Result<Self, Error> {
        let mut builder = Builder { shape: input, layers: Vec::new(), stages: Vec::new() };
        builder.body(body);
        let Builder { shape, layers, stages } = builder;
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

/// Pooling that halves an image.
const POOL_2: Pool = Pool { kernel: 2, stride: 2, padding: 0 };

/// Multiplies sizes. A product that overflows saturates, and so fits no section of a file.
fn product(shape: [usize; 3]) -> usize {
    shape.into_iter().fold(1, usize::saturating_mul)
}

/// The layers so far, the shape `[c, h, w]` of their result, and the ends of stages.
struct Builder {
    shape: [usize; 3],
    layers: Vec<Layer>,
    stages: Vec<usize>,
}

impl Builder {
    fn body(&mut self, body: &Body) {
        match body {
            Body::Features => {}
            Body::Small { channels, pools, order, hidden } => {
                for (i, &out) in channels.iter().enumerate() {
                    let norm = Some((format!("backbone.norm.{i}"), *order));
                    let conv = Conv { norm, ..self.conv(&format!("conv.{i}"), out, 3, 1, 1) };
                    self.push(Conv { pool: (i < *pools).then_some(POOL_2), ..conv });
                    self.end_stage();
                }
                self.linear("hidden", *hidden);
            }
            Body::Alexnet { variant, channels, hidden } => self.alexnet(*variant, channels, *hidden),
            Body::Vgg16 { channels, hidden } => {
                for (stage, (&out, n)) in channels.iter().zip([2, 2, 3, 3, 3]).enumerate() {
                    for i in 1..=n {
                        let conv = self.conv(&format!("conv{}_{i}", stage + 1), out, 3, 1, 1);
                        self.push(Conv { pool: (i == n).then_some(POOL_2), ..conv });
                    }
                    self.end_stage();
                }
                self.linear("fc6", *hidden);
                self.layers.push(Layer::Dropout(6));
                self.linear("fc7", *hidden);
            }
            Body::Resnet { block, blocks, width } => self.resnet(*block, *blocks, *width),
        }
    }

    fn end_stage(&mut self) {
        self.stages.push(self.layers.len());
    }

    /// Returns a convolution of the result so far, with a bias and a ReLU.
    fn conv(&self, name: &str, out: usize, kernel: usize, stride: usize, padding: usize) -> Conv {
        let (name, channels) = (format!("backbone.{name}"), [self.shape[0], out]);
        Conv { name, norm: None, channels, kernel, stride, padding, groups: 1, relu: true, pool: None }
    }

    fn push(&mut self, conv: Conv) {
        self.shape = conv.out(self.shape);
        self.layers.push(Layer::Conv(conv));
    }

    fn pool(&mut self, kernel: usize, stride: usize, padding: usize) {
        let pool = Pool { kernel, stride, padding };
        self.shape = pool.out(self.shape);
        self.layers.push(Layer::Pool(pool));
    }

    fn linear(&mut self, name: &str, n_out: usize) {
        let shape = [n_out, product(self.shape)];
        // Missing positions stay missing.
        let positions = usize::from(!self.shape.contains(&0));
        self.shape = [n_out, positions, 1];
        self.layers.push(Layer::Linear { name: format!("backbone.{name}"), shape });
        self.end_stage();
    }

    fn alexnet(&mut self, variant: Alexnet, &[c1, c2, c3, c4, c5]: &[usize; 5], hidden: usize) {
        let caffe = variant == Alexnet::Caffe;
        let groups = if caffe { 2 } else { 1 };
        self.push(self.conv("conv1", c1, 11, 4, if caffe { 0 } else { 2 }));
        self.layers.extend(caffe.then_some(Layer::ResponseNorm));
        self.pool(3, 2, 0);
        self.end_stage();
        self.push(Conv { groups, ..self.conv("conv2", c2, 5, 1, 2) });
        self.layers.extend(caffe.then_some(Layer::ResponseNorm));
        self.pool(3, 2, 0);
        self.end_stage();
        self.push(self.conv("conv3", c3, 3, 1, 1));
        self.end_stage();
        self.push(Conv { groups, ..self.conv("conv4", c4, 3, 1, 1) });
        self.end_stage();
        let pool = Some(Pool { kernel: 3, stride: 2, padding: 0 });
        self.push(Conv { groups, pool, ..self.conv("conv5", c5, 3, 1, 1) });
        self.end_stage();
        self.linear("fc6", hidden);
        self.layers.push(Layer::Dropout(6));
        self.linear("fc7", hidden);
    }

    fn resnet(&mut self, block: Block, blocks: [usize; 4], width: usize) {
        let normed = |conv: Conv, norm: String, relu| Conv {
            norm: Some((format!("backbone.{norm}"), StageOrder::ConvNormReluPool)),
            relu,
            ..conv
        };
        self.push(normed(self.conv("conv1", width, 7, 2, 3), "bn1".to_owned(), true));
        self.pool(3, 2, 1);
        for (stage, n_blocks) in blocks.into_iter().enumerate() {
            for i in 0..n_blocks {
                let name = format!("layer{}.{i}", stage + 1);
                let (narrow, stride) = (width << stage, if i == 0 && stage > 0 { 2 } else { 1 });
                let sizes = match block {
                    Block::Basic => vec![(narrow, 3, stride), (narrow, 3, 1)],
                    Block::Bottleneck => vec![(narrow, 1, 1), (narrow, 3, stride), (4 * narrow, 1, 1)],
                };
                let (wide, last) = (sizes[sizes.len() - 1].0, sizes.len() - 1);
                let shortcut = (stride > 1 || self.shape[0] != wide).then(|| {
                    let conv = self.conv(&format!("{name}.downsample.0"), wide, 1, stride, 0);
                    normed(conv, format!("{name}.downsample.1"), false)
                });
                let block = sizes.into_iter().enumerate().map(|(at, (out, kernel, stride))| {
                    let (conv, norm) = (format!("{name}.conv{}", at + 1), format!("{name}.bn{}", at + 1));
                    let conv = normed(self.conv(&conv, out, kernel, stride, kernel / 2), norm, at < last);
                    self.shape = conv.out(self.shape);
                    conv
                });
                let block = block.collect();
                self.layers.push(Layer::Residual { block, shortcut });
            }
            self.end_stage();
        }
        self.layers.push(Layer::Mean);
        self.shape = [self.shape[0], self.shape[1].min(1), self.shape[2].min(1)];
    }
}

impl Layer {
    fn convolutions(&self) -> impl Iterator<Item = &Conv> {
        let (block, shortcut): (&[Conv], _) = match self {
            Self::Conv(conv) => (slice::from_ref(conv), None),
            Self::Residual { block, shortcut } => (block, shortcut.as_ref()),
            _ => (&[], None),
        };
        block.iter().chain(shortcut)
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
