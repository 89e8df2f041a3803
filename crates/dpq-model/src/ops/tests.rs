//! The operations against finite differences, against candle's own where those are right, and
//! against themselves at other thread counts.

use candle_core::{Device, Result, Tensor, Var};
use candle_nn::Module;
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{add_relu, batch_norm, conv2d, linear, max_pool2d, response, response_norm, scale_shift};

/// Values in [−1, 1).
fn random(shape: &[usize], seed: u64) -> Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// All different, by at least 0.1, so that a small step never changes which one is largest.
fn spaced(shape: &[usize], seed: u64) -> Tensor {
    let n: usize = shape.iter().product();
    let mut values: Vec<f32> = (0..n).map(|i| (i as f32 - n as f32 / 2.0) * 0.1).collect();
    values.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn bits(tensors: &[Tensor]) -> Vec<u32> {
    tensors.iter().flat_map(flat).map(f32::to_bits).collect()
}

#[track_caller]
fn assert_close(a: &Tensor, b: &Tensor, tolerance: f32) {
    assert_eq!(a.dims(), b.dims());
    let (a, b) = (flat(a), flat(b));
    let largest = b.iter().fold(0.0f32, |max, value| max.max(value.abs()));
    for (i, (a, b)) in a.iter().zip(&b).enumerate() {
        assert!((a - b).abs() <= tolerance * largest, "element {i}: {a} and {b}, largest {largest}");
    }
}

/// The result of `f`, and the gradients of its scalar product with a fixed random tensor.
fn result_and_gradients(args: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) -> Vec<Tensor> {
    let vars: Vec<Var> = args.iter().map(|arg| Var::from_tensor(arg).unwrap()).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let y = f(&tensors).unwrap();
    let grads = y.mul(&random(y.dims(), 99)).unwrap().sum_all().unwrap().backward().unwrap();
    let mut results = vec![y.detach()];
    results.extend(tensors.iter().map(|tensor| grads.get(tensor).unwrap().clone()));
    results
}

/// Compares every element of every gradient with the central difference over a step of `step`. The
/// scalar product is summed in f64.
#[track_caller]
fn check_gradients(args: &[Tensor], step: f32, tolerance: f32, f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let results = result_and_gradients(args, &f);
    let weights = flat(&random(results[0].dims(), 99));
    let loss = |args: &[Tensor]| -> f64 {
        let y = flat(&f(args).unwrap());
        y.iter().zip(&weights).map(|(&y, &weight)| f64::from(y) * f64::from(weight)).sum()
    };
    for (i, gradient) in results[1..].iter().enumerate() {
        let moved = |j: usize, by: f32| {
            let (mut values, mut args) = (flat(&args[i]), args.to_vec());
            values[j] += by;
            args[i] = Tensor::from_vec(values, args[i].shape(), &Device::Cpu).unwrap();
            loss(&args)
        };
        let differences: Vec<f32> = (0..args[i].elem_count())
            .map(|j| ((moved(j, step) - moved(j, -step)) / (2.0 * f64::from(step))) as f32)
            .collect();
        let differences = Tensor::from_vec(differences, args[i].shape(), &Device::Cpu).unwrap();
        assert_close(gradient, &differences, tolerance);
    }
}

/// (x, weight, stride, padding)
const CONVOLUTIONS: [([usize; 4], [usize; 4], usize, usize); 8] = [
    ([2, 1, 6, 6], [4, 1, 3, 3], 1, 1),
    ([3, 2, 5, 7], [3, 2, 3, 3], 1, 1),
    ([1, 9, 4, 4], [17, 9, 3, 3], 1, 1),
    ([2, 3, 7, 8], [2, 3, 3, 2], 2, 0),
    ([2, 2, 9, 9], [3, 2, 5, 5], 2, 2),
    ([1, 3, 11, 11], [2, 3, 4, 4], 4, 1),
    ([2, 4, 3, 3], [5, 4, 1, 1], 1, 0),
    ([2, 2, 3, 4], [3, 2, 3, 4], 1, 0),
];

#[test]
fn convolution_gradients_are_finite_differences() {
    for (i, (x, weight, stride, padding)) in CONVOLUTIONS.into_iter().enumerate() {
        let seed = 10 * i as u64;
        let args = [random(&x, seed), random(&weight, seed + 1), random(&weight[..1], seed + 2)];
        check_gradients(&args, 0.1, 1e-4, |args| {
            conv2d(&args[0], &args[1], Some(&args[2]), [stride, padding], None, false)
        });
    }
}

#[test]
fn convolution_equals_candles() {
    let larger = [([7, 32, 14, 14], [64, 32, 3, 3], 1, 1), ([19, 16, 7, 7], [24, 16, 3, 3], 1, 1)];
    for (x, weight, stride, padding) in CONVOLUTIONS.into_iter().chain(larger) {
        let args = [random(&x, 1), random(&weight, 2)];
        let ours = result_and_gradients(&args, |args| {
            conv2d(&args[0], &args[1], None, [stride, padding], None, false)
        });
        let candles = result_and_gradients(&args, |args| args[0].conv2d(&args[1], padding, stride, 1, 1));
        for (ours, candles) in ours.iter().zip(&candles) {
            assert_close(ours, candles, 1e-5);
        }
    }
}

#[test]
fn fused_relu_equals_a_relu_afterwards() {
    let (x, weight, bias) = (random(&[5, 3, 8, 8], 1), random(&[6, 3, 3, 3], 2), random(&[6], 3));
    let (rows, matrix) = (random(&[70, 9], 4), random(&[65, 9], 5));
    let (vector, gamma) = (random(&[65], 6), random(&[3], 7));
    type Layer<'a> = &'a dyn Fn(&[Tensor], bool) -> Result<Tensor>;
    let layers: [(&[Tensor], Layer); 4] = [
        (&[x.clone(), weight.clone(), bias.clone()], &|args, relu| {
            conv2d(&args[0], &args[1], Some(&args[2]), [1, 1], None, relu)
        }),
        (&[x.clone(), weight, bias], &|args, relu| {
            conv2d(&args[0], &args[1], Some(&args[2]), [1, 1], Some((3, 2)), relu)
        }),
        (&[x, gamma.clone(), gamma], &|args, relu| {
            Ok(batch_norm(&args[0], &args[1], &args[2], 1e-5, relu)?.0)
        }),
        (&[rows, matrix, vector], &|args, relu| linear(&args[0], &args[1], Some(&args[2]), relu)),
    ];
    for (args, f) in layers {
        let fused = result_and_gradients(args, |args| f(args, true));
        let apart = result_and_gradients(args, |args| f(args, false)?.relu());
        for (fused, apart) in fused.iter().zip(&apart) {
            assert_close(fused, apart, 1e-6);
        }
    }
}

#[test]
fn pooling_is_the_maximum_and_its_gradient_a_finite_difference() {
    for (shape, kernel, stride) in [
        ([2, 3, 6, 6], 2, 2),
        ([1, 2, 7, 5], 2, 2),
        ([2, 2, 7, 7], 3, 2),
        ([1, 9, 8, 6], 3, 1),
        ([1, 1, 7, 7], 2, 3),
        ([2, 1, 4, 4], 4, 1),
    ] {
        let x = spaced(&shape, 3);
        let [_, _, h, w] = shape;
        let y = max_pool2d(&x, kernel, [stride, 0]).unwrap();
        assert_eq!(y.dims()[2..], [(h - kernel) / stride + 1, (w - kernel) / stride + 1]);
        let (maxima, planes) = (flat(&y), flat(&x));
        let (out_h, out_w) = (y.dims()[2], y.dims()[3]);
        for (i, maximum) in maxima.iter().enumerate() {
            let (plane, row, column) = (i / (out_h * out_w), i / out_w % out_h * stride, i % out_w * stride);
            let window = (0..kernel * kernel)
                .map(|tap| planes[plane * h * w + (row + tap / kernel) * w + column + tap % kernel]);
            assert_eq!(*maximum, window.fold(f32::MIN, f32::max));
        }
        check_gradients(&[x], 0.01, 1e-4, |args| max_pool2d(&args[0], kernel, [stride, 0]));
    }
}

#[test]
fn the_border_of_pooling_is_never_a_maximum() {
    for (shape, kernel, stride) in [([2, 3, 6, 6], 3, 2), ([1, 9, 7, 5], 3, 2), ([1, 2, 5, 5], 2, 1)] {
        // Negative integers, which zeros would exceed.
        let x = spaced(&shape, 3).affine(10.0, -5000.0).unwrap();
        let y = max_pool2d(&x, kernel, [stride, 1]).unwrap();
        let raised = (&x + 1e4).unwrap().pad_with_zeros(2, 1, 1).unwrap().pad_with_zeros(3, 1, 1).unwrap();
        let raised = max_pool2d(&raised, kernel, [stride, 0]).unwrap();
        assert_close(&y, &(raised - 1e4).unwrap(), 1e-6);
        check_gradients(&[spaced(&shape, 3)], 0.01, 1e-4, |args| max_pool2d(&args[0], kernel, [stride, 1]));
    }
}

#[test]
fn a_residual_sum_is_that_of_candle() {
    let args = [random(&[3, 4, 70, 60], 1), random(&[3, 4, 70, 60], 2)];
    let ours = result_and_gradients(&args, |args| add_relu(&args[0], &args[1]));
    let theirs = result_and_gradients(&args, |args| (&args[0] + &args[1])?.relu());
    assert_eq!(bits(&ours), bits(&theirs));
}

#[test]
fn pooled_convolution_equals_pooling_afterwards() {
    for (shape, pool) in [([9, 3, 7, 7], (2, 2)), ([3, 2, 9, 8], (3, 2)), ([2, 1, 28, 28], (2, 2))] {
        let args = [random(&shape, 1), random(&[10, shape[1], 3, 3], 2), random(&[10], 3)];
        let fused = result_and_gradients(&args, |args| {
            conv2d(&args[0], &args[1], Some(&args[2]), [1, 1], Some(pool), false)
        });
        let apart = result_and_gradients(&args, |args| {
            max_pool2d(&conv2d(&args[0], &args[1], Some(&args[2]), [1, 1], None, false)?, pool.0, [pool.1, 0])
        });
        for (fused, apart) in fused.iter().zip(&apart) {
            assert_close(fused, apart, 1e-6);
        }
    }
}

#[test]
fn a_tie_gives_its_gradient_to_the_first_and_nan_stays_nan() {
    let x = Var::new(&[[[[2f32, 2.0, 0.0, f32::NAN], [2.0, 1.0, 5.0, 7.0]]]], &Device::Cpu).unwrap();
    let y = max_pool2d(&x, 2, [2, 0]).unwrap();
    let values = flat(&y);
    assert_eq!(values[0], 2.0);
    assert!(values[1].is_nan());
    let grads = y.sum_all().unwrap().backward().unwrap();
    assert_eq!(flat(grads.get(&x).unwrap()), [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]);

    let nan = Tensor::new(&[[f32::NAN, -1.0]], &Device::Cpu).unwrap();
    let one = Tensor::new(&[1f32, 1.0], &Device::Cpu).unwrap();
    let y = flat(&scale_shift(&nan, &one, &one, true).unwrap());
    assert!(y[0].is_nan(), "a fused ReLU hides a NaN");
}

#[test]
fn batch_norm_gradients_are_finite_differences() {
    for shape in [&[4, 3, 3, 3][..], &[3, 2, 5, 4], &[9, 5]] {
        let c = shape[1];
        let args = [random(shape, 1), random(&[c], 2), random(&[c], 3)];
        check_gradients(&args, 0.01, 1e-3, |args| {
            Ok(batch_norm(&args[0], &args[1], &args[2], 1e-3, false)?.0)
        });
    }
}

#[test]
fn batch_norm_normalises_even_far_from_zero() {
    let x = (random(&[16, 3, 5, 5], 1) * 0.5).unwrap().affine(1.0, 1000.0).unwrap();
    let (gamma, beta) = (Tensor::new(&[1f32, 2.0, 3.0], &Device::Cpu).unwrap(), random(&[3], 2));
    let (y, mean, variance) = batch_norm(&x, &gamma, &beta, 1e-5, false).unwrap();

    let by_channel = |tensor: &Tensor, c: usize| -> Vec<f64> {
        flat(&tensor.narrow(1, c, 1).unwrap()).into_iter().map(f64::from).collect()
    };
    let moments = |values: &[f64]| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        (mean, values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64)
    };
    for c in 0..3 {
        let (expected_mean, expected_variance) = moments(&by_channel(&x, c));
        assert!((f64::from(flat(&mean)[c]) - expected_mean).abs() < 1e-4);
        assert!((f64::from(flat(&variance)[c]) / expected_variance - 1.0).abs() < 1e-4);
        let (mean, variance) = moments(&by_channel(&y, c));
        assert!((mean - f64::from(flat(&beta)[c])).abs() < 1e-3);
        assert!((variance.sqrt() - f64::from(flat(&gamma)[c])).abs() < 1e-2);
    }

    // At inference the same moments give the same result.
    let x = random(&[6, 3, 4, 4], 5);
    let (y, mean, variance) = batch_norm(&x, &gamma, &beta, 1e-5, true).unwrap();
    let scale = (&gamma / (variance + 1e-5).unwrap().sqrt().unwrap()).unwrap();
    let shift = (&beta - (mean * &scale).unwrap()).unwrap();
    assert_close(&scale_shift(&x, &scale, &shift, true).unwrap(), &y, 1e-5);
}

