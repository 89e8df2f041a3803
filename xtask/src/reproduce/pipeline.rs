//! The stages: trainings and their report, variants of them, and codes of raw pixels to compare
//! with.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use dpq_report::results::{ByBits, CUTOFF, UnseenResults, VariantResults};
use dpq_report::{Metrics, Rankings, Results};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::hash::Hash;
use super::stage::{Runner, Stage};
use super::variants::{Change, Variant};
use super::{BASELINES, FOLDER, Settings};

/// The maximum number of values per image in the baseline: 200,000 images of 4096 are a file of 3.3
/// GB.
const PIXELS: usize = 4096;

/// Splits with unseen classes: other classes each.
const UNSEEN_SPLITS: usize = 5;

/// A finished training.
pub(super) type Trained = Stage<IgnoredAny>;

/// The output of `dpq data export` and `dpq features`.
#[derive(Deserialize)]
struct Exported {
    /// The shape of the images, `[C, H, W]`; none for features by a model.
    shape: Option<[usize; 3]>,
}

/// The output of `dpq codebook train`, `dpq encode` and `dpq index build`.
#[derive(Deserialize)]
struct Made {
    #[serde(default)]
    relative_distortion: Vec<f64>,
}

/// The output of `dpq eval`.
#[derive(Deserialize)]
struct Evaluation {
    #[serde(default)]
    by_bits: ByBits<Metrics>,
    features: Option<Metrics>,
}

/// All stages of one `reproduce-paper`.
pub(super) struct Pipeline<'a> {
    runner: &'a Runner,
    settings: &'a Settings,
    folder: PathBuf,
    levels: u64,
    /// The hashes of files that trainings read beside the data set.
    inputs: Vec<String>,
}

impl<'a> Pipeline<'a> {
    /// Refuses a configuration that cannot be trained here, which takes no time.
    pub(super) fn new(runner: &'a Runner, settings: &'a Settings) -> Result<Self> {
        let inputs = settings.weights.iter().chain(&settings.embeddings).map(|path| Hash::of_file(path));
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let mut pipeline = Self { runner, settings, folder: settings.folder(), levels: 0, inputs };
        let command = format!("train --print-config{}", pipeline.configuration());
        let folder = pipeline.folder.join("configuration");
        let config = runner.run::<Value>(&folder, &pipeline.upstream(), &command)?.result;
        pipeline.levels = config["quantizer"]["levels"].as_u64().context("dpq prints no levels")?;
        Ok(pipeline)
    }

    fn upstream(&self) -> Vec<&str> {
        self.inputs.iter().map(String::as_str).collect()
    }

    /// The options of all trainings that decide what is trained, and where.
    fn configuration(&self) -> String {
        let Settings { preset, set, device, weights, embeddings, .. } = self.settings;
        let weights = weights.iter().map(|path| format!(" --weights {}", path.display()));
        let embeddings = embeddings.iter().map(|path| format!(" --embeddings {}", path.display()));
        let changes = set.iter().map(|line| format!(" --set {line}"));
        let options: String = weights.chain(embeddings).chain(changes).collect();
        format!(" --preset {preset}{options} --device {device}")
    }

    /// Trains with the settings and further changes. Resumes an interrupted training.
    pub(super) fn train(&self, dir: &Path, seed: u16, changes: &[&str]) -> Result<Trained> {
        self.train_on(&self.settings.dataset, dir, seed, changes)
    }

    fn train_on(&self, data: &Path, dir: &Path, seed: u16, changes: &[&str]) -> Result<Trained> {
        let data = data.display();
        let changes = changes.iter().map(|line| format!(" --set {line}")).collect::<String>();
        let configuration = self.configuration();
        let command = format!("train --data {data} --out OUT{configuration}{changes} --seed {seed} --resume");
        self.runner.run(&dir.join("train"), &self.upstream(), &command)
    }

    /// Reports on trainings. `options` name the files to write, if any.
    pub(super) fn report(&self, dir: &Path, trainings: &[Trained], options: &str) -> Result<Stage<Results>> {
        self.report_on(&self.settings.dataset, dir, trainings, options)
    }

    fn report_on(
        &self,
        data: &Path,
        dir: &Path,
        trainings: &[Trained],
        options: &str,
    ) -> Result<Stage<Results>> {
        let upstream: Vec<&str> = trainings.iter().map(|stage| stage.key.as_str()).collect();
        let runs: String = trainings.iter().map(|stage| format!(" {}", stage.file(""))).collect();
        let device = &self.settings.device;
        let command = format!("report{runs} --data {} --device {device}{options}", data.display());
        self.runner.run(dir, &upstream, &command)
    }

    /// Trains on splits in which `n_classes` classes have no training image, and ranks images of
    /// those classes by each training and by other codes of its features.
    pub(super) fn unseen_classes(&self, n_classes: u16) -> Result<UnseenResults> {
        let (mut rows, data) = (Vec::new(), self.settings.dataset.display());
        let two_step = ["schedule=\"two-step\""];
        for (name, slug, changes) in [("whole", "whole", &[][..]), ("Two-Step", "two-step", &two_step)] {
            let mut splits = Vec::new();
            for split in 1..=UNSEEN_SPLITS {
                let dir = self.folder.join(format!("unseen-{n_classes}/split-{split}"));
                let command =
                    format!("data split {data} --unseen-classes {n_classes} --seed {split} --out-dir OUT");
                let set: Stage<IgnoredAny> = self.runner.run(&dir.join("set"), &[], &command)?;
                let dir = dir.join(slug);
                let training = self.train_on(Path::new(&set.file("")), &dir, 1, changes)?;
                let set = PathBuf::from(set.file(""));
                splits.push(self.report_on(&set, &dir.join("report"), &[training], BASELINES)?.result);
            }
            let name = format!("{}, {name}", self.settings.preset);
            let of_splits = |row: &dyn Fn(&Results) -> VariantResults| {
                VariantResults::over(&splits.iter().map(row).collect::<Vec<_>>())
            };
            rows.push(of_splits(&|split| VariantResults::of_trainings(&name, "", split.clone())));
            for (at, row) in splits[0].baselines.iter().enumerate() {
                let name = format!("{name}: {}", row.name);
                let row =
                    |split: &Results| VariantResults { name: name.clone(), ..split.baselines[at].clone() };
                rows.push(of_splits(&row));
            }
        }
        Ok(UnseenResults { classes: n_classes.into(), splits: UNSEEN_SPLITS, rows })
    }

