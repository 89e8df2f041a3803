//! Bodies against plain loops in f64, and their gradients against finite differences of those.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor, Var};
use rand_chacha::ChaCha8Rng;

use super::{Heads, Network, Pass, Tensors, body};
use crate::TrainConfig;
use crate::body::Layers;
use crate::config::{Alexnet, Backbone, Block, Body, Moments, NetworkConfig, StageOrder};
use crate::rng::{Stream, normal, rng, uniform};

mod pyramid;

/// An image `[c, h, w]` and its values.
pub(crate) struct Map {
    pub(crate) shape: [usize; 3],
    pub(crate) values: Vec<f64>,
}

/// Weights by name, as f64.
pub(crate) type Weights = BTreeMap<String, Vec<f64>>;

impl Map {
    /// The value at a place, `outside` beyond the border.
    fn at(&self, c: usize, y: isize, x: isize, outside: f64) -> f64 {
        let [_, h, w] = self.shape;
        let inside = (0..h as isize).contains(&y) && (0..w as isize).contains(&x);
        if inside { self.values[(c * h + y as usize) * w + x as usize] } else { outside }
    }

    pub(crate) fn map(&self, f: impl Fn(usize, f64) -> f64) -> Self {
        let n = self.shape[1] * self.shape[2];
        let values = self.values.iter().enumerate().map(|(i, &x)| f(i / n, x)).collect();
        Self { shape: self.shape, values }
    }

    pub(crate) fn relu(&self) -> Self {
        self.map(|_, x| x.max(0.0))
    }

    /// Calls `f` with the channel and the corner of each window.
    fn windows(
        &self,
        n_out: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
        f: impl Fn(usize, isize, isize) -> f64,
    ) -> Self {
        let [_, h, w] = self.shape;
        let [h, w] = [h, w].map(|n| (n + 2 * padding - kernel) / stride + 1);
        let mut values = Vec::new();
        for c in 0..n_out {
            for y in 0..h {
                for x in 0..w {
                    let corner = |i: usize| (i * stride) as isize - padding as isize;
                    values.push(f(c, corner(y), corner(x)));
                }
            }
        }
        Self { shape: [n_out, h, w], values }
    }

    /// `weight` is `[out, in / groups, kernel, kernel]`.
    pub(crate) fn conv(
        &self,
        weight: &[f64],
        n_out: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
        groups: usize,
    ) -> Self {
        let n_in = self.shape[0] / groups;
        let taps = || {
            (0..n_in).flat_map(move |c| (0..kernel * kernel).map(move |tap| (c, tap / kernel, tap % kernel)))
        };
        self.windows(n_out, kernel, stride, padding, |out, y, x| {
            let first = out / (n_out / groups) * n_in;
            let weight = &weight[out * n_in * kernel * kernel..];
            let terms = taps().zip(weight);
            terms.map(|((c, i, j), w)| w * self.at(first + c, y + i as isize, x + j as isize, 0.0)).sum()
        })
    }

    pub(crate) fn bias(&self, bias: &[f64]) -> Self {
        self.map(|c, x| x + bias[c])
    }

    pub(crate) fn pool(&self, kernel: usize, stride: usize, padding: usize) -> Self {
        self.windows(self.shape[0], kernel, stride, padding, |c, y, x| {
            let tap = |tap: usize| {
                self.at(c, y + (tap / kernel) as isize, x + (tap % kernel) as isize, f64::NEG_INFINITY)
            };
            (0..kernel * kernel).map(tap).fold(f64::NEG_INFINITY, f64::max)
        })
    }

    pub(crate) fn response_norm(&self) -> Self {
        let [channels, h, w] = self.shape;
        let mut values = self.values.clone();
        for (i, value) in values.iter_mut().enumerate() {
            let (c, place) = (i / (h * w), i % (h * w));
            let window = c.saturating_sub(2)..(c + 3).min(channels);
            let squares: f64 = window.map(|c| self.values[c * h * w + place].powi(2)).sum();
            *value *= (1.0 + 1e-4 / 5.0 * squares).powf(-0.75);
        }
        Self { shape: self.shape, values }
    }

