//! Convolutions of every way to compute them against a naive one in f64.

use candle_core::{Device, Tensor, Var};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::conv2d;

/// A convolution: images, input channels, height, width; output channels, side of the kernel;
/// stride, padding.
type Shape = ([usize; 4], [usize; 2], [usize; 2]);

/// Winograd's method: tiles of 4 × 4, of 2 × 2, cut images, groups of images, one image with
/// several parts.
const WINOGRAD: [Shape; 7] = [
    ([1, 64, 1, 1], [64, 3], [1, 1]),
    ([2, 80, 7, 9], [64, 3], [1, 1]),
    ([5, 64, 2, 2], [96, 3], [1, 1]),
    ([3, 64, 5, 6], [64, 3], [1, 0]),
    ([2, 64, 3, 5], [64, 3], [1, 2]),
    ([16, 64, 15, 14], [64, 3], [1, 1]),
    ([4, 64, 30, 30], [64, 3], [1, 1]),
];

/// Many channels: strides on even and odd sides, 1 × 1, more rows than one group has.
const WIDE: [Shape; 6] = [
    ([19, 64, 9, 8], [24, 3], [2, 1]),
    ([50, 64, 4, 4], [70, 3], [2, 1]),
    ([3, 66, 7, 7], [7, 1], [2, 0]),
    ([2, 64, 5, 5], [9, 1], [1, 0]),
    ([9, 64, 22, 23], [8, 1], [1, 0]),
    ([2, 65, 6, 5], [33, 5], [1, 2]),
];

/// Few channels: small images, and one whose patches take several bands.
const NARROW: [Shape; 4] = [
    ([20, 3, 8, 8], [24, 7], [2, 3]),
    ([2, 3, 90, 95], [16, 7], [2, 3]),
    ([2, 20, 40, 41], [6, 5], [1, 2]),
    ([3, 1, 6, 7], [2, 3], [2, 1]),
];

