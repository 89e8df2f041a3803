//! Classification and margin losses against the golden values, finite differences and hand-worked
//! cases.

use super::Labels;
use crate::config::Margins;
use crate::quantize::cosines;
use crate::tests::{
    assert_close, check_gradients, f32s, flat, golden, numbers, random, tensor, value_and_gradients,
};
use candle_core::{DType, Device, Result, Tensor, Var};

fn labels_of(multi_hot: &Tensor) -> Labels {
    let values = multi_hot.to_dtype(DType::U8).unwrap().flatten_all().unwrap().to_vec1::<u8>().unwrap();
    Labels::new(&values, multi_hot.dim(1).unwrap(), multi_hot.dtype(), &Device::Cpu).unwrap()
}

fn classification(logits: &Tensor, labels: &Tensor, multi_label: bool) -> Result<Tensor> {
    super::classification(logits, &labels_of(labels), multi_label)
}

fn adaptive_margin(x: &Tensor, labels: &Tensor, embeddings: &Tensor, margins: Margins) -> Result<Tensor> {
    super::adaptive_margin(x, &labels_of(labels), embeddings, margins)
}

const MARGINS: [Margins; 2] = [Margins::Negatives, Margins::All];

/// Multi-hot labels [n, C] in f64: about a third of all.
fn several_labels(n: usize, n_classes: usize, seed: u64) -> Tensor {
    random(&[n, n_classes], seed).gt(0.3).unwrap().to_dtype(DType::F64).unwrap()
}

/// One label an item [n, C] in f64: item i has class i mod C.
fn one_label(n: usize, n_classes: usize) -> Tensor {
    let values: Vec<f64> =
        (0..n * n_classes).map(|i| f64::from(u8::from(i % n_classes == i / n_classes % n_classes))).collect();
    Tensor::from_vec(values, (n, n_classes), &Device::Cpu).unwrap()
}

#[test]
fn equals_the_golden_values() {
    let golden = golden();
    let logits = tensor(&golden, &golden["logits"], &["n", "c"]);
    let cases = golden["classification"].as_array().unwrap();
    assert_eq!(cases.len(), 2);
    for case in cases {
        let labels = tensor(&golden, &case["labels"], &["n", "c"]);
        let (value, gradients) = value_and_gradients(std::slice::from_ref(&logits), |args| {
            classification(&args[0], &labels, case["multi_label"].as_bool().unwrap())
        });
        assert_close(&[value], &[case["value"].as_f64().unwrap()], 1e-5);
        assert_close(&gradients[0], &numbers(&case["gradient"]), 1e-5);
    }

    let x = tensor(&golden, &golden["x"], &["n", "d"]);
    let embeddings = tensor(&golden, &golden["embeddings"], &["c", "d"]);
    let cases = golden["adaptive_margin"].as_array().unwrap();
    assert_eq!(cases.len(), 2);
    for case in cases {
        let labels = tensor(&golden, &case["labels"], &["n", "c"]);
        let margins: Margins = serde_json::from_value(case["margins"].clone()).unwrap();
        let (value, gradients) = value_and_gradients(std::slice::from_ref(&x), |args| {
            adaptive_margin(&args[0], &labels, &embeddings, margins)
        });
        assert_close(&[value], &[case["value"].as_f64().unwrap()], 1e-5);
        assert_close(&gradients[0], &numbers(&case["gradient"]), 1e-4);
    }
}

#[test]
fn classification_equals_candle_nn() {
    let (n, n_classes) = (20, 6);
    let logits = [(random(&[n, n_classes], 1) * 3.0).unwrap()];
    let (one, several) = (one_label(n, n_classes), several_labels(n, n_classes, 2));
    let classes = one.argmax(1).unwrap();
    let ours = |labels, multi_label| {
        value_and_gradients(&logits, |args| classification(&args[0], labels, multi_label))
    };
    let softmax = value_and_gradients(&logits, |args| candle_nn::loss::cross_entropy(&args[0], &classes));
    let sigmoid = value_and_gradients(&logits, |args| {
        candle_nn::loss::binary_cross_entropy_with_logit(&args[0], &several)
    });
    for (ours, theirs) in [(ours(&one, false), softmax), (ours(&several, true), sigmoid)] {
        assert_close(&[ours.0], &[theirs.0], 1e-10);
        assert_close(&ours.1[0], &theirs.1[0], 1e-10);
    }
}