    fn linear(&self, weights: &Weights, name: &str) -> Self {
        let weight = &weights[&format!("backbone.{name}.weight")];
        let rows = weight.chunks_exact(self.values.len());
        let sums = rows.zip(&weights[&format!("backbone.{name}.bias")]);
        let values: Vec<f64> = sums
            .map(|(row, bias)| bias + row.iter().zip(&self.values).map(|(w, x)| w * x).sum::<f64>())
            .collect();
        Self { shape: [values.len(), 1, 1], values }.relu()
    }
}

fn alexnet(variant: Alexnet, c: [usize; 5], weights: &Weights, x: &Map) -> Map {
    let caffe = variant == Alexnet::Caffe;
    let groups = if caffe { 2 } else { 1 };
    let conv = |x: &Map, i: usize, kernel, stride, padding, groups| {
        let [weight, bias] = ["weight", "bias"].map(|kind| &weights[&format!("backbone.conv{i}.{kind}")]);
        x.conv(weight, c[i - 1], kernel, stride, padding, groups).bias(bias).relu()
    };
    let norm = |x: Map| if caffe { x.response_norm() } else { x };
    let x = norm(conv(x, 1, 11, 4, if caffe { 0 } else { 2 }, 1)).pool(3, 2, 0);
    let x = norm(conv(&x, 2, 5, 1, 2, groups)).pool(3, 2, 0);
    let x = conv(&conv(&x, 3, 3, 1, 1, 1), 4, 3, 1, 1, groups);
    conv(&x, 5, 3, 1, 1, groups).pool(3, 2, 0).linear(weights, "fc6").linear(weights, "fc7")
}

fn vgg(c: [usize; 5], weights: &Weights, x: &Map) -> Map {
    let mut x = x.map(|_, x| x);
    for (stage, n) in [2, 2, 3, 3, 3].into_iter().enumerate() {
        for i in 1..=n {
            let get = |kind: &str| &weights[&format!("backbone.conv{}_{i}.{kind}", stage + 1)];
            x = x.conv(get("weight"), c[stage], 3, 1, 1, 1).bias(get("bias")).relu();
        }
        x = x.pool(2, 2, 0);
    }
    x.linear(weights, "fc6").linear(weights, "fc7")
}

fn resnet(block: Block, blocks: [usize; 4], width: usize, weights: &Weights, x: &Map) -> Map {
    let conv = |x: &Map, names: [String; 2], n_out: usize, kernel: usize, stride: usize| {
        let [conv, norm] = names.map(|name| format!("backbone.{name}"));
        let y = x.conv(&weights[&format!("{conv}.weight")], n_out, kernel, stride, kernel / 2, 1);
        let [gamma, beta, mean, var] =
            ["gamma", "beta", "mean", "var"].map(|kind| &weights[&format!("{norm}.{kind}")]);
        y.map(|c, x| (x - mean[c]) / (var[c] + 1e-5).sqrt() * gamma[c] + beta[c])
    };
    let mut x = conv(x, ["conv1".into(), "bn1".into()], width, 7, 2).relu().pool(3, 2, 1);
    for (stage, n) in blocks.into_iter().enumerate() {
        for i in 0..n {
            let at = |name: &str| format!("layer{}.{i}.{name}", stage + 1);
            let (narrow, stride) = (width << stage, if i == 0 && stage > 0 { 2 } else { 1 });
            let y = match block {
                Block::Basic => {
                    let y = conv(&x, [at("conv1"), at("bn1")], narrow, 3, stride).relu();
                    conv(&y, [at("conv2"), at("bn2")], narrow, 3, 1)
                }
                Block::Bottleneck => {
                    let y = conv(&x, [at("conv1"), at("bn1")], narrow, 1, 1).relu();
                    let y = conv(&y, [at("conv2"), at("bn2")], narrow, 3, stride).relu();
                    conv(&y, [at("conv3"), at("bn3")], 4 * narrow, 1, 1)
                }
            };
            if y.shape != x.shape {
                x = conv(&x, [at("downsample.0"), at("downsample.1")], y.shape[0], 1, stride);
            }
            let sums: Vec<f64> = y.values.iter().zip(&x.values).map(|(y, x)| y + x).collect();
            x = Map { shape: y.shape, values: sums }.relu();
        }
    }
    let n = x.shape[1] * x.shape[2];
    let values = x.values.chunks_exact(n).map(|plane| plane.iter().sum::<f64>() / n as f64).collect();
    Map { shape: [x.shape[0], 1, 1], values }
}

