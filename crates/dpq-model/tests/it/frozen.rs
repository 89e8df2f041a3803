//! Fine-tuning: stages that are not trained, and smaller images in the first epochs.

use std::path::Path;
use std::sync::Mutex;

use dpq_file::Container;
use dpq_model::config::{Block, Body, FirstInput, NetworkConfig, Schedule};
use dpq_model::{Inputs, TrainConfig, TrainOptions, TrainSet, train};
use tempfile::TempDir;

use crate::train::{N, Run, config, labels, run};

/// The values of a tensor of a model.
fn values(model: &Path, name: &str) -> Vec<f32> {
    let file = Container::open(model).unwrap();
    let shape = file.section(name).unwrap().shape.to_vec();
    file.floats(name, &shape).unwrap()
}

#[test]
fn frozen_stages_do_not_change() {
    let trained = |epochs: usize, freeze: usize| {
        let two_step = config(Schedule::TwoStep);
        let network = NetworkConfig { freeze, ..two_step.network.clone() };
        let dir = TempDir::new().unwrap();
        let config = TrainConfig { epochs, network, ..two_step };
        let how = Run { resume: false, embeddings: None, stop_after: None, on_epoch: &mut |_| {} };
        run(&config, dir.path(), how).map(|_| dir)
    };
    let moves = |name: &str, freeze: usize| {
        let of = |epochs| values(&trained(epochs, freeze).unwrap().path().join("model.safetensors"), name);
        of(1) != of(2)
    };
    for kind in ["conv.0.weight", "norm.0.gamma", "norm.0.mean"] {
        let name = format!("backbone.{kind}");
        assert!(moves(&name, 0) && !moves(&name, 1), "{name}");
        let above = name.replace('0', "1");
        assert!(moves(&above, 1) && !moves(&above, 2), "{above}");
    }
    assert!(moves("embed.weight", 3));
    let error = trained(1, 4).unwrap_err().to_string();
    assert_eq!(error, "network.freeze: found 4, expected at most the 3 stages of the body");
}

#[test]
fn the_first_epochs_have_smaller_images() {
    let trained = |body: Body, side: usize| {
        let joint = config(Schedule::Joint { features_first: 0.5 });
        let first_input = Some(FirstInput { side, share: 0.5 });
        let network = NetworkConfig { body, input: Some(16), first_input, ..joint.network.clone() };
        let config = TrainConfig { epochs: 4, network, ..joint };
        // The sides of images that are read with a seed, in training.
        let sides = Mutex::new(Vec::new());
        let read = |row: usize, seed: Option<u64>, out: &mut [u8]| {
            if seed.is_some() {
                sides.lock().unwrap().push(out.len().isqrt());
            }
            out.iter_mut().enumerate().for_each(|(i, pixel)| *pixel = (row * 31 + i * 17) as u8);
            Ok(())
        };
        let inputs = Inputs::Images { shape: [1, 16, 16], read: &read };
        let labels = labels();
        let set = TrainSet {
            n_items: N,
            labels: &labels,
            n_classes: 2,
            multi_label: false,
            embeddings: None,
            inputs,
            weights: None,
        };
        let dir = TempDir::new().unwrap();
        let model = train(&config, &set, dir.path(), TrainOptions::default())?;
        assert_eq!(model.image_shape(), [1, 16, 16]);
        Ok::<_, dpq_model::Error>(sides.into_inner().unwrap())
    };
    let resnet = Body::Resnet { block: Block::Basic, blocks: [1; 4], width: 2 };
    let sides = trained(resnet.clone(), 8).unwrap();
    assert_eq!(sides, [[8; 2 * N], [16; 2 * N]].concat());
    let error = |body: Body, side: usize| trained(body, side).unwrap_err().to_string();
    assert_eq!(
        error(resnet, 16),
        "network.first_input: expected a side less than `network.input` and a share in (0, 1)"
    );
    let small = config(Schedule::TwoStep).network.body;
    assert!(error(small, 8).starts_with("network.first_input: expected none, for a body with linear layers"));
}
