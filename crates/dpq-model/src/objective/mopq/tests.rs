//! The loss of pairs: its values and gradients, and those of workers that share a batch.

use candle_core::{DType, Device};
use dpq_codebook::Assignment;
use serde_json::Value;

use super::*;
use crate::quantize::quantize;
use crate::shards;
use crate::tests::{assert_close, golden, numbers, random, tensor, value_and_gradients};

fn mopq(pairs: &Value) -> Mopq {
    let number = |key: &str| pairs[key].as_f64().unwrap();
    let [temperature, keys, reconstruction] = ["temperature", "keys", "reconstruction"].map(number);
    let config = MopqConfig { temperature, keys, reconstruction, workers: 1 };
    Mopq { config }
}

/// The weighted sum of the terms of one of several workers, whose queries and keys are given by
/// turns; the codebook is the last argument.
fn loss(objective: &mut Mopq, args: &[Tensor], worker: usize, targets: &Targets) -> TensorResult<Tensor> {
    let (codebook, args) = args.split_last().unwrap();
    let outputs = args.chunks(2).map(|pair| Heads {
        queries: Some(pair[0].clone()),
        features: pair[1].clone(),
        logits: pair[1].clone(),
        classifier: None,
    });
    let outputs: Vec<Heads> = outputs.collect();
    let share = |outputs: &Heads| {
        let codes = quantize(&outputs.features, codebook, Assignment::Euclidean, 1.0, None).unwrap().codes;
        objective.shared(outputs, &codes, Some(codebook)).unwrap()
    };
    let shared: Vec<_> = outputs.iter().map(share).collect();
    let all = shards::all_gather(&shared, worker)?;
    let terms = objective.terms(Phase::Joint, &outputs[worker], &all, targets, Some(codebook)).unwrap();
    let mut total = Tensor::zeros((), codebook.dtype(), &Device::Cpu)?;
    for Term { weight, value, .. } in terms {
        total = (total + (value * weight)?)?;
    }
    Ok(total)
}

#[test]
fn values_and_gradients_are_those_of_the_formulas() {
    let golden = golden();
    let args = [("queries", &["n", "d"][..]), ("x", &["n", "d"]), ("codebook", &["l", "k", "d"])];
    let args =
        args.map(|(name, letters)| tensor(&golden, &golden[name], letters).to_dtype(DType::F64).unwrap());
    for pairs in golden["mopq"].as_array().unwrap() {
        let others = tensor(&golden, &pairs["others"], &["n", "n"]).to_dtype(DType::F64).unwrap();
        let targets = Targets { other_matches: Some(others), ..Targets::default() };
        let (value, gradients) = value_and_gradients(&args, |args| loss(&mut mopq(pairs), args, 0, &targets));
        assert_close(&[value], &[pairs["value"].as_f64().unwrap()], 1e-9);
        for (found, expected) in gradients.iter().zip(pairs["gradients"].as_array().unwrap()) {
            assert_close(found, &numbers(expected), 1e-6);
        }
    }
    // Without other matches nothing needs to be said of them.
    let pairs = &golden["mopq"][0];
    let (value, _) = value_and_gradients(&args, |args| loss(&mut mopq(pairs), args, 0, &Targets::default()));
    assert_close(&[value], &[pairs["value"].as_f64().unwrap()], 1e-9);
}

/// The sum of the gradients of four workers, with parts of unequal sizes, is that of one.
#[test]
fn workers_have_the_gradient_of_the_whole_batch() {
    const N: usize = 13;
    const WORKERS: usize = 4;
    let golden = golden();
    for (dtype, tolerance) in [(DType::F64, 1e-13), (DType::F32, 1e-6)] {
        let shapes = [&[N, 5][..], &[N, 5], &[3, 4, 5]];
        let whole: Vec<Tensor> = shapes
            .iter()
            .zip(7..)
            .map(|(shape, seed)| random(shape, seed).to_dtype(dtype).unwrap())
            .collect();
        let mut others = vec![0.0; N * N];
        (others[3], others[N * 12 + 2]) = (1.0, 1.0);
        let others = Tensor::from_vec(others, (N, N), &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
        let targets = Targets { other_matches: Some(others), ..Targets::default() };
        let objective = mopq(&golden["mopq"][0]);
        let (value, expected) =
            value_and_gradients(&whole, |args| loss(&mut objective.clone(), args, 0, &targets));

        let mut parts = Vec::new();
        for rows in shards::ranges(N, WORKERS) {
            parts.extend(whole[..2].iter().map(|x| x.narrow(0, rows.start, rows.len()).unwrap()));
        }
        parts.push(whole[2].clone());
        let mut sums = [Vec::new(), Vec::new(), vec![0.0; 3 * 4 * 5]];
        for worker in 0..WORKERS {
            let (same, gradients) =
                value_and_gradients(&parts, |args| loss(&mut objective.clone(), args, worker, &targets));
            assert_close(&[same], &[value], tolerance);
            for (at, gradient) in gradients[..2 * WORKERS].iter().enumerate() {
                if at / 2 == worker {
                    sums[at % 2].extend(gradient);
                } else {
                    assert!(gradient.iter().all(|&x| x == 0.0), "outputs of others are constants");
                }
            }
            sums[2].iter_mut().zip(&gradients[2 * WORKERS]).for_each(|(sum, x)| *sum += x);
        }
        for (found, expected) in sums.iter().zip(&expected) {
            assert_close(found, expected, tolerance);
        }
    }
}