fn stages_of_small(of: &Body, weights: &Weights, x: &Map) -> Map {
    let Body::Small { channels, pools, order, .. } = of else { unreachable!() };
    let mut x = x.map(|_, x| x);
    for (i, &n_out) in channels.iter().enumerate() {
        let norm = |x: Map| {
            let [gamma, beta, mean, var] =
                ["gamma", "beta", "mean", "var"].map(|kind| &weights[&format!("backbone.norm.{i}.{kind}")]);
            x.map(|c, x| (x - mean[c]) / (var[c] + 1e-5).sqrt() * gamma[c] + beta[c]).relu()
        };
        let y = x.conv(&weights[&format!("backbone.conv.{i}.weight")], n_out, 3, 1, 1, 1);
        x = match (i < *pools, order) {
            (true, StageOrder::ConvPoolNormRelu) => norm(y.pool(2, 2, 0)),
            (true, StageOrder::ConvNormReluPool) => norm(y).pool(2, 2, 0),
            (false, _) => norm(y),
        };
    }
    x
}

pub(crate) fn reference(of: &Body, weights: &Weights, x: &Map) -> Map {
    match *of {
        Body::Alexnet { variant, channels, .. } => alexnet(variant, channels, weights, x),
        Body::Vgg16 { channels, .. } => vgg(channels, weights, x),
        Body::Resnet { block, blocks, width } => resnet(block, blocks, width, weights, x),
        Body::Small { .. } => stages_of_small(of, weights, x).linear(weights, "hidden"),
        Body::Features => unreachable!(),
    }
}

pub(crate) fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

pub(crate) fn to_f64(tensors: &Tensors) -> Weights {
    let tensors = tensors.iter();
    tensors.map(|(name, x)| (name.clone(), values(x).into_iter().map(f64::from).collect())).collect()
}

/// Residual networks of few channels, one of each kind of block. The first is ResNet-50.
pub(crate) const SMALL_RESNETS: [Body; 2] = [
    Body::Resnet { block: Block::Bottleneck, blocks: [3, 4, 6, 3], width: 2 },
    Body::Resnet { block: Block::Basic, blocks: [2, 1, 1, 3], width: 3 },
];

/// A network with biases and moments that are not 0 and 1, and an image of pixels around 0 as large
/// as bytes.
pub(crate) fn network(of: &Body, side: usize) -> (Network, Map) {
    let (backbone, body) = (Backbone::Trained, of.clone());
    let config = NetworkConfig { backbone, dropout: 0.0, dim: 3, body, ..TrainConfig::best().network };
    let config = TrainConfig { network: config, ..TrainConfig::best() };
    let shape = [3, side, side];
    let mut network = Network::new(&config, shape, 2, &Device::Cpu).unwrap();
    let mut rng: ChaCha8Rng = rng(2, Stream::Weights);
    let mut tensors = network.tensors();
    for (name, tensor) in &mut tensors {
        let mut vary = |x: f32| match name.rsplit('.').next() {
            Some("bias") => 5.0 * normal(&mut rng) as f32,
            Some("gamma" | "var") => 0.5 + uniform(&mut rng) as f32,
            Some("beta" | "mean") => 0.5 * normal(&mut rng) as f32,
            _ => x,
        };
        let varied: Vec<f32> = values(tensor).into_iter().map(&mut vary).collect();
        *tensor = Tensor::from_vec(varied, tensor.shape(), &Device::Cpu).unwrap();
    }
    network.set(&tensors).unwrap();
    let pixels = (0..3 * side * side).map(|_| f64::from(240.0 * uniform(&mut rng) as f32 - 120.0)).collect();
    (network, Map { shape, values: pixels })
}

