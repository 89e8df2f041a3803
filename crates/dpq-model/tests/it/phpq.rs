//! Training on a pyramid of stages, with a classifier of features and partial attention.

use std::fs;

use dpq_codebook::Form;
use dpq_model::config::{Feature, Pooling, Pyramid, Schedule};
use dpq_model::{EpochReport, Error, Model, TrainConfig};
use tempfile::TempDir;

use crate::train::{N, Run, config, image, labels, run};

fn phpq(form: Form, pyramid: Pyramid) -> TrainConfig {
    let mut config = config(Schedule::Joint { features_first: 0.5 });
    // Two epochs are 14 steps, after which losses are still those of chance.
    (config.epochs, config.network.dropout) = (8, 0.0);
    (config.network.feature, config.network.pyramid) = (Feature::Classified, Some(pyramid));
    (config.quantizer.form, config.quantizer.attention) = (form, Some(3));
    (config.loss.margin, config.loss.prefix_classification) = (0.0, 0.5);
    config
}

fn how<'a>(resume: bool, stop_after: Option<usize>, on_epoch: &'a mut dyn FnMut(&EpochReport)) -> Run<'a> {
    Run { resume, embeddings: None, stop_after, on_epoch }
}

#[test]
fn both_forms_learn_resume_and_reopen() {
    for (form, pooling) in [(Form::Progressive, Pooling::Both), (Form::Product, Pooling::Maximum)] {
        let config = phpq(form, Pyramid { stages: 2, pooling });
        let [whole, parts] = [(), ()].map(|()| TempDir::new().unwrap());
        let mut losses = Vec::new();
        let mut keep = |report: &EpochReport| losses.push(report.losses.clone());
        let model = run(&config, whole.path(), how(false, None, &mut keep)).unwrap();
        assert!(!losses[3].contains_key("prefix_classification"));
        // Chance between two classes has a loss of ln 2.
        let last = losses[7]["prefix_classification"];
        assert!(last < losses[4]["prefix_classification"] && last < 0.75 * 2f64.ln(), "{losses:?}");
        // 4 and 8 channels, by mean and maximum or by maximum alone.
        assert_eq!(model.body_dim(), if pooling == Pooling::Both { 24 } else { 12 });

        let mut ignore = |_: &EpochReport| {};
        let stopped = run(&config, parts.path(), how(false, Some(5), &mut ignore));
        assert!(matches!(stopped, Err(Error::Interrupted { .. })));
        run(&config, parts.path(), how(true, None, &mut ignore)).unwrap();
        let [path, resumed] = [&whole, &parts].map(|dir| dir.path().join("model.safetensors"));
        assert!(fs::read(&path).unwrap() == fs::read(&resumed).unwrap(), "{form:?}");

        let mut images = vec![0; N * 64];
        images.chunks_exact_mut(64).enumerate().for_each(|(row, out)| image(row, None, out));
        let output = Model::open(&path).unwrap().forward(&images).unwrap();
        assert_eq!(output, model.forward(&images).unwrap());
        let is_right = |(logits, hot): (&[f32], &[u8])| (logits[0] > logits[1]) == (hot[0] == 1);
        let labels = labels();
        let right = output.logits.chunks_exact(2).zip(labels.chunks_exact(2)).filter(|&x| is_right(x));
        assert!(right.count() > N * 9 / 10);
    }
}

#[test]
fn stages_of_a_pyramid_are_not_frozen() {
    let mut config = phpq(Form::Progressive, Pyramid { stages: 1, pooling: Pooling::Average });
    config.network.freeze = 2;
    let dir = TempDir::new().unwrap();
    let error =
        run(&config, dir.path(), how(false, None, &mut |_: &EpochReport| {})).unwrap_err().to_string();
    assert_eq!(error, "network.freeze: found 2, expected at most the 1 stages of the body below its pyramid");
    config.network.freeze = 1;
    run(&config, dir.path(), how(false, None, &mut |_: &EpochReport| {})).unwrap();
}
