//! Training: a seed decides the bytes, a resumed run ends where an unbroken one does, and what goes
//! wrong is named.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use dpq_codebook::Assignment;
use dpq_file::{Container, Section};
use dpq_model::config::{Body, Feature, NetworkConfig, QuantizerConfig, Schedule, StageOrder, Start};
use dpq_model::{
    Device, EpochReport, Error, Inputs, Model, Snapshot, TrainConfig, TrainOptions, TrainSet, train,
};
use tempfile::TempDir;

pub(crate) const N: usize = 200;
pub(crate) const SHAPE: [usize; 3] = [1, 8, 8];

/// A small network and few codewords; two epochs.
pub(crate) fn config(schedule: Schedule) -> TrainConfig {
    let best = TrainConfig::best();
    TrainConfig {
        epochs: 2,
        batch_size: 32,
        // The classes of these images are mirror images of each other.
        mirror_average: false,
        schedule,
        network: NetworkConfig {
            body: Body::Small {
                channels: vec![4, 8],
                pools: 2,
                order: StageOrder::ConvPoolNormRelu,
                hidden: 16,
            },
            dim: 12,
            ..best.network.clone()
        },
        quantizer: QuantizerConfig { levels: 2, codewords: 8, ..best.quantizer },
        ..best
    }
}

/// Images of two classes: a bright left or right half, with noise that an augmentation seed
/// changes.
pub(crate) fn image(row: usize, seed: Option<u64>, out: &mut [u8]) {
    for (i, pixel) in out.iter_mut().enumerate() {
        let noise = (row * 31 + i * 17 + seed.unwrap_or(0) as usize % 1000) % 61;
        let bright = (i % 8 < 4) == row.is_multiple_of(2);
        *pixel = if bright { 150 + noise as u8 } else { noise as u8 };
    }
}

pub(crate) struct Run<'a> {
    pub(crate) resume: bool,
    pub(crate) embeddings: Option<&'a [f32]>,
    /// Sets `stop` after this many epochs.
    pub(crate) stop_after: Option<usize>,
    pub(crate) on_epoch: &'a mut dyn FnMut(&EpochReport),
}

/// The classes of N items, multi-hot u8 `[N, 2]`: of each in turn.
pub(crate) fn labels() -> Vec<u8> {
    (0..N).flat_map(|row| if row.is_multiple_of(2) { [1, 0] } else { [0, 1] }).collect()
}

pub(crate) fn run(config: &TrainConfig, out: &Path, how: Run<'_>) -> Result<Model, Error> {
    run_on(Device::Cpu, config, out, how)
}

pub(crate) fn run_on(device: Device, config: &TrainConfig, out: &Path, run: Run<'_>) -> Result<Model, Error> {
    let data = TrainSet {
        n_items: N,
        labels: &labels(),
        n_classes: 2,
        multi_label: false,
        embeddings: run.embeddings,
        inputs: Inputs::Images {
            shape: SHAPE,
            read: &|row, seed, out| {
                image(row, seed, out);
                Ok(())
            },
        },
        weights: None,
    };
    let stop = AtomicBool::new(false);
    let mut epochs = 0;
    let mut on_epoch = |report: &EpochReport, _: &Snapshot<'_>| {
        epochs += 1;
        stop.store(run.stop_after == Some(epochs), Ordering::Relaxed);
        (run.on_epoch)(report);
        Ok(())
    };
    let options =
        TrainOptions { device, resume: run.resume, stop: Some(&stop), on_epoch: Some(&mut on_epoch) };
    train(config, &data, out, options)
}

fn bytes(config: &TrainConfig, threads: usize) -> Vec<u8> {
    let dir = TempDir::new().unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let whole = |_: &EpochReport| {};
    pool.install(|| {
        run(
            config,
            dir.path(),
            Run { resume: false, embeddings: None, stop_after: None, on_epoch: &mut { whole } },
        )
    })
    .unwrap();
    fs::read(dir.path().join("model.safetensors")).unwrap()
}

pub(crate) const SCHEDULES: [Schedule; 3] = [
    Schedule::TwoStep,
    Schedule::Alternating { features_first: 0.5 },
    Schedule::Joint { features_first: 0.0 },
];

#[test]
fn a_seed_decides_the_bytes_at_any_number_of_threads() {
    for schedule in SCHEDULES {
        let config = config(schedule);
        let first = bytes(&config, 1);
        for threads in [1, 2, 2] {
            assert!(bytes(&config, threads) == first, "{schedule:?} with {threads} threads");
        }
        assert!(bytes(&TrainConfig { seed: 2, ..config }, 1) != first);
    }
}

