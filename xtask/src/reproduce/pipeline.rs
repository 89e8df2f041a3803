//! The stages: trainings and their report, variants of them, and codes of raw pixels to compare
//! with.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use dpq_report::results::{BaselineResults, ByBits, MeanSd, NamedCurve, VariantResults};
use dpq_report::{Metrics, Report, Results, mean_sd, mean_sd_if};
use serde::Deserialize;

use super::hash::Hash;
use super::stage::{Runner, Stage};
use super::variants::{Change, Variant};
use super::{FOLDER, Settings};

/// The cut-off of the second mAP in reports.
use dpq_report::results::CUTOFF;

/// The maximum number of values per image in the baseline: 200,000 images of 4096 are a file of 3.3
/// GB.
const PIXELS: usize = 4096;

/// A finished training. `dpq train --json` prints more.
#[derive(Deserialize)]
pub(super) struct Trained {}

/// The configuration as `dpq train --print-config` prints it.
#[derive(Deserialize)]
struct Configuration {
    quantizer: Quantizer,
}

#[derive(Deserialize)]
struct Quantizer {
    levels: usize,
}

/// The output of `dpq data export` and `dpq features`.
#[derive(Deserialize)]
struct Exported {
    /// The shape of the images, `[C, H, W]`; none for features by a model.
    shape: Option<[usize; 3]>,
}

/// The output of `dpq codebook train`, `dpq encode` and `dpq index build`.
#[derive(Deserialize)]
struct Made {
    fingerprint: String,
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

/// Rankings by codes of any features, and by the features.
struct Scores {
    by_bits: ByBits<Metrics>,
    features: Metrics,
    distortion: Vec<f64>,
}

/// All stages of one `reproduce-paper`.
pub(super) struct Pipeline<'a> {
    pub(super) runner: &'a Runner,
    pub(super) settings: &'a Settings,
    pub(super) folder: PathBuf,
    levels: usize,
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
        let config: Stage<Configuration> = runner.run(&folder, &pipeline.upstream(), &command)?;
        pipeline.levels = config.result.quantizer.levels;
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
    pub(super) fn train(&self, dir: &Path, seed: u16, changes: &[&str]) -> Result<Stage<Trained>> {
        let data = self.settings.dataset.display();
        let changes = changes.iter().map(|line| format!(" --set {line}")).collect::<String>();
        let configuration = self.configuration();
        let command = format!("train --data {data} --out OUT{configuration}{changes} --seed {seed}");
        self.runner.run_resumable(&dir.join("train"), &self.upstream(), &command)
    }

    /// Reports on trainings. `options` name the files to write, if any.
    pub(super) fn report(
        &self,
        dir: &Path,
        trainings: &[Stage<Trained>],
        options: &str,
    ) -> Result<Stage<Results>> {
        let upstream: Vec<&str> = trainings.iter().map(|stage| stage.key.as_str()).collect();
        let runs: String = trainings.iter().map(|stage| format!(" {}", stage.file(""))).collect();
        let Settings { dataset, device, .. } = self.settings;
        let command = format!("report{runs} --data {} --device {device}{options}", dataset.display());
        self.runner.run(dir, &upstream, &command)
    }

    /// Reports on the trainings with all seeds, with figures.
    pub(super) fn report_with_figures(&self, trainings: &[Stage<Trained>]) -> Result<Report> {
        let options = format!(" --out OUT --tsne-items {}", self.settings.tsne_items);
        let stage = self.report(&self.folder.join("report"), trainings, &options)?;
        Ok(Report::read(stage.file(""))?)
    }