#[test]
fn layers_equal_those_of_candle_nn() {
    for shape in [&[6, 3, 4, 5][..], &[20, 5]] {
        let c = shape[1];
        let args = [random(shape, 1), random(&[c], 2), random(&[c], 3)];
        let ours =
            result_and_gradients(&args, |args| Ok(batch_norm(&args[0], &args[1], &args[2], 1e-3, false)?.0));
        let theirs = result_and_gradients(&args, |args| {
            let [mean, var] = [0f32, 1.0].map(|x| Tensor::full(x, c, &Device::Cpu).unwrap());
            let (weight, bias) = (args[1].clone(), args[2].clone());
            candle_nn::BatchNorm::new(c, mean, var, weight, bias, 1e-3)?.forward_train(&args[0])
        });
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_close(ours, theirs, 1e-4);
        }
    }
    let args = [random(&[130, 40], 4), random(&[150, 40], 5), random(&[150], 6)];
    let ours = result_and_gradients(&args, |args| linear(&args[0], &args[1], Some(&args[2]), false));
    let theirs = result_and_gradients(&args, |args| {
        candle_nn::Linear::new(args[1].clone(), Some(args[2].clone())).forward(&args[0])
    });
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_close(ours, theirs, 1e-5);
    }
}

#[test]
fn normalisation_in_inference_gives_x_its_gradient() {
    for (shape, relu) in [([2, 3, 2, 2], true), ([4, 3, 1, 1], false)] {
        let (x, scale, shift) = (spaced(&shape, 1), random(&[3], 2), random(&[3], 3));
        check_gradients(&[x], 0.01, 1e-3, |args| scale_shift(&args[0], &scale, &shift, relu));
    }
}

