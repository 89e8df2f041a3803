//! Losses and gradients against NumPy, and the bounds that attacked images keep.

use candle_core::{DType, Device};
use dpq_codebook::{Assignment, Codebooks};

use super::*;
use crate::TrainConfig;
use crate::config::{Body, Feature, StageOrder};
use crate::header::Header;
use crate::inference::Folded;
use crate::network::Network;
use crate::tests::{assert_close, golden, numbers, value_and_gradients};

const LOSSES: [AttackLoss; 3] = [AttackLoss::Aod, AttackLoss::Apd, AttackLoss::Basic];

#[test]
fn values_and_gradients_are_those_of_the_formulas() {
    let golden = golden();
    let cases = golden["attack"].as_array().unwrap();
    assert_eq!(cases.len(), 10);
    for case in cases {
        let n_levels = case["codes"].as_array().unwrap().len() / 6;
        let dim = case["x"].as_array().unwrap().len() / 6;
        let width = case["codebook"].as_array().unwrap().len() / n_levels / 4;
        let tensor = |name: &str, shape: &[usize]| {
            Tensor::from_vec(numbers(&case[name]), shape, &Device::Cpu).unwrap()
        };
        let codes = tensor("codes", &[n_levels, 6]).to_dtype(DType::U32).unwrap();
        let clean = Clean {
            features: tensor("x", &[6, dim]),
            codes: (0..n_levels).map(|level| codes.get(level).unwrap()).collect(),
            codebook: tensor("codebook", &[n_levels, 4, width]),
        };
        let loss = case["loss"].as_str().unwrap().parse().unwrap();
        let level = case["level"].as_u64().map(|level| level as usize);
        let (value, gradients) =
            value_and_gradients(&[tensor("moved", &[6, dim])], |args| clean.loss(&args[0], loss, level));
        // Inputs have ten digits.
        assert_close(&[value], &[case["value"].as_f64().unwrap()], 1e-8);
        assert_close(&gradients[0], &numbers(&case["gradient"]), 1e-6);
        // An image that has not moved loses nothing, but its codeword may have been unlikely.
        let unmoved = clean.loss(&clean.features, loss, level).unwrap().to_scalar::<f64>().unwrap();
        assert!(unmoved.abs() < 1e-12 || loss == AttackLoss::Apd, "{unmoved}");
    }
}

/// An untrained model of images of 2×9×9 bytes, and images.
fn model(feature: Feature, mirror_average: bool) -> (Model, Vec<u8>, Vec<u32>) {
    let mut train = TrainConfig { mirror_average, ..TrainConfig::quick() };
    let order = StageOrder::ConvPoolNormRelu;
    train.network.body = Body::Small { channels: vec![6, 8], pools: 1, order, hidden: 20 };
    (train.network.dim, train.network.feature) = (7, feature);
    (train.quantizer.levels, train.quantizer.codewords) = (3, 8);
    let image_shape = [2, 9, 9];
    let network = Network::new(&train, image_shape, 4, &Device::Cpu).unwrap();
    let mut random = rng(3, Stream::Weights);
    let codewords = (0..3 * 8 * 7).map(|_| uniform(&mut random) as f32 - 0.5).collect();
    let images: Vec<u8> = (0..40 * 162).map(|_| (300.0 * uniform(&mut random) - 22.0) as u8).collect();
    let mut tensors = network.tensors();
    if let Some(of_classes) = tensors.get_mut("classes.embedding") {
        let vectors = (0..4 * 7).map(|_| uniform(&mut random) as f32 - 0.5).collect();
        *of_classes = Tensor::from_vec(vectors, (4, 7), &Device::Cpu).unwrap();
    }
    let model = Model {
        header: Header { train, image_shape, n_classes: 4, mean: vec![0.5, 0.4], deviation: vec![0.3, 0.2] },
        tensors,
        folded: Folded::default(),
        codebooks: Codebooks::new(codewords, 3, 8, 7, Assignment::Euclidean).unwrap(),
        embeddings: None,
        weights: None,
        device: Device::Cpu,
    };
    (model, images, (100..140).collect())
}

fn attack(loss: AttackLoss, epsilon: u8) -> Attack {
    Attack { loss, epsilon, steps: 5, level: None, seed: 1 }
}