#[test]
fn gradients_are_those_of_the_values() {
    let (n, n_classes, dim) = (9, 7, 5);
    let labels = several_labels(n, n_classes, 1);
    let logits = (random(&[n, n_classes], 2) * 4.0).unwrap();
    check_gradients(std::slice::from_ref(&logits), |args| classification(&args[0], &labels, true));
    check_gradients(&[logits], |args| classification(&args[0], &one_label(n, n_classes), false));
    let embeddings = random(&[n_classes, dim], 3);
    for margins in MARGINS {
        check_gradients(&[random(&[n, dim], 4)], |args| {
            adaptive_margin(&args[0], &labels, &embeddings, margins)
        });
    }
}

/// σ(x) − y over n·C, also for logits at which a sigmoid is 0 or 1 in f32, and at 0 where relu and
/// abs have corners.
#[test]
fn multi_label_classification_by_hand() {
    let logits = f32s(&[&[200.0, -200.0, 0.0], &[200.0, -200.0, 0.0]]);
    let labels = f32s(&[&[1.0, 0.0, 1.0], &[0.0, 1.0, 0.0]]);
    let (value, gradients) = value_and_gradients(&[logits], |args| classification(&args[0], &labels, true));
    assert_close(&[value], &[(400.0 + 2.0 * 2f64.ln()) / 6.0], 1e-6);
    assert_close(&gradients[0], &[0.0, 0.0, -0.5, 1.0, -1.0, 0.5].map(|g| g / 6.0), 1e-6);
}

#[test]
fn single_label_classification_by_hand() {
    let logits = f32s(&[&[1000.0, 0.0, 0.0], &[1000.0, 0.0, 0.0], &[3.0, 3.0, 3.0]]);
    let labels = f32s(&[&[1.0, 0.0, 0.0], &[0.0, 1.0, 0.0], &[0.0, 0.0, 1.0]]);
    let (value, gradients) = value_and_gradients(&[logits], |args| classification(&args[0], &labels, false));
    assert_close(&[value], &[(1000.0 + 3f64.ln()) / 3.0], 1e-6);
    let third = 1.0 / 3.0;
    let expected = [0.0, 0.0, 0.0, 1.0, -1.0, 0.0, third, third, -2.0 * third].map(|g| g / 3.0);
    assert_close(&gradients[0], &expected, 1e-6);
}

/// The definition in tensors of every pair of classes, `[n, C, C]`.
fn margin_of_all_pairs(x: &Tensor, labels: &Tensor, embeddings: &Tensor, margins: Margins) -> Result<Tensor> {
    let to_x = cosines(x, embeddings)?;
    let deltas = (1.0 - cosines(embeddings, embeddings)?)?.unsqueeze(0)?;
    let hinges = deltas.broadcast_sub(&to_x.unsqueeze(2)?)?.broadcast_add(&to_x.unsqueeze(1)?)?;
    let compared = match margins {
        Margins::Negatives => (1.0 - labels)?,
        Margins::All => labels.ones_like()?,
    };
    let counts = hinges
        .detach()
        .gt(0.0)?
        .to_dtype(labels.dtype())?
        .broadcast_mul(&labels.unsqueeze(2)?)?
        .broadcast_mul(&compared.unsqueeze(1)?)?;
    (hinges * counts)?.sum_all()? / labels.elem_count() as f64
}

#[test]
fn margin_and_gradient_equal_those_of_all_pairs() {
    for (seed, n_classes) in [(0, 1), (1, 2), (2, 10), (3, 70)] {
        let (n, dim) = (16, 12);
        let (x, embeddings) = (random(&[n, dim], seed), random(&[n_classes, dim], seed + 100));
        for labels in [several_labels(n, n_classes, seed + 200), one_label(n, n_classes)] {
            for margins in MARGINS {
                let by = |f: fn(&Tensor, &Tensor, &Tensor, Margins) -> Result<Tensor>| {
                    let args = [x.clone()];
                    value_and_gradients(&args, |args| f(&args[0], &labels, &embeddings, margins))
                };
                let (found, expected) = (by(adaptive_margin), by(margin_of_all_pairs));
                assert!((found.0 - expected.0).abs() <= 1e-12 * expected.0.abs(), "{}", found.0);
                assert_close(&found.1[0], &expected.1[0], 1e-12);
            }
        }
    }
}