#[test]
fn linear_gradients_are_finite_differences() {
    let args = [random(&[5, 7], 1), random(&[3, 7], 2), random(&[3], 3)];
    check_gradients(&args, 0.1, 1e-4, |args| linear(&args[0], &args[1], Some(&args[2]), false));
}

#[test]
fn response_norm_equals_tensor_operations() {
    let args = [(random(&[2, 7, 3, 2], 8) * 200.0).unwrap()];
    let kernel = result_and_gradients(&args, |args| response_norm(&args[0]));
    let tensors = result_and_gradients(&args, |args| response::in_tensors(&args[0]));
    for (kernel, tensors) in kernel.iter().zip(&tensors) {
        assert_close(kernel, tensors, 1e-4);
    }
}

#[test]
fn the_thread_count_does_not_change_a_bit() {
    let args = [
        random(&[70, 2, 15, 15], 1),
        random(&[16, 2, 3, 3], 2),
        random(&[16], 3),
        random(&[24, 16, 3, 3], 4),
        random(&[24], 5),
        random(&[80, 24 * 9], 6),
        random(&[80], 7),
    ];
    let network = |args: &[Tensor]| {
        let x = conv2d(&args[0], &args[1], Some(&args[2]), [1, 1], Some((2, 2)), false)?;
        let (x, _, _) = batch_norm(&x, &args[2], &args[2], 1e-5, true)?;
        let x = max_pool2d(&conv2d(&x, &args[3], None, [1, 1], None, true)?, 3, [2, 0])?;
        let (x, _, _) = batch_norm(&x.flatten_from(1)?, &args[5].sum(0)?, &args[5].sum(0)?, 1e-5, false)?;
        let x = x.reshape((70, 24, 3, 3))?;
        let (x, _, _) = batch_norm(&x, &args[4], &args[4], 1e-5, true)?;
        linear(&x.flatten_from(1)?, &args[5], Some(&args[6]), true)
    };
    let run = |n_threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        pool.install(|| bits(&result_and_gradients(&args, network)))
    };
    let one = run(1);
    assert!(one == run(2) && one == run(5) && one == run(1));
}

