//! Training of product codebooks.

use std::fs;

use dpq_codebook::Form;
use dpq_file::Container;
use dpq_model::config::Schedule;
use dpq_model::{EpochReport, Error, Model};
use tempfile::TempDir;

use crate::train::{Run, SCHEDULES, config, run};

fn how<'a>(resume: bool, stop_after: Option<usize>, on_epoch: &'a mut dyn FnMut(&EpochReport)) -> Run<'a> {
    Run { resume, embeddings: None, stop_after, on_epoch }
}

/// Every schedule trains product codebooks, a resumed run included; the file says so.
#[test]
fn product_codebooks_are_trained_kept_and_resumed() {
    for (schedule, unit) in SCHEDULES.into_iter().flat_map(|schedule| [(schedule, false), (schedule, true)]) {
        let mut config = config(schedule);
        (config.quantizer.form, config.quantizer.unit_codewords) = (Form::Product, unit);
        if schedule == Schedule::TwoStep && unit {
            continue;
        }
        let [whole, parts] = [(), ()].map(|()| TempDir::new().unwrap());
        let mut distortion = Vec::new();
        let mut keep = |report: &EpochReport| distortion = report.relative_distortion.clone();
        let model = run(&config, whole.path(), how(false, None, &mut keep)).unwrap();
        assert!(distortion.len() == 1 && distortion[0] < 1.0, "{schedule:?}: {distortion:?}");
        assert_eq!((model.codebooks().form(), model.codebooks().shape()), (Form::Product, [2, 8, 6]));
        let norm = |c: &[f32]| c.iter().map(|x| x * x).sum::<f32>().sqrt();
        let mut norms = model.codebooks().values().chunks_exact(6).map(norm);
        assert_eq!(norms.all(|norm| (norm - 1.0).abs() < 1e-5), unit);

        let mut ignore = |_: &EpochReport| {};
        let stopped = run(&config, parts.path(), how(false, Some(1), &mut ignore));
        assert!(matches!(stopped, Err(Error::Interrupted { .. })));
        run(&config, parts.path(), how(true, None, &mut ignore)).unwrap();
        let [path, resumed] = [&whole, &parts].map(|dir| dir.path().join("model.safetensors"));
        assert!(fs::read(&path).unwrap() == fs::read(&resumed).unwrap(), "{schedule:?}");
        let opened = Model::open(&path).unwrap();
        assert_eq!(opened.codebooks(), model.codebooks());
        let file = Container::open(&path).unwrap();
        assert_eq!((file.metadata("version").unwrap(), file.metadata("form").unwrap()), ("2", "product"));
    }
}