/// With one label per item, a training step in f32 has the bits of the definition. Values of more
/// than 64 items are sums in another order.
#[test]
fn one_label_per_item_gives_the_bits_of_all_pairs() {
    let f32s = |shape: &[usize], seed| random(shape, seed).to_dtype(DType::F32).unwrap();
    let embeddings = crate::embeddings::label_embeddings(10, 300, 1);
    let embeddings = Tensor::from_vec(embeddings, (10, 300), &Device::Cpu).unwrap();
    // The rounding of matrix products depends on their size.
    for n in [64, 250] {
        let labels = one_label(n, 10).to_dtype(DType::F32).unwrap();
        let x = Var::from_tensor(&f32s(&[n, 300], 3)).unwrap();
        let bits = |loss: Tensor| {
            let gradients = loss.backward().unwrap();
            let gradient = gradients.get(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let value = loss.to_scalar::<f32>().unwrap();
            (value.to_bits(), gradient.into_iter().map(f32::to_bits).collect::<Vec<_>>())
        };
        for margins in MARGINS {
            let found = bits(adaptive_margin(&x, &labels, &embeddings, margins).unwrap());
            let expected = bits(margin_of_all_pairs(&x, &labels, &embeddings, margins).unwrap());
            assert!(found.1 == expected.1, "gradients of {n} items");
            let [found, expected] = [found.0, expected.0].map(f32::from_bits);
            let tolerance = if n == 64 { 0.0 } else { 1e-6 * expected };
            assert!((found - expected).abs() <= tolerance, "{found} {expected}");
        }
    }
}

/// 64 items of 20,000 classes: all pairs of classes would take 100 GB.
#[test]
fn many_classes_take_memory_in_proportion() {
    let (n, n_classes, dim) = (64, 20_000, 8);
    let x = random(&[n, dim], 1).to_dtype(DType::F32).unwrap();
    let embeddings = random(&[n_classes, dim], 2).to_dtype(DType::F32).unwrap();
    let mut multi_hot = vec![0; n * n_classes];
    (0..n).for_each(|item| multi_hot[item * n_classes + item * 311 % n_classes] = 1);
    let labels = Labels::new(&multi_hot, n_classes, DType::F32, &Device::Cpu).unwrap();
    let (value, gradients) = value_and_gradients(&[x], |args| {
        super::adaptive_margin(&args[0], &labels, &embeddings, Margins::Negatives)
    });
    // Random cosines have mean 0, so the mean hinge is near 1.
    assert!((0.8..1.2).contains(&value), "{value}");
    assert!(gradients[0].iter().any(|&g| g != 0.0));
}

/// The formula in loops.
fn naive_margin(x: &Tensor, labels: &Tensor, embeddings: &Tensor, margins: Margins) -> f64 {
    let [x, labels, embeddings]: [Vec<Vec<f64>>; 3] = [x, labels, embeddings].map(|t| t.to_vec2().unwrap());
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let cosine = |a: &[f64], b: &[f64]| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    let mut total = 0.0;
    for (x, labels) in x.iter().zip(&labels) {
        for (i, v_i) in embeddings.iter().enumerate().filter(|(i, _)| labels[*i] == 1.0) {
            for (j, v_j) in embeddings.iter().enumerate() {
                if i != j && (margins == Margins::All || labels[j] == 0.0) {
                    total += (1.0 - cosine(v_i, v_j) - cosine(v_i, x) + cosine(v_j, x)).max(0.0);
                }
            }
        }
    }
    total / (x.len() * embeddings.len()) as f64
}

#[test]
fn margin_equals_the_formula_in_loops() {
    for seed in 0..20 {
        let (n, n_classes, dim) = (1 + seed as usize % 8, 1 + seed as usize * 3 % 11, 6);
        let (x, embeddings) = (random(&[n, dim], seed), random(&[n_classes, dim], seed + 100));
        let labels = several_labels(n, n_classes, seed + 200);
        for margins in MARGINS {
            let value = adaptive_margin(&x, &labels, &embeddings, margins).unwrap();
            let expected = naive_margin(&x, &labels, &embeddings, margins);
            assert!((flat(&value)[0] - expected).abs() < 1e-12, "{value} {expected}");
        }
    }
}

#[test]
fn with_one_label_both_margins_are_the_same() {
    let (x, embeddings, labels) = (random(&[10, 6], 5), random(&[4, 6], 6), one_label(10, 4));
    let [negatives, all] = MARGINS.map(|margins| {
        value_and_gradients(std::slice::from_ref(&x), |args| {
            adaptive_margin(&args[0], &labels, &embeddings, margins)
        })
    });
    assert_close(&[negatives.0], &[all.0], 1e-12);
    assert_close(&negatives.1[0], &all.1[0], 1e-12);
    let labels = several_labels(10, 4, 7);
    let [negatives, all] =
        MARGINS.map(|margins| flat(&adaptive_margin(&x, &labels, &embeddings, margins).unwrap())[0]);
    assert!(negatives < all, "{negatives} {all}");
}

/// Classes 0 and 1 are the same; only class 2 differs from them.
#[test]
fn equal_classes_need_no_margin() {
    let embeddings = f32s(&[&[0.6, 0.8, 0.0], &[0.6, 0.8, 0.0], &[0.0, 0.0, 1.0]]);
    let labels = f32s(&[&[1.0, 0.0, 0.0]]);
    let near = f32s(&[&[3.0, 4.0, 0.0]]);
    let far = f32s(&[&[0.0, 0.0, 2.0]]);
    for margins in MARGINS {
        let at = |x: &Tensor| flat(&adaptive_margin(x, &labels, &embeddings, margins).unwrap())[0];
        assert!(at(&near) < 1e-6);
        // δ = 1, cosines 0 and 1: a hinge of 2 against class 2, nothing against class 1.
        assert_close(&[at(&far)], &[2.0 / 3.0], 1e-6);
        let two_equal = embeddings.narrow(0, 0, 2).unwrap();
        let labels = labels.narrow(1, 0, 2).unwrap();
        let x = random(&[1, 3], 8).to_dtype(DType::F32).unwrap();
        let (value, gradients) =
            value_and_gradients(&[x], |args| adaptive_margin(&args[0], &labels, &two_equal, margins));
        assert!(value < 1e-6 && gradients[0].iter().all(|g| g.abs() < 1e-6), "{value} {gradients:?}");
    }
}

/// A hinge at its corner is inactive: orthogonal classes and a feature on its own give max(0, 1 − 1
/// + 0).
#[test]
fn a_hinge_at_0_has_no_gradient() {
    let embeddings = f32s(&[&[1.0, 0.0], &[0.0, 1.0]]);
    let labels = f32s(&[&[1.0, 0.0]]);
    for margins in MARGINS {
        let at = |x: &[f32]| {
            value_and_gradients(&[f32s(&[x])], |args| {
                adaptive_margin(&args[0], &labels, &embeddings, margins)
            })
        };
        let (value, gradients) = at(&[2.0, 0.0]);
        assert_eq!((value, &gradients[0][..]), (0.0, &[0.0, 0.0][..]));
        // Turned towards the other class: 1 − 0.8 + 0.6, over 2. The gradient is across x, as
        // length does not count.
        let (value, gradients) = at(&[0.8, 0.6]);
        assert_close(&[value], &[0.4], 1e-6);
        assert_close(&gradients[0], &[-0.42, 0.56], 1e-5);
        let longer = at(&[8.0, 6.0]);
        assert_close(&[longer.0], &[0.4], 1e-6);
        assert_close(&longer.1[0], &[-0.042, 0.056], 1e-5);
    }
}

#[test]
fn a_feature_of_length_0_has_no_gradient() {
    let embeddings = Tensor::eye(8, DType::F32, &Device::Cpu).unwrap().narrow(0, 0, 4).unwrap();
    let x = Tensor::zeros((1, 8), DType::F32, &Device::Cpu).unwrap();
    let labels = f32s(&[&[0.0, 1.0, 0.0, 0.0]]);
    let (value, gradients) =
        value_and_gradients(&[x], |args| adaptive_margin(&args[0], &labels, &embeddings, Margins::Negatives));
    assert_close(&[value], &[3.0 / 4.0], 1e-5);
    assert!(gradients[0].iter().all(|&g| g == 0.0));
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let (labels, embeddings) = (several_labels(3, 4, 9), random(&[4, 5], 10));
    assert!(classification(&random(&[3, 5], 11), &labels, true).is_err());
    assert!(classification(&random(&[3, 5], 11), &labels, false).is_err());
    for margins in MARGINS {
        assert!(adaptive_margin(&random(&[3, 6], 12), &labels, &embeddings, margins).is_err());
        assert!(adaptive_margin(&random(&[2, 5], 12), &labels, &embeddings, margins).is_err());
    }
}
