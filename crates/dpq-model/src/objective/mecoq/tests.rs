//! The loss of views: its values and gradients, its special cases, and its memory.

use candle_core::{DType, Device};
use dpq_codebook::{Assignment, Form};
use serde_json::Value;

use super::*;
use crate::config::{Objective as Choice, TrainConfig};
use crate::tests::{assert_close, golden, numbers, random, tensor, value_and_gradients};

const CONFIG: MecoqConfig = MecoqConfig {
    temperature: 0.5,
    positives: 0.0,
    entropy: 0.0,
    diversity: 0.0,
    memory: 5,
    memory_after: 0.0,
};

/// The objective of a preset with other numbers.
fn mecoq(config: MecoqConfig, quantizer: QuantizerConfig) -> Mecoq {
    let quantizer = QuantizerConfig { levels: 3, codewords: 4, softness: 3.0, ..quantizer };
    Mecoq::new(config, quantizer)
}

fn loss(mut objective: Mecoq, args: &[Tensor]) -> TensorResult<Tensor> {
    let features = args[0].clone();
    let heads = Heads { logits: features.clone(), features, queries: None, classifier: None };
    let terms = objective.terms(Phase::Joint, &heads, &[], &Targets::default(), args.get(1)).unwrap();
    let mut total = Tensor::zeros((), DType::F64, &Device::Cpu)?;
    for Term { weight, value, .. } in terms {
        total = (total + (value * weight)?)?;
    }
    Ok(total)
}

#[test]
fn values_and_gradients_are_those_of_the_formulas() {
    let golden = golden();
    let f64s = |list: &Value, shape: &[usize]| Tensor::from_vec(numbers(list), shape, &Device::Cpu).unwrap();
    for case in golden["mecoq"].as_array().unwrap() {
        let number = |key: &str| case[key].as_f64().unwrap();
        let [temperature, positives, entropy, diversity] =
            ["temperature", "positives", "entropy", "diversity"].map(number);
        let config = MecoqConfig { temperature, positives, entropy, diversity, ..CONFIG };
        let is_product = case["form"] == "product";
        let (quantizer, args) = match is_product {
            true => (
                TrainConfig::mecoq_product().quantizer,
                [f64s(&golden["part_views"], &[6, 6]), f64s(&golden["parts"], &[3, 4, 2])],
            ),
            false => (
                TrainConfig::mecoq().quantizer,
                [("x", &["n", "d"][..]), ("codebook", &["l", "k", "d"])].map(|(name, letters)| {
                    tensor(&golden, &golden[name], letters).to_dtype(DType::F64).unwrap()
                }),
            ),
        };
        let (value, gradients) = value_and_gradients(&args, |args| {
            let mut objective = mecoq(config, quantizer);
            if case["remembers"] == true {
                objective.set_memory(f64s(&golden["past"], &[5, 3, 4]));
            }
            loss(objective, args)
        });
        assert_close(&[value], &[number("value")], 1e-9);
        for (found, expected) in gradients.iter().zip(case["gradients"].as_array().unwrap()) {
            assert_close(found, &numbers(expected), 1e-6);
        }
    }
}

/// Without a share of positives the loss is InfoNCE to the last digits: the cross-entropy of a
/// softmax over all views but the view itself.
#[test]
fn without_positives_the_loss_is_infonce() {
    const N: usize = 8;
    let views = unit(&random(&[N, 5], 1)).unwrap();
    let rows: Vec<Vec<f64>> = views.to_vec2().unwrap();
    let score = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / 0.5;
    let of_view = |i: usize| {
        let others = (0..N).filter(|&j| j != i).map(|j| score(&rows[i], &rows[j]).exp());
        others.sum::<f64>().ln() - score(&rows[i], &rows[(i + N / 2) % N])
    };
    let expected = (0..N).map(of_view).sum::<f64>() / N as f64;
    let found = contrast(&views, None, CONFIG).unwrap().to_scalar::<f64>().unwrap();
    assert!((found - expected).abs() < 1e-12, "{found} {expected}");
    // Before there are codebooks the loss is that of the features, whatever their length.
    let features = loss(mecoq(CONFIG, TrainConfig::mecoq().quantizer), &[(views * 3.0).unwrap()]).unwrap();
    assert!((features.to_scalar::<f64>().unwrap() - expected).abs() < 1e-12);
}