#[test]
fn an_image_does_not_depend_on_its_batch() {
    // Products with patches of few and of many channels, with long sums, to one position; Winograd.
    for [ci, co, kernel, stride, side] in
        [[3, 16, 7, 2, 12], [64, 24, 3, 1, 5], [60, 20, 3, 2, 2], [64, 130, 1, 2, 9], [1024, 64, 3, 1, 4]]
    {
        let (x, weight) = (random(&[32, ci, side, side], 1), random(&[co, ci, kernel, kernel], 2));
        let run = |x: &Tensor| conv2d(x, &weight, None, [stride, kernel / 2], None, true).unwrap();
        let all = run(&x);
        for n in [1, 2, 3, 25] {
            let some = run(&x.narrow(0, 32 - n, n).unwrap());
            assert!(bits(&[some]) == bits(&[all.narrow(0, 32 - n, n).unwrap()]), "{n} images, {ci} channels");
        }
    }
}

#[test]
fn no_gradient_is_computed_for_data() {
    let (x, weight) = (random(&[2, 1, 6, 6], 1), Var::from_tensor(&random(&[3, 1, 3, 3], 2)).unwrap());
    let y = conv2d(&x, &weight, None, [1, 1], None, true).unwrap();
    let grads = y.sum_all().unwrap().backward().unwrap();
    assert!(grads.get(&weight).is_some() && grads.get(&x).is_none());
    assert!(!conv2d(&x, &weight.detach(), None, [1, 1], None, true).unwrap().track_op());
}