    /// Trains a variant with each seed, or computes other features by the trainings, and evaluates
    /// it.
    pub(super) fn variant(&self, variant: &Variant, trainings: &[Trained]) -> Result<VariantResults> {
        let folder = self.folder.join("variants").join(variant.slug);
        let seeds = || (1..).map(|seed: u16| (seed, folder.join(format!("seed-{seed}")))).zip(trainings);
        match variant.change {
            Change::Train(lines) => {
                let train = |((seed, dir), _): ((u16, PathBuf), _)| self.train(&dir, seed, lines);
                let trainings = seeds().map(train).collect::<Result<Vec<_>>>()?;
                let results = self.report(&folder.join("report"), &trainings, "")?.result;
                let changes = lines.iter().map(|line| format!("--set {line}")).collect::<Vec<_>>();
                Ok(VariantResults::of_trainings(variant.name, &changes.join(" "), results))
            }
            Change::Features(options) => {
                let rank = |((_, dir), training): ((u16, PathBuf), &Trained)| {
                    let Settings { dataset, device, .. } = self.settings;
                    let (model, data) = (training.file("model.safetensors"), dataset.display());
                    let splits = ["train", "query", "gallery"].map(|split| {
                        let command = format!(
                            "features --model {model} --data {data} --split {split} --device {device} --out-dir OUT \
                             {options}"
                        );
                        self.runner.run::<Exported>(&dir.join(split), &[&training.key], &command)
                    });
                    self.fit_and_evaluate(&dir, splits)
                };
                let rankings = seeds().map(rank).collect::<Result<Vec<_>>>()?;
                Ok(VariantResults::of_features(variant.name, options, &rankings))
            }
        }
    }

    /// Evaluates codes of centred, normalised pixels without a network. All presets of as many
    /// levels share it.
    pub(super) fn raw_pixels(&self) -> Result<(Rankings, Option<[usize; 3]>)> {
        let dir = Path::new(FOLDER).join(format!("{}-pixels", self.settings.dataset_name()));
        let data = self.settings.dataset.display();
        let [train, query, gallery] = ["train", "query", "gallery"].map(|split| {
            let command =
                format!("data export --data {data} --split {split} --max-values {PIXELS} --out-dir OUT");
            self.runner.run::<Exported>(&dir.join(split), &[], &command)
        });
        let train = train?;
        let shape = train.result.shape;
        Ok((self.fit_and_evaluate(&dir, [Ok(train), query, gallery])?, shape))
    }

    /// Fits codebooks to the features of training images, encodes the gallery, and evaluates codes
    /// and features.
    fn fit_and_evaluate(&self, dir: &Path, splits: [Result<Stage<Exported>>; 3]) -> Result<Rankings> {
        let [train, query, gallery] = splits;
        let (train, query, gallery) = (train?, query?, gallery?);
        let run = |name: &str, upstream: &[&str], command: String| -> Result<Stage<Made>> {
            self.runner.run(&dir.join(name), upstream, &command)
        };
        let (features, levels) = (train.file("features.npy"), self.levels);
        let command =
            format!("codebook train --features {features} --levels {levels} --out OUT/codebook.safetensors");
        let fitted = run("codebook", &[&train.key], command)?;
        let (codebook, features) = (fitted.file("codebook.safetensors"), gallery.file("features.npy"));
        let command = format!("encode --codebook {codebook} --features {features} --out-dir OUT");
        let codes = run("codes", &[&fitted.key, &gallery.key], command)?;
        let (codes_file, ids) = (codes.file("codes.npy"), gallery.file("ids.npy"));
        let command = format!(
            "index build --codes {codes_file} --codebook {codebook} --ids {ids} --out OUT/gallery.dpq"
        );
        let index = run("index", &[&codes.key, &gallery.key], command)?;

        let evaluate = |name: &str, upstream: &str, ranked: String| -> Result<Evaluation> {
            let command = format!(
                "eval {ranked} --queries {} --query-labels {} --gallery-labels {} --gallery-ids {ids} --at {CUTOFF}",
                query.file("features.npy"),
                query.file("labels.npy"),
                gallery.file("labels.npy")
            );
            let upstream = [upstream, &gallery.key, &query.key];
            Ok(self.runner.run::<Evaluation>(&dir.join(name), &upstream, &command)?.result)
        };
        let by_codes = evaluate("evaluate", &index.key, format!("--index {}", index.file("gallery.dpq")))?;
        let by_features = evaluate("evaluate-features", "", format!("--gallery-features {features}"))?;
        let features = by_features.features.context("dpq eval left out the features")?;
        Ok(Rankings { by_bits: by_codes.by_bits, features, distortion: codes.result.relative_distortion })
    }
}