fn tensor(x: &Map) -> Tensor {
    let [c, h, w] = x.shape;
    let values: Vec<f32> = x.values.iter().map(|&x| x as f32).collect();
    Tensor::from_vec(values, (1, c, h, w), &Device::Cpu).unwrap()
}

pub(crate) fn small_alexnet(variant: Alexnet) -> Body {
    Body::Alexnet { variant, channels: [6, 8, 10, 8, 6], hidden: 12 }
}

/// One body of each kind, and the side of its images.
fn bodies() -> impl Iterator<Item = (Body, usize)> {
    let small = [StageOrder::ConvPoolNormRelu, StageOrder::ConvNormReluPool];
    let small = small.map(|order| (Body::Small { channels: vec![4, 6, 5], pools: 2, order, hidden: 9 }, 13));
    let cases = [
        (small_alexnet(Alexnet::Caffe), 99),
        (small_alexnet(Alexnet::Torchvision), 98),
        (Body::Vgg16 { channels: [2, 3, 4, 3, 4], hidden: 9 }, 70),
    ];
    small.into_iter().chain(cases).chain(SMALL_RESNETS.map(|of| (of, 65)))
}

#[test]
fn bodies_equal_plain_loops() {
    for (of, side) in bodies() {
        let (network, x) = network(&of, side);
        let tensors = network.tensors();
        let Layers { layers, dim, .. } = Layers::new(&network.config, x.shape).unwrap();
        let folded = body::fold(&layers, &tensors).unwrap();
        let found = values(&body::forward(&layers, &tensor(&x), &mut Pass::Inference(&folded)).unwrap());
        let expected = reference(&of, &to_f64(&tensors), &x).values;
        assert_eq!((found.len(), expected.len()), (dim, dim));
        let largest = expected.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
        assert!(largest > 1.0 && expected.iter().filter(|&&x| x > 0.0).count() > dim / 4, "{expected:?}");
        for (a, b) in found.into_iter().zip(expected) {
            assert!((f64::from(a) - b).abs() < 1e-4 * largest, "{of:?}: {a}, expected {b}");
        }
    }
}

/// Inference has a gradient of its input, through every kind of layer, and none of its weights.
#[test]
fn gradients_of_pixels_equal_finite_differences() {
    // Enough channels for Winograd's method.
    let order = StageOrder::ConvPoolNormRelu;
    let wide = (Body::Small { channels: vec![64, 66], pools: 1, order, hidden: 9 }, 12);
    for (of, side) in bodies().chain([wide]) {
        let (network, x) = network(&of, side);
        let tensors = network.tensors();
        let layers = Layers::new(&network.config, x.shape).unwrap().layers;
        let folded = body::fold(&layers, &tensors).unwrap();
        let input = Var::from_tensor(&tensor(&x)).unwrap();
        let f = body::forward(&layers, &input, &mut Pass::Inference(&folded)).unwrap();
        let gradients = f.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let gradient = values(gradients.get(&input).unwrap());
        let weights = to_f64(&tensors);
        let at_step = |at: usize, step: f64| -> f64 {
            let mut moved = x.map(|_, x| x);
            moved.values[at] += step;
            reference(&of, &weights, &moved).values.iter().map(|f| f * f).sum()
        };
        let mut places: Vec<usize> = (0..gradient.len()).collect();
        places.sort_by(|&a, &b| gradient[b].abs().total_cmp(&gradient[a].abs()));
        let largest = f64::from(gradient[places[0]].abs());
        assert!(largest > 0.0, "{of:?}");
        for at in places.into_iter().step_by(gradient.len().div_ceil(9)) {
            let expected = (at_step(at, 1e-5) - at_step(at, -1e-5)) / 2e-5;
            let found = f64::from(gradient[at]);
            assert!((found - expected).abs() < 1e-3 * largest, "{of:?}, {at}: {found}, expected {expected}");
        }
    }
}

