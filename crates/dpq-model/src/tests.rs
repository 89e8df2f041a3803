//! Reads `tests/golden/golden.json`, and compares with it and with finite differences.

use candle_core::{Device, Result, Tensor, Var};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

/// The values that `tests/golden/golden.py` computed in float64.
pub(crate) fn golden() -> Value {
    serde_json::from_str(include_str!("../tests/golden/golden.json")).unwrap()
}

pub(crate) fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// An f32 tensor of a flat list, as wide as the named letters of the golden shape say.
pub(crate) fn tensor(golden: &Value, list: &Value, letters: &[&str]) -> Tensor {
    let shape: Vec<usize> =
        letters.iter().map(|letter| golden["shape"][letter].as_u64().unwrap() as usize).collect();
    let values: Vec<f32> = numbers(list).into_iter().map(|number| number as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Values in [−1, 1), f64: the losses compute in the type that they are given.
pub(crate) fn random(shape: &[usize], seed: u64) -> Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

pub(crate) fn flat(tensor: &Tensor) -> Vec<f64> {
    let tensor = tensor.to_dtype(candle_core::DType::F64).unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

pub(crate) fn f32s(rows: &[&[f32]]) -> Tensor {
    Tensor::from_vec(rows.concat(), (rows.len(), rows[0].len()), &Device::Cpu).unwrap()
}

#[track_caller]
pub(crate) fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0f64, |max, value| max.max(value.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let close = (found - expected).abs() <= tolerance * largest;
        assert!(close, "element {i}: found {found}, expected {expected}, largest {largest}");
    }
}

/// The scalar `f(args)` and its gradients by all of `args`: 0 for one that it does not depend on.
pub(crate) fn value_and_gradients(
    args: &[Tensor],
    f: impl Fn(&[Tensor]) -> Result<Tensor>,
) -> (f64, Vec<Vec<f64>>) {
    let vars: Vec<Var> = args.iter().map(|arg| Var::from_tensor(arg).unwrap()).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let value = f(&tensors).unwrap();
    let gradients = value.backward().unwrap();
    let by_arg = tensors.iter().map(|arg| match gradients.get(arg) {
        Some(gradient) => flat(gradient),
        None => vec![0.0; arg.elem_count()],
    });
    (flat(&value)[0], by_arg.collect())
}

/// Compares every gradient of the scalar `f(args)`, `args` in f64, with central differences.
#[track_caller]
pub(crate) fn check_gradients(args: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    const STEP: f64 = 1e-6;
    let (_, gradients) = value_and_gradients(args, &f);
    for (which, gradient) in gradients.iter().enumerate() {
        let at = |place: usize, step: f64| {
            let mut values = flat(&args[which]);
            values[place] += step;
            let mut args = args.to_vec();
            args[which] = Tensor::from_vec(values, args[which].dims(), &Device::Cpu).unwrap();
            flat(&f(&args).unwrap())[0]
        };
        let differences: Vec<f64> =
            (0..gradient.len()).map(|place| (at(place, STEP) - at(place, -STEP)) / (2.0 * STEP)).collect();
        assert!(differences.iter().any(|d| d.abs() > 1e-3), "argument {which} has no influence");
        assert_close(gradient, &differences, 1e-6);
    }
}