    /// Trains a variant with each seed, or computes other features by the trainings, and evaluates
    /// it.
    pub(super) fn variant(&self, variant: &Variant, trainings: &[Stage<Trained>]) -> Result<VariantResults> {
        let folder = self.folder.join("variants").join(variant.slug);
        let seeds = || (1..).map(|seed: u16| (seed, folder.join(format!("seed-{seed}")))).zip(trainings);
        match variant.change {
            Change::Train(lines) => {
                let train = |((seed, dir), _): ((u16, PathBuf), _)| self.train(&dir, seed, lines);
                let trainings = seeds().map(train).collect::<Result<Vec<_>>>()?;
                let results = self.report(&folder.join("report"), &trainings, "")?.result;
                let changes = lines.iter().map(|line| format!("--set {line}")).collect::<Vec<_>>();
                let seconds = results.per_seed.iter().map(|seed| Some(seed.seconds.train));
                Ok(VariantResults {
                    name: variant.name.to_owned(),
                    change: changes.join(" "),
                    train_seconds: mean_sd_if(seconds),
                    per_seed: results.per_seed.iter().map(|seed| seed.map_all.clone()).collect(),
                    map_all: results.map_all,
                    map_at_5000: results.map_at_5000,
                    feature_map_all: results.feature_map_all,
                    feature_map_at_5000: results.feature_map_at_5000,
                    accuracy: results.accuracy,
                })
            }
            Change::Features(options) => {
                let scores = seeds().map(|((_, dir), training)| {
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
                });
                let scores = scores.collect::<Result<Vec<_>>>()?;
                let spread = |value: &dyn Fn(&Scores) -> f64| -> MeanSd {
                    mean_sd(&scores.iter().map(value).collect::<Vec<_>>())
                };
                let by_bits = |value: fn(&Metrics) -> f64| {
                    let lengths = scores.iter().flat_map(|scores| scores.by_bits.keys().copied());
                    lengths.map(|bits| (bits, spread(&|scores| value(&scores.by_bits[&bits])))).collect()
                };
                let maps = |scores: &Scores| map(&scores.by_bits, |metrics| metrics.map);
                Ok(VariantResults {
                    name: variant.name.to_owned(),
                    change: options.to_owned(),
                    map_all: by_bits(|metrics| metrics.map),
                    map_at_5000: by_bits(Metrics::map_at_cutoff),
                    feature_map_all: spread(&|scores| scores.features.map),
                    feature_map_at_5000: spread(&|scores| scores.features.map_at_cutoff()),
                    accuracy: None,
                    train_seconds: None,
                    per_seed: scores.iter().map(maps).collect(),
                })
            }
        }
    }

    /// Evaluates codes of centred, normalised pixels without a network. All presets of as many
    /// levels share it. Returns the precision by recall at the longest length, too.
    pub(super) fn raw_pixels(&self) -> Result<(BaselineResults, Option<NamedCurve>)> {
        let dir = Path::new(FOLDER).join(format!("{}-pixels", self.settings.dataset_name()));
        let data = self.settings.dataset.display();
        let [train, query, gallery] = ["train", "query", "gallery"].map(|split| {
            let command =
                format!("data export --data {data} --split {split} --at-most {PIXELS} --out-dir OUT");
            self.runner.run::<Exported>(&dir.join(split), &[], &command)
        });
        let train = train?;
        let shape = train.result.shape;
        let Scores { by_bits, features, distortion } =
            self.fit_and_evaluate(&dir, [Ok(train), query, gallery])?;
        let longest = by_bits.last_key_value();
        let curve = longest.map(|(bits, metrics)| {
            let name = format!("raw pixels, {bits} bits");
            NamedCurve::new(name, metrics.pr_curve.precision.iter().copied())
        });
        let baseline = BaselineResults {
            shape,
            map_all: map(&by_bits, |metrics| metrics.map),
            map_at_5000: map(&by_bits, Metrics::map_at_cutoff),
            feature_map_all: features.map,
            feature_map_at_5000: features.map_at_cutoff(),
            feature_precision_at: Some(features.precision_at),
            distortion,
        };
        Ok((baseline, curve))
    }

    /// Fits codebooks to the features of training images, encodes the gallery, and evaluates codes
    /// and features.
    fn fit_and_evaluate(&self, dir: &Path, splits: [Result<Stage<Exported>>; 3]) -> Result<Scores> {
        let [train, query, gallery] = splits;
        let (train, query, gallery) = (train?, query?, gallery?);
        let run = |name: &str, upstream: &[&str], command: String| -> Result<Stage<Made>> {
            self.runner.run(&dir.join(name), upstream, &command)
        };
        let (features, levels) = (train.file("features.npy"), self.levels);
        let fitted = run(
            "codebook",
            &[&train.key],
            format!("codebook train --features {features} --levels {levels} --out OUT/codebook.safetensors"),
        )?;
        let (codebook, features) = (fitted.file("codebook.safetensors"), gallery.file("features.npy"));
        let codes = run(
            "codes",
            &[&fitted.key, &gallery.key],
            format!("encode --codebook {codebook} --features {features} --out-dir OUT"),
        )?;
        let (codes_file, ids) = (codes.file("codes.npy"), gallery.file("ids.npy"));
        let index = run(
            "index",
            &[&codes.key, &gallery.key],
            format!(
                "index build --codes {codes_file} --codebook {codebook} --ids {ids} --out OUT/gallery.dpq"
            ),
        )?;
        for (what, made) in [("codes", &codes), ("index", &index)] {
            let (found, expected) = (&made.result.fingerprint, &fitted.result.fingerprint);
            ensure!(
                found == expected,
                "{codebook} has codebooks {expected}, but its {what} carry {found}: this is a defect of dpq"
            );
        }

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
        Ok(Scores { by_bits: by_codes.by_bits, features, distortion: codes.result.relative_distortion })
    }
}

fn map(by_bits: &ByBits<Metrics>, value: fn(&Metrics) -> f64) -> ByBits<f64> {
    by_bits.iter().map(|(&bits, metrics)| (bits, value(metrics))).collect()
}