#[test]
fn a_resumed_run_ends_with_the_bytes_of_an_unbroken_one() {
    for (i, schedule) in SCHEDULES.into_iter().enumerate() {
        let mut config = TrainConfig { epochs: 3, ..config(schedule) };
        match i {
            1 => config.network.freeze = 1,
            2 => config.network.feature = Feature::Posterior { tanh: 0.1, temperature: 2.0 },
            _ => {}
        }
        let unbroken = bytes(&config, 2);
        let dir = TempDir::new().unwrap();
        let stopped = run(
            &config,
            dir.path(),
            Run { resume: true, embeddings: None, stop_after: Some(2), on_epoch: &mut |_| {} },
        );
        assert!(matches!(stopped, Err(Error::Interrupted { epoch: 2 })), "{schedule:?}");
        assert!(!dir.path().join("model.safetensors").exists());
        let epochs = Cell::new(vec![]);
        let mut record = |report: &EpochReport| epochs.set([epochs.take(), vec![report.epoch]].concat());
        run(
            &config,
            dir.path(),
            Run { resume: true, embeddings: None, stop_after: None, on_epoch: &mut record },
        )
        .unwrap();
        assert_eq!(epochs.take(), [2]);
        assert!(fs::read(dir.path().join("model.safetensors")).unwrap() == unbroken, "{schedule:?}");
    }
}

#[test]
fn a_checkpoint_of_another_configuration_is_refused() {
    let dir = TempDir::new().unwrap();
    let go = |config: &TrainConfig| {
        run(
            config,
            dir.path(),
            Run { resume: true, embeddings: None, stop_after: None, on_epoch: &mut |_| {} },
        )
    };
    let config = config(Schedule::TwoStep);
    go(&config).unwrap();
    let error = go(&TrainConfig { seed: 2, ..config }).unwrap_err().to_string();
    assert!(error.contains("the checkpoint is of another configuration or data set"), "{error}");
}

