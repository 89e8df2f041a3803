//! Options of the configuration: what they change, and what they leave alone.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dpq_model::config::{Backbone, Schedule, Sharing, Start};
use dpq_model::{EpochReport, Error, Inputs, TrainConfig, TrainOptions, TrainSet, train};
use tempfile::TempDir;

use crate::train::{N, Run, SHAPE, config, image, labels, network, run};

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
    // Variables that differ between a run of one epoch and a run of two have learnt.
    for (backbone, n_still) in [(Backbone::Frozen, 8), (Backbone::Trained, 0)] {
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

#[test]
fn shared_codewords_differ_by_a_scale_that_is_learnt() {
    for start in [Start::Random, Start::ResidualKmeans] {
        let mut config = config(Schedule::Joint { features_first: 0.0 });
        config.quantizer.codebooks = Sharing::Shared;
        config.quantizer.start = start;
        let scale = |epochs| {
            let (_dir, model) = trained(&TrainConfig { epochs, ..config.clone() });
            let (first, second) = (model.codebooks().level(0), model.codebooks().level(1));
            let scale = second[0] / first[0];
            assert!(
                first.iter().zip(second).all(|(a, b)| (a * scale - b).abs() <= 1e-5 * b.abs()),
                "{scale}"
            );
            scale
        };
        assert!((scale(1) - scale(2)).abs() > 1e-4, "{start:?}");
    }
}

#[test]
fn shared_and_revived_codebooks_survive_an_interruption() {
    for codebooks in [Sharing::Shared, Sharing::Separate] {
        let mut config = config(Schedule::Joint { features_first: 0.0 });
        config.epochs = 3;
        (config.quantizer.codebooks, config.quantizer.codewords) = (codebooks, 128);
        config.quantizer.start = Start::Random;
        let mut train = |revive, interruptions: &[Option<usize>]| {
            config.quantizer.revive = revive;
            let dir = TempDir::new().unwrap();
            let mut reports = Vec::new();
            for &stop_after in interruptions {
                let on_epoch =
                    &mut |report: &EpochReport| reports.push((report.revived, report.usage.clone()));
                let how = Run { resume: true, embeddings: None, stop_after, on_epoch };
                assert_eq!(run(&config, dir.path(), how).is_err(), stop_after.is_some());
            }
            (reports, fs::read(dir.path().join("model.safetensors")).unwrap())
        };
        let (reports, bytes) = train(true, &[None]);
        for (i, (revived, usage)) in reports.iter().enumerate() {
            let dead: usize = usage.iter().map(|level| level.dead).sum();
            match codebooks {
                _ if i == 2 => assert_eq!(*revived, 0, "the last epoch leaves codewords as they have learnt"),
                Sharing::Separate => assert_eq!(*revived, dead),
                Sharing::Shared => assert!(*revived <= dead),
            }
        }
        assert!(reports[0].0 > 0, "{codebooks:?}");
        assert!(train(true, &[Some(1), Some(1), None]) == (reports, bytes.clone()), "{codebooks:?}");
        let (reports, other) = train(false, &[None]);
        assert!(reports.iter().all(|report| report.0 == 0) && other != bytes, "{codebooks:?}");
    }
}

/// Two-step training stops while it collects the features for its codebooks too.
#[test]
fn a_run_stops_after_its_last_step() {
    let (dir, stop, n_reads) = (TempDir::new().unwrap(), AtomicBool::new(false), AtomicUsize::new(0));
    let data = TrainSet {
        n_items: N,
        labels: &labels(),
        n_classes: 2,
        multi_label: false,
        embeddings: None,
        inputs: Inputs::Images {
            shape: SHAPE,
            read: &|row, seed, out| {
                // Without a seed an item is read twice: for the moments and for its feature.
                if seed.is_none() && n_reads.fetch_add(1, Ordering::Relaxed) == N {
                    stop.store(true, Ordering::Relaxed);
                }
                image(row, seed, out);
                Ok(())
            },
        },
        weights: None,
    };
    let options = TrainOptions { stop: Some(&stop), ..TrainOptions::default() };
    let stopped = train(&config(Schedule::TwoStep), &data, dir.path(), options);
    assert!(matches!(stopped, Err(Error::Interrupted { epoch: 1 })), "{stopped:?}");
}
