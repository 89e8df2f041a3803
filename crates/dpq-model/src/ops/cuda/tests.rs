//! Every operation and its gradients on `cuda:0` against the CPU. Without a GPU these tests say so
//! and pass.
//!
//! Tolerances are relative to the largest element: 1e-5 for results, 1e-4 for gradients, which add
//! up to thousands of products in another order.

use std::collections::BTreeSet;

use candle_core::{DType, Device, Result, Tensor, Var};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::config::Margins;
use crate::loss::{Labels, adaptive_margin, classification};
use crate::ops::{batch_norm, conv2d, linear, max_pool2d, scale_shift};

/// The GPU, or a line that says that there is none.
fn gpu() -> Option<Device> {
    match Device::new_cuda_with_stream(0) {
        Ok(device) => Some(device),
        Err(_) => {
            eprintln!("SKIPPED: this machine has no usable GPU, nothing was compared");
            None
        }
    }
}

fn random(shape: &[usize], seed: u64) -> Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Result and gradients of a function on a device.
fn result_and_gradients(
    args: &[Tensor],
    n_variables: usize,
    device: &Device,
    f: &dyn Fn(&[Tensor]) -> Result<Tensor>,
) -> Vec<Vec<f32>> {
    let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let args: Vec<Tensor> = args.iter().map(|arg| arg.to_device(device).unwrap()).collect();
    let variables: Vec<Var> = args[..n_variables].iter().map(|arg| Var::from_tensor(arg).unwrap()).collect();
    let mut inputs: Vec<Tensor> = variables.iter().map(|var| var.as_tensor().clone()).collect();
    inputs.extend_from_slice(&args[n_variables..]);
    let y = f(&inputs).unwrap();
    let mut results = vec![flat(&y)];
    if n_variables > 0 {
        let weights = random(y.dims(), 99).to_device(device).unwrap();
        let gradients = y.mul(&weights).unwrap().sum_all().unwrap().backward().unwrap();
        results.extend(inputs[..n_variables].iter().map(|input| flat(gradients.get(input).unwrap())));
    }
    results
}

#[track_caller]
fn check(args: &[Tensor], n_variables: usize, f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let Some(gpu) = gpu() else { return };
    let expected = result_and_gradients(args, n_variables, &Device::Cpu, &f);
    let found = result_and_gradients(args, n_variables, &gpu, &f);
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert_eq!(found.len(), expected.len());
        let tolerance = if i == 0 { 1e-5 } else { 1e-4 };
        let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        for (j, (a, b)) in found.iter().zip(expected).enumerate() {
            assert!(
                (a - b).abs() <= tolerance * largest,
                "array {i}, element {j}: {a} on the GPU, {b} on the CPU"
            );
        }
    }
}

#[test]
fn convolutions() {
    // (x, weight, stride, padding, pooling)
    let cases = [
        ([64, 1, 28, 28], [32, 1, 3, 3], 1, 1, (2, 2)),
        ([64, 32, 14, 14], [64, 32, 3, 3], 1, 1, (2, 2)),
        ([64, 64, 7, 7], [128, 64, 3, 3], 1, 1, (2, 2)),
        ([3, 3, 67, 67], [16, 3, 11, 11], 4, 2, (3, 2)),
        ([2, 5, 13, 9], [7, 5, 3, 2], 2, 0, (2, 1)),
        ([2, 2, 9, 11], [3, 2, 5, 5], 2, 2, (3, 1)),
        ([1, 4, 3, 3], [5, 4, 1, 1], 1, 0, (1, 1)),
        ([2, 2, 9, 9], [3, 2, 2, 2], 1, 0, (1, 2)),
    ];
    for (i, (x, weight, stride, padding, pool)) in cases.into_iter().enumerate() {
        let args = [random(&x, i as u64), random(&weight, 20), random(&weight[..1], 21)];
        for relu in [false, true] {
            check(&args, 3, |args| conv2d(&args[0], &args[1], Some(&args[2]), [stride, padding], None, relu));
            check(&args, 3, |args| {
                conv2d(&args[0], &args[1], Some(&args[2]), [stride, padding], Some(pool), relu)
            });
            check(&args[..2], 2, |args| {
                conv2d(&args[0], &args[1], None, [stride, padding], Some(pool), relu)
            });
        }
    }
}

#[test]
fn pooling() {
    for (kernel, stride) in [(2, 2), (3, 2), (3, 1), (2, 3), (1, 1), (5, 4)] {
        check(&[random(&[3, 4, 13, 11], 1)], 1, |args| max_pool2d(&args[0], kernel, [stride, 0]));
    }
}

#[test]
fn normalisation() {
    for shape in [&[64, 32, 14, 14][..], &[5, 3, 1, 7], &[33, 6]] {
        let c = shape[1];
        let args = [(random(shape, 1) + 3.0).unwrap(), random(&[c], 2), random(&[c], 3)];
        for relu in [false, true] {
            check(&args, 3, |args| Ok(batch_norm(&args[0], &args[1], &args[2], 1e-5, relu)?.0));
            check(&args, 0, |args| Ok(batch_norm(&args[0], &args[1], &args[2], 1e-5, relu)?.1));
            check(&args, 0, |args| Ok(batch_norm(&args[0], &args[1], &args[2], 1e-5, relu)?.2));
            check(&args, 0, |args| scale_shift(&args[0], &args[1], &args[2], relu));
        }
    }
}

#[test]
fn linear_layers() {
    for (batch, n_in, n_out) in [(64, 1152, 512), (512, 512, 300), (1, 3, 5), (70, 33, 65)] {
        let args = [random(&[batch, n_in], 1), random(&[n_out, n_in], 2), random(&[n_out], 3)];
        for relu in [false, true] {
            check(&args, 3, |args| linear(&args[0], &args[1], Some(&args[2]), relu));
            check(&args[..2], 2, |args| linear(&args[0], &args[1], None, relu));
        }
    }
}

#[test]
fn losses() {
    let multi_hot: Vec<u8> =
        random(&[640], 3).to_vec1::<f32>().unwrap().iter().map(|&x| u8::from(x > 0.5)).collect();
    let args = [random(&[64, 300], 1), random(&[10, 300], 2)];
    let labels = |x: &Tensor| Labels::new(&multi_hot, 10, DType::F32, x.device());
    for margins in [Margins::Negatives, Margins::All] {
        check(&args, 1, |args| adaptive_margin(&args[0], &labels(&args[0])?, &args[1], margins));
    }
    for multi_label in [false, true] {
        check(&[random(&[64, 10], 4)], 1, |args| classification(&args[0], &labels(&args[0])?, multi_label));
    }
}

/// NVRTC needs no GPU.
#[test]
fn every_kernel_that_is_launched_is_compiled() {
    let ptx = super::ptx().as_ref().unwrap();
    let compiled: BTreeSet<&str> =
        ptx.split(".entry ").skip(1).filter_map(|entry| entry.split('(').next()).collect();
    let sources = [
        include_str!("conv.rs"),
        include_str!("linear.rs"),
        include_str!("norm.rs"),
        include_str!("update.rs"),
    ];
    let launched: BTreeSet<&str> = sources
        .iter()
        .flat_map(|source| source.split("launch!(").skip(1))
        .filter_map(|arguments| arguments.split('"').nth(1))
        .collect();
    assert_eq!(compiled, launched);
}
