//! Which losses reach the features, and by how much.

use candle_core::{DType, Device};
use serde_json::Value;

use super::*;
use crate::config::TrainConfig;
use crate::tests::{assert_close, golden, numbers, random, tensor, value_and_gradients};

const N: usize = 6;
const CLASSES: usize = 3;
const DIM: usize = 5;
const LEVELS: usize = 2;

/// The objective of `paper` with other weights.
fn dpq(change: impl Fn(&mut LossConfig)) -> Dpq {
    let TrainConfig { mut loss, quantizer, .. } = TrainConfig::paper();
    change(&mut loss);
    Dpq { loss, quantizer, multi_label: false, embeddings: random(&[CLASSES, DIM], 1) }
}

/// Item i has class i mod CLASSES.
fn labels() -> Labels {
    let multi_hot: Vec<u8> =
        (0..N * CLASSES).map(|i| u8::from(i % CLASSES == i / CLASSES % CLASSES)).collect();
    Labels::new(&multi_hot, CLASSES, DType::F64, &Device::Cpu).unwrap()
}

/// Returns the sum of the terms that `keep` names, unweighted, and its gradients for features
/// `[N, DIM]` and codebook `[LEVELS, 4, DIM]`.
fn losses(change: impl Fn(&mut LossConfig), keep: &[&str]) -> (f64, [Vec<f64>; 2]) {
    let args = [random(&[N, DIM], 2), random(&[LEVELS, 4, DIM], 3)];
    let targets = Targets { labels: Some(labels()), ..Targets::default() };
    let (value, gradients) = value_and_gradients(&args, |args| {
        let heads = Heads {
            features: args[0].clone(),
            logits: random(&[N, CLASSES], 4),
            queries: None,
            classifier: None,
        };
        let terms = dpq(&change).terms(Phase::Joint, &heads, &[], &targets, Some(&args[1])).unwrap();
        let mut sum = Tensor::zeros((), DType::F64, &Device::Cpu)?;
        for name in keep {
            sum = (sum + &terms.iter().find(|term| term.name == *name).unwrap().value)?;
        }
        Ok(sum)
    });
    (value, gradients.try_into().unwrap())
}

#[test]
fn commitment_scales_the_gradient_of_the_features_alone() {
    let terms = ["soft_distortion", "hard_distortion", "joint_center"];
    let (value, [features, codebook]) = losses(|_| (), &terms);
    assert!(features.iter().any(|x| x.abs() > 1e-3));
    for share in [0.0, 0.25] {
        let (same, [scaled, same_codebook]) = losses(|loss| loss.commitment = share, &terms);
        assert_close(&[same], &[value], 1e-12);
        assert_close(&same_codebook, &codebook, 1e-12);
        let expected: Vec<f64> = features.iter().map(|x| x * share).collect();
        assert_close(&scaled, &expected, 1e-12);
    }
    // The losses of the labels keep theirs.
    let [full, none] =
        [1.0, 0.0].map(|share| losses(|loss| loss.commitment = share, &["margin"]).1[0].clone());
    assert_close(&full, &none, 1e-12);
}