#[test]
fn views_are_read_through_their_strides() {
    let (x, weight) = (random(&[2, 5, 6, 3], 1), random(&[3, 3, 3, 4], 2));
    let (x, weight) = (x.permute((0, 3, 1, 2)).unwrap(), weight.permute((3, 0, 1, 2)).unwrap());
    let ours = conv2d(&x, &weight, None, [1, 1], None, false).unwrap();
    assert_close(&ours, &x.conv2d(&weight, 1, 1, 1, 1).unwrap(), 1e-5);
}

#[test]
fn what_does_not_fit_is_one_clear_error() {
    let (x, weight, bias) = (random(&[2, 3, 6, 6], 1), random(&[4, 3, 3, 3], 2), random(&[4], 3));
    let error = |result: Result<Tensor>| result.unwrap_err().to_string();
    let cases = [
        (error(conv2d(&x, &random(&[4, 2, 3, 3], 1), None, [1, 1], None, false)), "expects 2 channels"),
        (
            error(conv2d(&x, &weight, Some(&random(&[3], 1)), [1, 1], None, false)),
            "expected a bias of shape [4]",
        ),
        (error(conv2d(&x, &weight, Some(&bias), [0, 1], None, false)), "with stride 0"),
        (error(conv2d(&x, &random(&[4, 3, 9, 9], 1), None, [1, 1], None, false)), "padded image of 8x8"),
        (error(max_pool2d(&x, 7, [1, 0])), "a kernel of 7"),
        (error(conv2d(&x, &weight, None, [1, 1], Some((2, 0)), false)), "with stride 0"),
        (error(batch_norm(&x, &bias, &bias, 1e-5, false).map(|(y, ..)| y)), "of shape [3], found [4]"),
        (error(linear(&random(&[2, 3], 1), &random(&[4, 5], 2), None, false)), "expects 5 inputs"),
        (
            error(max_pool2d(&x.to_dtype(candle_core::DType::F64).unwrap(), 2, [2, 0])),
            "expected an f32 tensor",
        ),
    ];
    for (message, part) in cases {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
    // Weights of inference have no gradient, and it says so instead of losing it.
    let scale = Var::from_tensor(&random(&[3], 1)).unwrap();
    let y = scale_shift(&x, &scale, &scale, false).unwrap().sum_all().unwrap();
    assert!(y.backward().unwrap_err().to_string().contains("scale_shift"));
}
