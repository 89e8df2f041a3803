//! What options of the configuration change, and what they leave alone.

use dpq_model::TrainConfig;
use dpq_model::config::{Backbone, Schedule, Start};
use tempfile::TempDir;

use crate::train::{Run, config, network, run};

/// Trains in a folder of its own, which is gone with what is returned.
fn trained(config: &TrainConfig) -> (TempDir, dpq_model::Model) {
    let dir = TempDir::new().unwrap();
    let whole = Run { resume: false, embeddings: None, stop_after: None, on_epoch: &mut |_| {} };
    let model = run(config, dir.path(), whole).unwrap();
    (dir, model)
}

#[test]
fn a_frozen_backbone_stays_as_it_was_drawn() {
    let mut config = config(Schedule::Joint { features_first: 0.0 });
    let parameters = |config: &TrainConfig| {
        let (dir, _) = trained(config);
        let mut tensors = network(&dir.path().join("model.safetensors"));
        tensors.retain(|name, _| !name.ends_with(".mean") && !name.ends_with(".var"));
        tensors
    };
    // What differs between a run of one epoch and a run of two has learnt.
    for (backbone, n_still) in [(Backbone::FrozenRandom, 8), (Backbone::Trained, 0)] {
        config.network.backbone = backbone;
        let [one, two] = [1, 2].map(|epochs| parameters(&TrainConfig { epochs, ..config.clone() }));
        let still: Vec<&String> = one.keys().filter(|&name| one[name] == two[name]).collect();
        assert_eq!(still.len(), n_still, "{still:?}");
        assert!(still.iter().all(|name| name.starts_with("backbone.")), "{still:?}");
    }
}

#[test]
fn without_the_margin_loss_a_feature_is_a_projection_that_nothing_moves() {
    let mut config = config(Schedule::TwoStep);
    config.loss.margin = 0.0;
    let embed = |epochs| {
        let (dir, _) = trained(&TrainConfig { epochs, ..config.clone() });
        network(&dir.path().join("model.safetensors")).remove("embed.weight")
    };
    assert!(embed(1).is_some() && embed(1) == embed(2));
}

#[test]
fn without_soft_assignment_only_chosen_codewords_learn() {
    let mut config = config(Schedule::Alternating { features_first: 0.0 });
    config.quantizer.start = Start::Random;
    config.loss.joint_center = 0.0;
    let mut n_still = |soft| {
        config.loss.soft = soft;
        let [one, two] = [1, 2]
            .map(|epochs| trained(&TrainConfig { epochs, ..config.clone() }).1.codebooks().values().to_vec());
        one.chunks(12).zip(two.chunks(12)).filter(|(one, two)| one == two).count()
    };
    assert_eq!(n_still(1.0), 0);
    assert!((1..16).contains(&n_still(0.0)));
}