#[test]
fn what_is_plain_to_see_is_learnt_and_reported() {
    let dir = TempDir::new().unwrap();
    let mut reports = Vec::new();
    let mut config = TrainConfig { epochs: 6, ..config(Schedule::Joint { features_first: 0.5 }) };
    config.network_optimizer.rate = 2e-2;
    let run = Run {
        resume: false,
        embeddings: None,
        stop_after: None,
        on_epoch: &mut |report| reports.push(report.clone()),
    };
    let model = self::run(&config, dir.path(), run).unwrap();

    assert_eq!(reports.iter().map(|report| report.epoch).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    let loss = |epoch: usize, name: &str| reports[epoch].losses.get(name).copied();
    assert!(loss(5, "margin") < loss(0, "margin") && loss(5, "classification") < loss(0, "classification"));
    assert_eq!((loss(2, "hard_distortion"), reports[2].usage.len()), (None, 0));
    assert!(loss(3, "hard_distortion").is_some() && reports[3].usage.len() == 2);
    let last = &reports[5];
    assert!(last.relative_distortion[1] <= last.relative_distortion[0] && last.relative_distortion[0] < 0.5);
    assert!(last.usage.iter().all(|level| level.used + level.dead == 8));

    let mut images = vec![0; 20 * 64];
    images.chunks_exact_mut(64).enumerate().for_each(|(row, out)| image(row, None, out));
    let output = model.forward(&images).unwrap();
    let right =
        output.logits.chunks_exact(2).enumerate().filter(|(row, o)| (o[0] > o[1]) == row.is_multiple_of(2));
    assert_eq!(right.count(), 20);
}

/// With the first two axes as vectors of the classes, features come to lie along them.
#[test]
fn given_label_embeddings_are_what_features_learn() {
    let dir = TempDir::new().unwrap();
    let mut config = TrainConfig { epochs: 6, ..config(Schedule::TwoStep) };
    config.loss.classification = 0.0;
    let mut axes = vec![0.0; 2 * 12];
    (axes[0], axes[12 + 1]) = (1.0, 1.0);
    let go = |embeddings| {
        let on_epoch = &mut |_: &EpochReport| {};
        run(&config, dir.path(), Run { resume: true, embeddings, stop_after: None, on_epoch })
    };
    let model = go(Some(&axes)).unwrap();
    assert!(model.embeddings().is_some_and(|embeddings| embeddings.starts_with("given, crc32c ")));
    let mut images = vec![0; 20 * 64];
    images.chunks_exact_mut(64).enumerate().for_each(|(row, out)| image(row, None, out));
    for (row, x) in model.forward(&images).unwrap().features.chunks_exact(12).enumerate() {
        assert!((x[0] > x[1]) == row.is_multiple_of(2), "{x:?}");
    }

    let error = |embeddings| go(embeddings).unwrap_err().to_string();
    assert!(error(None).contains("the checkpoint is of another configuration or data set"));
    assert!(error(Some(&axes[1..])).contains("found 23 values, expected 2 classes × 12 dimensions"));
    assert!(error(Some(&[0.0; 2 * 12])).contains("the vector of class 0 is 0 or not finite"));
}

#[test]
fn configurations_and_data_that_cannot_be_used_are_refused() {
    let dir = TempDir::new().unwrap();
    let error = |config: &TrainConfig| {
        let run = run(
            config,
            dir.path(),
            Run { resume: false, embeddings: None, stop_after: None, on_epoch: &mut |_| {} },
        );
        run.unwrap_err().to_string()
    };
    let good = config(Schedule::TwoStep);
    let mut random = good.clone();
    random.quantizer.start = Start::Random;
    assert!(error(&random).contains("quantizer.start: expected `residual-kmeans` for two-step training"));
    let mut many = good.clone();
    many.quantizer.codewords = 256;
    assert!(error(&many).contains("quantizer.codewords: found 256, expected at most the 200 training items"));
    // Random codebooks need no features to start from.
    let random = TrainConfig { schedule: Schedule::Joint { features_first: 0.0 }, ..random };
    let mut random_many = random;
    random_many.quantizer.codewords = 256;
    let elsewhere = TempDir::new().unwrap();
    run(
        &random_many,
        elsewhere.path(),
        Run { resume: false, embeddings: None, stop_after: None, on_epoch: &mut |_| {} },
    )
    .unwrap();
    let mut deep = good;
    deep.network.body =
        Body::Small { channels: vec![2; 4], pools: 4, order: StageOrder::ConvNormReluPool, hidden: 8 };
    assert!(error(&deep).contains("too small for the network"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is written");
}

#[test]
fn models_survive_their_file_and_batches_change_nothing() {
    let dir = TempDir::new().unwrap();
    let mut config = config(Schedule::Alternating { features_first: 0.0 });
    config.quantizer.assignment = Assignment::Cosine;
    config.quantizer.start = Start::Random;
    let model = run(
        &config,
        dir.path(),
        Run { resume: false, embeddings: None, stop_after: None, on_epoch: &mut |_| {} },
    )
    .unwrap();
    let path = dir.path().join("model.safetensors");
    let opened = Model::open(&path).unwrap();
    assert_eq!((opened.config(), opened.image_shape(), opened.n_classes()), (&config, SHAPE, 2));
    assert_eq!(opened.codebooks(), model.codebooks());
    assert_eq!(
        &dpq_codebook::Codebooks::open(&path).unwrap(),
        model.codebooks(),
        "a model serves as a codebook"
    );

    let mut images = vec![0; 300 * 64];
    images.chunks_exact_mut(64).enumerate().for_each(|(row, out)| image(row, None, out));
    let all = opened.forward(&images).unwrap();
    assert_eq!(all, model.forward(&images).unwrap());
    for row in [0, 127, 128, 299] {
        let one = opened.forward(&images[row * 64..][..64]).unwrap();
        assert_eq!(one.features, all.features[row * 12..][..12]);
        assert_eq!(one.logits, all.logits[row * 2..][..2]);
    }
    assert!(
        opened
            .forward(&images[..65])
            .unwrap_err()
            .to_string()
            .contains("found 65 bytes, expected images of 1x8x8")
    );
    let codebook = dir.path().join("cb.safetensors");
    model.codebooks().save(&codebook).unwrap();
    assert!(
        Model::open(&codebook)
            .unwrap_err()
            .to_string()
            .contains("holds a `dpq-codebook` of version `1`, expected `dpq-model`")
    );
}

/// The file's own words do not decide how much memory opening it takes, nor do they pass unchecked.
#[test]
fn a_model_file_that_contradicts_itself_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("model.safetensors");
    let config = config(Schedule::TwoStep);
    let mut n_levels = Vec::new();
    let on_epoch = &mut |report: &EpochReport| n_levels.push(report.usage.len());
    run(&config, dir.path(), Run { resume: false, embeddings: None, stop_after: None, on_epoch }).unwrap();
    assert_eq!(n_levels, [0, 2], "the last epoch of two-step training reports on its codebooks");
    let file = dpq_file::Container::open(&path).unwrap();
    let refused = |key: &str, from: &str, to: &str, expected: &str| {
        let names: Vec<&str> = file.names().collect();
        let sections: Vec<_> = names.iter().map(|&name| (name, file.section(name).unwrap())).collect();
        let keys = ["format", "version", "assignment", "fingerprint", "config"];
        let mut metadata: std::collections::BTreeMap<String, String> =
            keys.map(|key| (key.to_owned(), file.metadata(key).unwrap().to_owned())).into();
        let value = metadata.get_mut(key).unwrap();
        assert!(value.contains(from), "{value}");
        *value = value.replacen(from, to, 1);
        let changed = dir.path().join("changed.safetensors");
        dpq_file::write(&changed, &metadata, &sections).unwrap();
        let error = Model::open(&changed).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused("config", "\"hidden\":16", "\"hidden\":65536", "section `backbone.hidden.bias` has F32 [16]");
    refused("config", "\"hidden\":16", "\"hidden\":65537", "network.body.small.hidden: expected 1 to 65536");
    refused("config", "\"deviation\":[0.", "\"deviation\":[-0.", "config: expected shapes and moments");
    refused("config", "\"levels\":2", "\"levels\":3", "codebooks [2, 8, 12] of euclidean assignment");
    refused("assignment", "euclidean", "cosine", "codebooks [2, 8, 12] of cosine assignment");
    refused("fingerprint", "", "x", ", the file says x");
}

#[test]
fn mirror_averaging_makes_mirror_images_equal() {
    let dir = TempDir::new().unwrap();
    let config = TrainConfig { mirror_average: true, ..config(Schedule::TwoStep) };
    let model = run(
        &config,
        dir.path(),
        Run { resume: false, embeddings: None, stop_after: None, on_epoch: &mut |_| {} },
    )
    .unwrap();
    let mut pixels = vec![0; 64];
    image(3, None, &mut pixels);
    let mirrored: Vec<u8> = pixels.chunks(8).flat_map(|row| row.iter().rev().copied()).collect();
    assert_eq!(model.forward(&pixels).unwrap(), model.forward(&mirrored).unwrap());
}

/// The network's tensors in a model file, by name.
pub(crate) fn network(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let file = Container::open(path).unwrap();
    let names = file.names().filter(|&name| name != "codebook");
    names.map(|name| (name.to_owned(), file.section(name).unwrap().bytes.to_vec())).collect()
}

#[test]
fn quantization_losses_reach_the_network_in_the_joint_schedule_alone() {
    let [two_step, alternating, joint] = SCHEDULES.map(|schedule| {
        let dir = TempDir::new().unwrap();
        let whole = Run { resume: false, embeddings: None, stop_after: None, on_epoch: &mut |_| {} };
        run(&config(schedule), dir.path(), whole).unwrap();
        network(&dir.path().join("model.safetensors"))
    });
    assert!(!two_step.is_empty() && two_step == alternating);
    assert!(two_step != joint);
}

#[test]
fn damaged_models_and_checkpoints_are_refused() {
    let dir = TempDir::new().unwrap();
    let config = config(Schedule::Alternating { features_first: 0.0 });
    let go = || {
        let resumed = Run { resume: true, embeddings: None, stop_after: None, on_epoch: &mut |_| {} };
        run(&config, dir.path(), resumed)
    };
    go().unwrap();
    let path = dir.path().join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(Model::open(&path).unwrap_err().to_string().contains("is damaged"));

    // Checksums that fit contents that do not.
    let path = dir.path().join("checkpoint.safetensors");
    let whole = fs::read(&path).unwrap();
    let rewrite = |keep: &dyn Fn(&str) -> bool, epoch: &str, cut: usize| {
        let file = Container::from_bytes(whole.clone()).unwrap();
        let keys = ["format", "config", "data", "network_optimizer", "codebook_optimizer"];
        let mut metadata: BTreeMap<String, String> =
            keys.iter().map(|&key| (key.to_owned(), file.metadata(key).unwrap().to_owned())).collect();
        metadata.insert("epoch".to_owned(), epoch.to_owned());
        let shapes: Vec<_> = file
            .names()
            .filter(|name| keep(name))
            .map(|name| {
                let section = file.section(name).unwrap();
                let cut = if name.starts_with("network_optimizer.first.embed.bias") { cut } else { 0 };
                let mut shape = section.shape.to_vec();
                shape[0] -= cut;
                (name, section.dtype, shape, &section.bytes[..section.bytes.len() - 4 * cut])
            })
            .collect();
        let sections: Vec<_> = shapes
            .iter()
            .map(|(name, dtype, shape, bytes)| (*name, Section { dtype: *dtype, shape, bytes }))
            .collect();
        dpq_file::write(&path, &metadata, &sections).unwrap();
        go().map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(rewrite(&|_| true, "2", 0), Ok(()));
    for (result, what) in [
        (rewrite(&|name| name != "codebook", "2", 0), "without codebooks"),
        (rewrite(&|_| true, "3", 0), "beyond the last epoch"),
        (rewrite(&|_| true, "2", 1), "with a short buffer"),
    ] {
        let error = result.expect_err(what);
        assert!(
            error.contains("does not hold what its epoch needs, train into another folder"),
            "{what}: {error}"
        );
    }
}
