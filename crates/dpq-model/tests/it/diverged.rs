//! Runs that run away: they stop, and say where.

use std::fs;
use std::path::Path;

use dpq_model::config::{OptimizerConfig, RateSchedule, Schedule};
use dpq_model::{Error, TrainConfig};
use serde_json::Value;
use tempfile::TempDir;

use crate::train::{N, Run, config, run};

/// Trains, and returns the error's sentence and what the dump says.
fn diverged(config: &TrainConfig, dir: &Path) -> (String, Value) {
    let run = Run { resume: true, embeddings: None, stop_after: None, on_epoch: &mut |_| {} };
    let error = self::run(config, dir, run).unwrap_err();
    let sentence = error.to_string();
    let Error::Diverged { dump, .. } = error else { panic!("{error}") };
    assert_eq!(dump, dir.join("diverged.json"));
    assert!(
        sentence.ends_with(&format!("lower the learning rate ({} says more)", dump.display())),
        "{sentence}"
    );
    (sentence, serde_json::from_slice(&fs::read(dump).unwrap()).unwrap())
}

#[test]
fn a_loss_that_runs_away_stops_the_run() {
    let dir = TempDir::new().unwrap();
    let mut config = config(Schedule::TwoStep);
    config.network_optimizer.rate = 1e30;
    let (sentence, dump) = diverged(&config, dir.path());
    assert!(
        sentence.starts_with("loss `classification` is NaN in epoch 1, step 2, expected finite"),
        "{sentence}"
    );
    assert_eq!((&dump["epoch"], &dump["step"], &dump["checkpoint"]), (&0.into(), &1.into(), &Value::Null));
    assert_eq!(dump["losses"]["classification"], "NaN");
    // Squares of 1e30 are beyond f32, so the moments go first.
    assert_eq!(dump["parameter"], "backbone.norm.0.var");
}

#[test]
fn a_checkpoint_is_never_of_numbers_that_are_not_finite() {
    let dir = TempDir::new().unwrap();
    let mut config = TrainConfig { batch_size: N, ..config(Schedule::TwoStep) };
    // One step an epoch, the second 1e39 times as large as the first: no loss is computed after it.
    let rate_schedule = RateSchedule::Exponential { factor: 1e42, every: 1 };
    config.network_optimizer = OptimizerConfig { rate_schedule, ..config.network_optimizer };
    let (sentence, dump) = diverged(&config, dir.path());
    assert!(sentence.starts_with("parameter `backbone.conv.0.weight` is "), "{sentence}");
    assert_eq!((&dump["epoch"], &dump["step"]), (&1.into(), &0.into()));
    assert!(dump["losses"]["margin"].is_f64(), "{dump}");
    let checkpoint = dir.path().join("checkpoint.safetensors");
    assert_eq!(dump["checkpoint"].as_str().map(Path::new), Some(&*checkpoint));

    // The checkpoint is from the last good epoch: a resumed run ends in the same way.
    assert_eq!(diverged(&config, dir.path()), (sentence, dump));
}
