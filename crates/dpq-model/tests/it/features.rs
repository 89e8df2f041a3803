//! Training on features that something else made: heads and codebooks alone.

use std::fs;
use std::path::Path;

use dpq_model::config::{AugmentConfig, Body, Feature, NetworkConfig, Schedule};
use dpq_model::{Error, Inputs, Model, Read, TrainConfig, TrainOptions, TrainSet, train};
use tempfile::TempDir;

use crate::train::{N, Run, config, labels, network, run};

const DIM: usize = 5;

/// Features of two classes that differ in the sign of one number, beside larger ones that say
/// nothing.
fn feature(row: usize, out: &mut [f32]) {
    let noise = |i: usize| ((row * 31 + i * 17) % 61) as f32 / 61.0;
    out.iter_mut().enumerate().for_each(|(i, x)| *x = 40.0 + noise(i));
    out[3] = if row.is_multiple_of(2) { 1.0 } else { -1.0 } + noise(3);
}

fn on_features() -> TrainConfig {
    let config = config(Schedule::Joint { features_first: 0.2 });
    TrainConfig {
        epochs: 10,
        network: NetworkConfig { body: Body::Features, ..config.network },
        augment: AugmentConfig::default(),
        ..config
    }
}

fn train_on(config: &TrainConfig, out: &Path, read: &Read<'_, f32>) -> Result<Model, Error> {
    let data = TrainSet {
        n_items: N,
        labels: &labels(),
        n_classes: 2,
        multi_label: false,
        embeddings: None,
        inputs: Inputs::Features { dim: DIM, read },
        weights: None,
    };
    train(config, &data, out, TrainOptions::default())
}

#[test]
fn heads_and_codebooks_learn_from_features() {
    let dir = TempDir::new().unwrap();
    let read = |row: usize, _: Option<u64>, out: &mut [f32]| {
        feature(row, out);
        Ok(())
    };
    let model = train_on(&on_features(), dir.path(), &read).unwrap();
    let path = dir.path().join("model.safetensors");
    let names: Vec<String> = network(&path).into_keys().collect();
    assert_eq!(names, ["classifier.bias", "classifier.weight", "embed.bias", "embed.weight"]);

    let mut features = vec![0.0; 100 * DIM];
    features.chunks_exact_mut(DIM).enumerate().for_each(|(i, out)| feature(1000 + i, out));
    let all = model.forward_features(&features).unwrap();
    assert_eq!(Model::open(&path).unwrap().forward_features(&features).unwrap(), all);
    for (row, logits) in all.logits.chunks_exact(2).enumerate() {
        assert_eq!(logits[0] > logits[1], row.is_multiple_of(2), "row {row}: {logits:?}");
    }
    let one = model.forward_features(&features[40 * DIM..][..DIM]).unwrap();
    assert_eq!(one.features, all.features[40 * 12..][..12]);

    let error = |error: Error| error.to_string();
    assert!(error(model.forward(&[0; DIM]).unwrap_err()).contains("the model takes features of 5 numbers"));
    assert!(
        error(model.forward_features(&[0.0; 7]).unwrap_err()).contains("found 7 numbers, expected rows of 5")
    );
    features[12] = f32::NAN;
    assert!(error(model.forward_features(&features).unwrap_err()).contains("row 2, column 2 is NaN"));
}

#[test]
fn features_that_cannot_be_learnt_from_are_named() {
    let dir = TempDir::new().unwrap();
    let read = |row: usize, _: Option<u64>, out: &mut [f32]| {
        feature(row, out);
        if row == 150 {
            out[1] = f32::INFINITY;
        }
        Ok(())
    };
    let error = |config: &TrainConfig| train_on(config, dir.path(), &read).unwrap_err().to_string();
    assert_eq!(error(&on_features()), "features: row 150, column 1 is inf, expected finite numbers");
    assert!(error(&config(Schedule::TwoStep)).starts_with("network.body: expected `features`"));
    let whole = Run { resume: false, embeddings: None, stop_after: None, on_epoch: &mut |_| {} };
    let images = run(&on_features(), dir.path(), whole).unwrap_err().to_string();
    assert!(images.starts_with("network.body: expected `features`"), "{images}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is written");
}

#[test]
fn the_body_of_a_network_makes_what_its_heads_take() {
    let images: Vec<u8> = (0..70 * 64).map(|i| (i * 7919 % 251) as u8).collect();
    // Label embeddings of lengths 5 and 2.
    let mut embeddings = [0.0; 24];
    (embeddings[1], embeddings[2], embeddings[14]) = (3.0, -4.0, 2.0);
    for feature in [Feature::Tanh, Feature::Posterior { tanh: 0.25, temperature: 2.0 }] {
        let dir = TempDir::new().unwrap();
        let mut config = config(Schedule::TwoStep);
        config.network.feature = feature;
        let how =
            Run { resume: false, embeddings: Some(&embeddings), stop_after: None, on_epoch: &mut |_| {} };
        let model = run(&config, dir.path(), how).unwrap();
        let path = dir.path().join("model.safetensors");
        let output = Model::open(&path).unwrap().forward(&images).unwrap();
        assert_eq!(output, model.forward(&images).unwrap());
        let body = model.body(&images).unwrap();
        assert_eq!(body.len(), 70 * 16);

        // By hand.
        let tensors = network(&path);
        let floats = |name: &str| -> Vec<f64> {
            let values = tensors[name].chunks_exact(4);
            values.map(|x| f32::from_le_bytes(x.try_into().unwrap()).into()).collect()
        };
        let linear = |f: &[f32], head: &str| -> Vec<f64> {
            let rows = floats(&format!("{head}.weight"));
            let rows = rows.chunks_exact(16).zip(floats(&format!("{head}.bias")));
            let product = |row: &[f64]| row.iter().zip(f).map(|(w, &f)| w * f64::from(f)).sum::<f64>();
            rows.map(|(row, bias)| bias + product(row)).collect()
        };
        for (f, x) in body.chunks_exact(16).zip(output.features.chunks_exact(12)) {
            let mut expected: Vec<f64> = linear(f, "embed").iter().map(|x| x.tanh()).collect();
            if feature != Feature::Tanh {
                expected.iter_mut().for_each(|x| *x *= 0.25);
                let logits = linear(f, "classifier");
                let p = 1.0 / (1.0 + ((logits[1] - logits[0]) / 2.0).exp());
                // p · (0.6, −0.8) + (1 − p) · (0, 1) in dimensions 1 and 2.
                expected[1] += 0.6 * p;
                expected[2] += 1.0 - 1.8 * p;
            }
            for (&x, expected) in x.iter().zip(expected) {
                assert!((expected - f64::from(x)).abs() < 1e-5, "{feature:?}: {x}, expected {expected}");
            }
        }
    }
}

#[test]
fn a_posterior_needs_one_label_per_item() {
    let dir = TempDir::new().unwrap();
    let mut config = on_features();
    config.network.feature = Feature::Posterior { tanh: 0.1, temperature: 1.0 };
    let data = TrainSet {
        n_items: N,
        labels: &labels(),
        n_classes: 2,
        multi_label: true,
        embeddings: None,
        inputs: Inputs::Features { dim: DIM, read: &|_, _, _| Ok(()) },
        weights: None,
    };
    let error = train(&config, &data, dir.path(), TrainOptions::default()).unwrap_err().to_string();
    assert!(error.starts_with("network.feature: expected `tanh`"), "{error}");
}