#[test]
fn gradients_of_alexnet_equal_finite_differences() {
    for variant in [Alexnet::Caffe, Alexnet::Torchvision] {
        let of = small_alexnet(variant);
        let (mut network, x) = network(&of, 67);
        let weights = to_f64(&network.tensors());
        let input = tensor(&x);
        let logits = network.forward_train(&input, 1).unwrap().logits;
        let gradients = logits.sum_all().unwrap().backward().unwrap();
        // The sum of the logits as the reference has it.
        let loss = |weights: &Weights| -> f64 {
            let f = reference(&of, weights, &x).values;
            let rows = weights["classifier.weight"].chunks_exact(f.len()).zip(&weights["classifier.bias"]);
            rows.map(|(row, bias)| bias + row.iter().zip(&f).map(|(w, f)| w * f).sum::<f64>()).sum()
        };
        for (name, var) in network.body.iter().chain(&network.heads) {
            let Some(gradient) = gradients.get(var) else {
                assert!(name.starts_with("embed."));
                continue;
            };
            let gradient = values(gradient);
            let largest = gradient.iter().fold(0.0, |largest: f32, x| largest.max(x.abs()));
            assert!(largest > 0.0, "{name} has no gradient");
            for at in (0..gradient.len()).step_by(gradient.len().div_ceil(7)) {
                let mut moved = weights.clone();
                let mut at_step = |step: f64| {
                    moved.get_mut(name).unwrap()[at] = weights[name][at] + step;
                    loss(&moved)
                };
                let expected = (at_step(1e-6) - at_step(-1e-6)) / 2e-6;
                let found = f64::from(gradient[at]);
                assert!(
                    (found - expected).abs() < 1e-2 * (expected.abs() + 1e-2 * f64::from(largest)),
                    "{name}, {at}: {found}, expected {expected}"
                );
            }
        }
    }
}

#[test]
fn stored_moments_become_a_part_of_the_weights() {
    for of in SMALL_RESNETS {
        let (mut network, x) = network(&of, 65);
        let input = tensor(&x);
        let logits = |heads: Heads| values(&heads.logits);
        let expected = logits(network.forward(&input).unwrap());
        network.config.moments = Moments::Stored;
        let mut weights = network.tensors();
        weights.retain(|name, _| name.starts_with("backbone."));
        let weights = weights.into_iter().map(|(name, tensor)| (name, tensor.copy().unwrap())).collect();
        network.start_from(weights).unwrap();
        let (inference, training) =
            (network.forward(&input).unwrap(), network.forward_train(&input, 1).unwrap());
        let gradients = training.logits.sum_all().unwrap().backward().unwrap();
        for (name, var) in &network.body {
            assert_eq!(gradients.get(var).is_some(), !name.ends_with(".gamma"), "{name}");
        }
        let largest = expected.iter().fold(0.0, |largest: f32, x| largest.max(x.abs()));
        for found in [logits(inference), logits(training)] {
            for (a, b) in found.iter().zip(&expected) {
                assert!((a - b).abs() < 1e-4 * largest, "{a}, expected {b}");
            }
        }
    }
}

#[test]
fn images_too_small_are_refused() {
    let bodies = [
        small_alexnet(Alexnet::Caffe),
        small_alexnet(Alexnet::Torchvision),
        Body::Vgg16 { channels: [2, 3, 4, 3, 4], hidden: 9 },
    ];
    for of in bodies.into_iter().chain(SMALL_RESNETS) {
        let config = NetworkConfig { body: of.clone(), ..TrainConfig::best().network };
        let fits = |side| Layers::new(&config, [3, side, side]).is_ok();
        assert!(fits(227) && fits(224), "{of:?}");
        let minimum = (1..227).find(|&side| fits(side)).unwrap();
        assert!((minimum..227).all(fits), "{of:?}: {minimum} fits, a larger one does not");
        assert_eq!(fits(30), matches!(of, Body::Resnet { .. }), "{of:?}");
    }
}
