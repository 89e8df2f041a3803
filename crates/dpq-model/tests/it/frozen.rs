//! Stages that are not trained.

use std::path::Path;

use dpq_file::Container;
use dpq_model::TrainConfig;
use dpq_model::config::{Moments, NetworkConfig, Schedule};
use tempfile::TempDir;

use crate::train::{Run, config, run};

/// The values of a tensor of a model.
fn values(model: &Path, name: &str) -> Vec<f32> {
    let file = Container::open(model).unwrap();
    let shape = file.section(name).unwrap().shape.to_vec();
    file.floats(name, &shape).unwrap()
}

#[test]
fn frozen_stages_and_stored_moments_do_not_change() {
    let trained = |epochs: usize, freeze: usize, moments: Moments| {
        let two_step = config(Schedule::TwoStep);
        let network = NetworkConfig { freeze, moments, ..two_step.network.clone() };
        let dir = TempDir::new().unwrap();
        let config = TrainConfig { epochs, network, ..two_step };
        let how = Run { resume: false, embeddings: None, stop_after: None, on_epoch: &mut |_| {} };
        run(&config, dir.path(), how).map(|_| dir)
    };
    let moves = |name: &str, freeze: usize, moments: Moments| {
        let of = |epochs| {
            values(&trained(epochs, freeze, moments).unwrap().path().join("model.safetensors"), name)
        };
        of(1) != of(2)
    };
    for (kind, of_batch) in [("conv.0.weight", true), ("norm.0.gamma", true), ("norm.0.mean", false)] {
        let name = format!("backbone.{kind}");
        assert!(moves(&name, 0, Moments::Batch), "{name}");
        assert_eq!(moves(&name, 0, Moments::Stored), of_batch, "{name}");
        assert!(!moves(&name, 1, Moments::Batch), "{name}");
        let above = name.replace('0', "1");
        assert!(moves(&above, 1, Moments::Batch), "{above}");
        assert!(!moves(&above, 2, Moments::Batch), "{above}");
    }
    assert!(moves("embed.weight", 3, Moments::Batch));
    let error = trained(1, 4, Moments::Batch).unwrap_err().to_string();
    assert_eq!(error, "network.freeze: found 4, expected at most the 3 stages of the body");
}
