//! Builds the layers of a body.

use super::{Conv, Layer, Pool};
use crate::config::{Alexnet, Block, Body, Pooling, Pyramid, StageOrder};

/// Pooling that halves an image.
const POOL_2: Pool = Pool { kernel: 2, stride: 2, padding: 0 };

/// Multiplies sizes. A product that overflows saturates, and so fits no section of a file.
pub(super) fn product(shape: [usize; 3]) -> usize {
    shape.into_iter().fold(1, usize::saturating_mul)
}

/// The layers so far, the shape `[c, h, w]` of their result, the ends of stages, and the shapes of
/// the results of stages of convolutions.
pub(super) struct Builder {
    pub(super) shape: [usize; 3],
    pub(super) layers: Vec<Layer>,
    pub(super) stages: Vec<usize>,
    maps: Vec<[usize; 3]>,
}

impl Builder {
    pub(super) fn new(shape: [usize; 3]) -> Self {
        Self { shape, layers: Vec::new(), stages: Vec::new(), maps: Vec::new() }
    }

    pub(super) fn body(&mut self, body: &Body) {
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
        self.maps.push(self.shape);
    }

    /// Replaces the last stages of convolutions and everything above them.
    pub(super) fn pyramid(&mut self, Pyramid { stages: n, pooling }: Pyramid) {
        // The configuration was checked: there are so many stages, and no others are maps.
        let first = self.maps.len() - n;
        let ends = self.stages[first..self.maps.len()].to_vec();
        self.layers.truncate(ends[n - 1]);
        let mut stages = Vec::new();
        for i in (0..n).rev() {
            let begin = (first + i).checked_sub(1).map_or(0, |before| self.stages[before]);
            stages.push(self.layers.split_off(begin));
        }
        stages.reverse();
        self.layers.push(Layer::Pyramid { stages, pooling });
        self.stages.truncate(first);
        let maps = &self.maps[first..];
        let n_channels: usize = maps.iter().map(|[channels, ..]| channels).sum();
        let per_channel = if pooling == Pooling::Both { 2 } else { 1 };
        // Missing positions stay missing.
        let positions = usize::from(maps.iter().all(|map| !map.contains(&0)));
        self.shape = [per_channel * n_channels, positions, 1];
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
        self.stages.push(self.layers.len());
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