fn random(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// The result of a convolution of x with a weight, and the gradients of both, given that of the
/// result.
struct Naive {
    y: Vec<f64>,
    x: Vec<f64>,
    weight: Vec<f64>,
}

fn naive(shape: Shape, x: &[f32], weight: &[f32], grad: &[f32]) -> Naive {
    let ([batch, ci, h, w], [co, kernel], [stride, padding]) = shape;
    let [oh, ow] = [h, w].map(|len| (len + 2 * padding - kernel) / stride + 1);
    let mut out =
        Naive { y: vec![0.0; batch * co * oh * ow], x: vec![0.0; x.len()], weight: vec![0.0; weight.len()] };
    for (at, grad) in grad.iter().enumerate() {
        let (image, o, i, j) = (at / (co * oh * ow), at / (oh * ow) % co, at / ow % oh, at % ow);
        for tap in 0..ci * kernel * kernel {
            let (c, u, v) = (tap / (kernel * kernel), tap / kernel % kernel, tap % kernel);
            let row = (i * stride + u).wrapping_sub(padding);
            let column = (j * stride + v).wrapping_sub(padding);
            if row < h && column < w {
                let x_at = ((image * ci + c) * h + row) * w + column;
                let weight_at = o * ci * kernel * kernel + tap;
                out.y[at] += f64::from(x[x_at]) * f64::from(weight[weight_at]);
                out.x[x_at] += f64::from(*grad) * f64::from(weight[weight_at]);
                out.weight[weight_at] += f64::from(*grad) * f64::from(x[x_at]);
            }
        }
    }
    out
}

/// The result, and the gradients of x, weight and bias.
fn ours(
    [x, weight, grad]: [&[f32]; 3],
    bias: &[f32],
    (x_shape, [co, k], [stride, padding]): Shape,
) -> Vec<Vec<f32>> {
    let var = |values: &[f32], shape: &[usize]| {
        Var::from_tensor(&Tensor::from_slice(values, shape, &Device::Cpu).unwrap()).unwrap()
    };
    let (x, weight) = (var(x, &x_shape), var(weight, &[co, x_shape[1], k, k]));
    let bias = var(bias, &[co]);
    let y = conv2d(&x, &weight, Some(&bias), [stride, padding], None, false).unwrap();
    let grad = Tensor::from_slice(grad, y.shape(), &Device::Cpu).unwrap();
    let gradients = y.mul(&grad).unwrap().sum_all().unwrap().backward().unwrap();
    let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1().unwrap();
    let gradient = |var: &Var| flat(gradients.get(var).unwrap());
    vec![flat(&y), gradient(&x), gradient(&weight), gradient(&bias)]
}

fn arguments(shape: Shape) -> [Vec<f32>; 4] {
    let ([batch, ci, h, w], [co, kernel], [stride, padding]) = shape;
    let positions: usize = [h, w].map(|len| (len + 2 * padding - kernel) / stride + 1).iter().product();
    let lens = [batch * ci * h * w, co * ci * kernel * kernel, batch * co * positions, co];
    let mut seed = 0;
    lens.map(|len| {
        seed += 1;
        random(len, seed)
    })
}

#[track_caller]
fn assert_close(ours: &[f32], naive: &[f64], what: &str, shape: Shape) {
    // Relative to the root of the mean square, because single results can be near 0.
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let size = (square(&mut naive.iter().copied()) / naive.len() as f64).sqrt();
    assert_eq!(ours.len(), naive.len());
    let mut differences = ours.iter().zip(naive).map(|(&a, b)| f64::from(a) - b);
    let error = (square(&mut differences) / naive.len() as f64).sqrt() / size;
    assert!(error < 2e-6, "{what} of {shape:?}: relative error {error:e}");
    let largest = ours.iter().zip(naive).map(|(&a, b)| (f64::from(a) - b).abs()).fold(0.0, f64::max);
    assert!(largest < 2e-5 * size, "{what} of {shape:?}: {largest:e} of {size}");
}

#[test]
fn convolutions_and_gradients_are_those_of_f64() {
    for shape in WINOGRAD.into_iter().chain(WIDE).chain(NARROW) {
        let [x, weight, grad, bias] = arguments(shape);
        let [y, grad_x, grad_weight, grad_bias] =
            ours([&x, &weight, &grad], &bias, shape).try_into().unwrap();
        let mut naive = naive(shape, &x, &weight, &grad);
        let co = bias.len();
        let positions = y.len() / (co * shape.0[0]);
        let mut sums = vec![0.0; co];
        for (at, value) in naive.y.iter_mut().enumerate() {
            let channel = at / positions % co;
            *value += f64::from(bias[channel]);
            sums[channel] += f64::from(grad[at]);
        }
        assert_close(&y, &naive.y, "the result", shape);
        assert_close(&grad_x, &naive.x, "the gradient of x", shape);
        assert_close(&grad_weight, &naive.weight, "the gradient of the weight", shape);
        assert_close(&grad_bias, &sums, "the gradient of the bias", shape);
    }
}

#[test]
fn the_thread_count_does_not_change_a_bit() {
    for shape in WINOGRAD.into_iter().chain(WIDE).chain(NARROW) {
        let [x, weight, grad, bias] = arguments(shape);
        let run = |n_threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
            let results = pool.install(|| ours([&x, &weight, &grad], &bias, shape));
            results.concat().into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let one = run(1);
        assert!(one == run(2) && one == run(3), "{shape:?}");
    }
}

#[test]
fn a_relu_masks_the_gradients_of_every_way() {
    for shape in [WINOGRAD[1], WINOGRAD[2], WIDE[0], NARROW[0]] {
        let [x, weight, grad, bias] = arguments(shape);
        let (x_shape, [co, k], [stride, padding]) = shape;
        let tensor =
            |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
        let x = Var::from_tensor(&tensor(&x, &x_shape)).unwrap();
        let weight = Var::from_tensor(&tensor(&weight, &[co, x_shape[1], k, k])).unwrap();
        let bias = tensor(&bias, &[co]);
        let gradients = |relu: bool| {
            let y = conv2d(&x, &weight, Some(&bias), [stride, padding], None, relu).unwrap();
            let y = if relu { y } else { y.relu().unwrap() };
            let loss = y.mul(&tensor(&grad, y.dims())).unwrap().sum_all().unwrap();
            let gradients = loss.backward().unwrap();
            [&x, &weight]
                .map(|var| gradients.get(var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap())
        };
        assert_eq!(gradients(true), gradients(false), "{shape:?}");
    }
}