/// Debiasing lowers the loss, and no sum of negatives falls below its least possible value.
#[test]
fn debiasing_stops_at_the_floor() {
    let views = unit(&random(&[8, 5], 2)).unwrap();
    let value = |positives: f64| {
        let config = MecoqConfig { positives, ..CONFIG };
        contrast(&views, None, config).unwrap().to_scalar::<f64>().unwrap()
    };
    assert!(value(0.2) < value(0.1) && value(0.1) < value(0.0));
    // Both views of an image are the same, and at right angles to all others. The six others have
    // less than the share of positives, so that their sum is the floor: 6 · exp(−1 / T).
    let images = Tensor::eye(4, DType::F64, &Device::Cpu).unwrap();
    let views = Tensor::cat(&[&images, &images], 0).unwrap();
    let config = MecoqConfig { positives: 0.99, temperature: 0.5, ..CONFIG };
    let found = contrast(&views, None, config).unwrap().to_scalar::<f64>().unwrap();
    let expected = (1.0 + 6.0 * (-2.0 / config.temperature).exp()).ln();
    assert!((found - expected).abs() < 1e-12, "{found}, expected {expected}");
}

#[test]
fn likeness_and_entropy_have_their_extremes() {
    let scalar = |value: TensorResult<Tensor>| value.unwrap().to_scalar::<f64>().unwrap();
    let alike = Tensor::ones((2, 4, 3), DType::F64, &Device::Cpu).unwrap();
    assert!((scalar(mean_cosine(&alike)) - 1.0).abs() < 1e-12);
    let rows = [[3.0, 0.0], [-0.1, 0.0], [0.0, 2.0], [0.0, -2.0]].concat();
    let opposite = Tensor::from_vec(rows, (1, 4, 2), &Device::Cpu).unwrap();
    assert!(scalar(mean_cosine(&opposite)).abs() < 1e-12);
    let codes = |values: &[f64]| Tensor::from_vec(values.to_vec(), (1, 4), &Device::Cpu).unwrap();
    assert!((scalar(entropy(&[codes(&[0.25; 4])])) - 4f64.ln()).abs() < 1e-10);
    assert!(scalar(entropy(&[codes(&[0.0, 1.0, 0.0, 0.0])])).abs() < 1e-10);
}

/// The memory keeps the soft codes of first views, the newest, once it has started.
#[test]
fn the_memory_is_a_queue_of_first_views() {
    let mut objective = mecoq(CONFIG, TrainConfig::mecoq_product().quantizer);
    objective.config.memory_after = 0.5;
    let codes = |seed: u64| vec![random(&[6, 4], seed), random(&[6, 4], seed + 1), random(&[6, 4], seed + 2)];
    objective.begin(0.4);
    objective.remember(&codes(1)).unwrap();
    assert!(objective.memory().is_none());
    objective.begin(0.5);
    for seed in [10, 20, 30] {
        objective.remember(&codes(seed)).unwrap();
    }
    let memory = objective.memory().unwrap();
    assert_eq!(memory.dims(), [5, 3, 4]);
    assert_eq!(objective.memory_shape().unwrap(), [5, 3, 4]);
    // The last two of the second step, then the three of the third.
    for (at, (seed, row)) in [(20, 1), (20, 2), (30, 0), (30, 1), (30, 2)].into_iter().enumerate() {
        for (level, of_level) in codes(seed).iter().enumerate() {
            let expected = of_level.get(row).unwrap().to_vec1::<f64>().unwrap();
            let found = memory.get(at).unwrap().get(level).unwrap().to_vec1::<f64>().unwrap();
            assert_eq!(found, expected, "{at} {level}");
        }
    }
}

#[test]
fn the_presets_are_the_two_forms() {
    for (name, form, assignment) in [
        ("mecoq", Form::Progressive, Assignment::Euclidean),
        ("mecoq-product", Form::Product, Assignment::Cosine),
    ] {
        let TrainConfig { quantizer, objective, .. } = TrainConfig::preset(name).unwrap();
        assert_eq!((quantizer.form, quantizer.assignment), (form, assignment));
        assert!(matches!(objective, Choice::Mecoq(_)) && !objective.needs_labels());
    }
}