/// The gradient of the prefix margin for the features is that for the approximations, and a chosen
/// codeword gets the sum over the items that chose it.
#[test]
fn the_prefix_margin_passes_straight_through_the_choice() {
    let on = |loss: &mut LossConfig| loss.prefix_margin = 0.5;
    let (value, [features, codebook]) = losses(on, &["prefix_margin"]);
    let objective = dpq(on);
    let (x, codewords) = (random(&[N, DIM], 2), random(&[LEVELS, 4, DIM], 3));
    let quantized = quantize(&x, &codewords, objective.quantizer.assignment, 1.0, None).unwrap();
    let labels = labels();

    let (mut expected_value, mut expected) = (0.0, vec![0.0; N * DIM]);
    let mut expected_codebook = vec![0.0; LEVELS * 4 * DIM];
    for level in 0..LEVELS {
        let prefix = std::slice::from_ref(&quantized.hard[level]);
        let (margin, gradients) = value_and_gradients(prefix, |args| {
            adaptive_margin(&args[0], &labels, &objective.embeddings, objective.loss.margins)
        });
        expected_value += margin / LEVELS as f64;
        for (i, gradient) in gradients[0].iter().enumerate() {
            expected[i] += gradient / LEVELS as f64;
            for (at, codes) in quantized.codes.iter().enumerate().take(level + 1) {
                let code = codes.to_vec1::<u32>().unwrap()[i / DIM] as usize;
                expected_codebook[(at * 4 + code) * DIM + i % DIM] += gradient / LEVELS as f64;
            }
        }
    }
    assert_close(&[value], &[expected_value], 1e-12);
    assert_close(&features, &expected, 1e-12);
    assert_close(&codebook, &expected_codebook, 1e-12);
}

#[test]
fn a_prefix_margin_of_weight_0_is_no_term() {
    let heads = Heads {
        features: random(&[N, DIM], 2),
        logits: random(&[N, CLASSES], 4),
        queries: None,
        classifier: None,
    };
    let targets = Targets { labels: Some(labels()), ..Targets::default() };
    let codebook = random(&[LEVELS, 4, DIM], 3);
    let terms = dpq(|_| ()).terms(Phase::Joint, &heads, &[], &targets, Some(&codebook)).unwrap();
    let names: Vec<_> = terms.iter().map(|term| term.name).collect();
    assert_eq!(names, ["margin", "classification", "soft_distortion", "hard_distortion", "joint_center"]);
}

/// The classification of approximations by the t nearest codewords, as PHPQ has it.
#[test]
fn prefix_classification_is_that_of_the_formulas() {
    let golden = golden();
    let phpq = &golden["phpq"];
    let of = |value: &Value, letters: &[&str]| tensor(&golden, value, letters).to_dtype(DType::F64).unwrap();
    let args = [
        of(&golden["x"], &["n", "d"]),
        of(&golden["codebook"], &["l", "k", "d"]),
        of(&phpq["weight"], &["c", "d"]),
        of(&phpq["bias"], &["c"]),
    ];
    let hot: Vec<u8> = numbers(&phpq["labels"]).into_iter().map(|label| label as u8).collect();
    let targets = || {
        let labels = Labels::new(&hot, 4, DType::F64, &Device::Cpu).unwrap();
        Targets { labels: Some(labels), ..Targets::default() }
    };
    for case in phpq["cases"].as_array().unwrap() {
        let mut objective = dpq(|loss| loss.prefix_classification = 0.5);
        objective.quantizer.softness = phpq["gamma"].as_f64().unwrap();
        objective.quantizer.attention = Some(case["t"].as_u64().unwrap() as usize);
        objective.embeddings = of(&golden["embeddings"], &["c", "d"]);
        let (value, gradients) = value_and_gradients(&args, |args| {
            let heads = Heads {
                features: args[0].clone(),
                logits: Tensor::zeros((6, 4), DType::F64, &Device::Cpu)?,
                queries: None,
                classifier: Some([args[2].clone(), args[3].clone()]),
            };
            let codebook = Some(&args[1]);
            let mut objective = Dpq { embeddings: objective.embeddings.clone(), ..objective };
            let terms = objective.terms(Phase::Joint, &heads, &[], &targets(), codebook).unwrap();
            let term = terms.into_iter().find(|term| term.name == "prefix_classification").unwrap();
            assert_eq!(term.weight, 0.5);
            Ok(term.value)
        });
        assert_close(&[value], &[case["value"].as_f64().unwrap()], 1e-8);
        for (found, expected) in gradients.iter().zip(case["gradients"].as_array().unwrap()) {
            assert_close(found, &numbers(expected), 1e-6);
        }
    }
}