#[test]
fn pixels_have_the_features_of_bytes_and_the_gradient_of_their_difference() {
    for (feature, mirror) in
        [(Feature::Tanh, true), (Feature::Posterior { tanh: 0.1, temperature: 1.5 }, false)]
    {
        let (model, images, _) = model(feature, mirror);
        let pixels = Tensor::from_vec(images[..162].to_vec(), (1, 2, 9, 9), &Device::Cpu).unwrap();
        let pixels = Var::from_tensor(&pixels.to_dtype(DType::F32).unwrap()).unwrap();
        let features = |pixels: &Tensor| {
            model.header.features_of_pixels((&model.tensors, &model.folded), pixels).unwrap()
        };
        let of_bytes = model.forward(&images[..162]).unwrap().features;
        let of_bytes: Vec<f64> = of_bytes.into_iter().map(f64::from).collect();
        assert_close(&crate::tests::flat(&features(&pixels)), &of_bytes, 1e-5);

        let sum = |pixels: &Tensor| features(pixels).sqr().unwrap().sum_all().unwrap();
        let gradients = backward(&sum(&pixels)).unwrap();
        let gradient = gradients.get(&pixels).unwrap();
        let length = gradient.sqr().unwrap().sum_all().unwrap().sqrt().unwrap();
        let direction = gradient.broadcast_div(&length).unwrap();
        let at = |step: f64| {
            let moved = (pixels.as_tensor() + (&direction * step).unwrap()).unwrap();
            f64::from(sum(&moved).to_scalar::<f32>().unwrap())
        };
        let slope = f64::from(length.to_scalar::<f32>().unwrap());
        let found = (at(0.1) - at(-0.1)) / 0.2;
        assert!((found - slope).abs() < 0.02 * slope, "{found}, expected {slope}");
    }
}

#[test]
fn no_byte_changes_by_more_than_epsilon_and_the_loss_grows() {
    let (model, images, rows) = model(Feature::Tanh, true);
    let features = |images: &[u8]| {
        Tensor::from_vec(model.forward(images).unwrap().features, (images.len() / 162, 7), &Device::Cpu)
            .unwrap()
    };
    let clean = model.clean(&images).unwrap();
    for loss in LOSSES {
        let of =
            |images: &[u8]| clean.loss(&features(images), loss, None).unwrap().to_scalar::<f32>().unwrap();
        let mut before = of(&images);
        for epsilon in [0, 1, 8, 200] {
            let attack = attack(loss, epsilon);
            let attacked = model.attack(&images, &rows, &attack).unwrap();
            let noise = attack.noise(&images, &rows).unwrap();
            assert!(images.iter().zip(&attacked).all(|(a, b)| a.abs_diff(*b) <= epsilon));
            let moved = |a: u8| [a.saturating_sub(epsilon), a.saturating_add(epsilon)];
            assert!(images.iter().zip(&noise).all(|(&a, b)| moved(a).contains(b)));
            if epsilon == 0 {
                assert!(attacked == images && noise == images);
                continue;
            }
            assert!(of(&attacked) > of(&noise) && of(&attacked) > before, "{loss}, {epsilon}");
            before = of(&attacked);
        }
    }
}

#[test]
fn an_attack_is_decided_by_seed_and_row() {
    let (model, images, rows) = model(Feature::Tanh, false);
    let attack = attack(AttackLoss::Aod, 8);
    let run = |n_threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        pool.install(|| model.attack(&images, &rows, &attack).unwrap())
    };
    let all = run(1);
    assert_eq!(all, run(3));
    assert_ne!(all, model.attack(&images, &rows, &Attack { seed: 2, ..attack }).unwrap());
    let other: Vec<u32> = (0..40).collect();
    assert_ne!(all, model.attack(&images, &other, &attack).unwrap());
    let of_level = |level| model.attack(&images, &rows, &Attack { level, ..attack }).unwrap();
    assert!(of_level(Some(0)) != all && of_level(Some(0)) != of_level(Some(2)));
}

#[test]
fn what_cannot_be_attacked_is_one_clear_error() {
    let (model, images, rows) = model(Feature::Tanh, false);
    let error = |images: &[u8], rows: &[u32], attack: Attack| {
        model.attack(images, rows, &attack).unwrap_err().to_string()
    };
    let good = attack(AttackLoss::Basic, 8);
    let found = [
        error(&images, &rows, Attack { steps: 0, ..good }),
        error(&images, &rows, Attack { loss: AttackLoss::Apd, level: Some(3), ..good }),
        error(&images, &rows, Attack { level: Some(0), ..good }),
        error(&images, &rows[1..], good),
        error(&images[1..], &rows, good),
        error(&[], &[], good),
        "sum".parse::<AttackLoss>().unwrap_err().to_string(),
    ];
    assert_eq!(
        found,
        [
            "steps: found 0 steps, expected at least 1",
            "level: found level 3, expected one of 3 from 0",
            "level: found a level for loss basic, which knows no codewords, expected loss aod or apd",
            "images: found 6480 bytes for 39 rows, expected an image for each row",
            "images: found 6479 bytes, expected images of 2x9x9 bytes",
            "images: found 0 bytes for 0 rows, expected an image for each row",
            "loss: found `sum`, expected aod, apd or basic",
        ]
    );
}
