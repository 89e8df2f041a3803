//! `dpq train`: a data set in, a model out.
//!
//! - `configuration`: the configuration that options describe
//! - `epoch`: an epoch as it is logged and shown
//! - `source`: images or features, and their labels
//! - `tensorboard`: event files
//! - `validation`: retrieval among held-out training images

mod configuration;
mod epoch;
mod source;
mod tensorboard;
mod validation;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, ensure};
use dpq_data::{Dataset, ImageShape, Split, hold_out};
use dpq_model::{BoxError, Device, EpochReport, Snapshot, TrainConfig, TrainOptions, TrainSet};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

use crate::{images, inputs, output};
use epoch::{Epoch, EpochLog};
use source::Source;
pub(crate) use source::view;
use tensorboard::EventFile;
use validation::HeldOut;

/// Train a network and its codebooks
///
/// Writes model.safetensors, train.json (the result), epochs.jsonl (one line per epoch),
/// TensorBoard's event files and a checkpoint into the run folder. `--resume` continues from the
/// checkpoint and ends with the same bytes as an uninterrupted run. A folder with a model or a
/// checkpoint is refused without it. Ctrl-C ends the run after the current step.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  dpq train --data datasets/fashion-mnist --out runs/a --preset best --seed 1\n  \
        dpq train --features clip.npy --labels classes.npy --out runs/b\n  \
        dpq train --queries q.npy --keys k.npy --out runs/c\n  \
        dpq train --data photos --preset mecoq --out runs/d"
)]
pub(crate) struct Args {
    /// A data set folder
    #[arg(long, value_name = "DIR", required_unless_present_any = ["features", "queries", "print_config"])]
    data: Option<PathBuf>,
    /// Features to train on instead of images, [N, D], .npy (float32), .fvecs or .bvecs. Only heads
    /// and codebooks are trained; the configuration of body, mirror images and augmentation is
    /// ignored
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    features: Option<PathBuf>,
    /// Views of an item in each row of the features, as `dpq features --views` writes them: [N, V
    /// D]. Training draws one of the views but the first, which is the item itself
    #[arg(long, value_name = "V", requires = "features", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    views: u16,
    /// Labels of the features, which `mecoq` does not need: multi-hot, uint8 [N, C], or N class
    /// numbers from 0, uint8 or int64
    #[arg(long, value_name = "NPY", requires = "features")]
    labels: Option<PathBuf>,
    /// Queries to train on pairs instead of labels, [N, D], .npy (float32), .fvecs or .bvecs: codes
    /// of the keys learn to match the queries
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "features"], requires = "keys")]
    queries: Option<PathBuf>,
    /// Keys, [N, D]; key i matches query i. Codebooks start from all of them
    #[arg(long, value_name = "FILE", requires = "queries")]
    keys: Option<PathBuf>,
    /// The pairs that match, if rows do not: rows of a query and of a key, int64 [P, 2]. Keys
    /// without a pair only take part in the start of the codebooks
    #[arg(long, value_name = "NPY", requires = "queries")]
    pairs: Option<PathBuf>,
    /// The run folder
    #[arg(long, value_name = "DIR", required_unless_present = "print_config")]
    out: Option<PathBuf>,
    /// A built-in configuration; `pretrained` is for --weights of a residual network, `mopq` is
    /// for pairs, and is their default, `mecoq` and `mecoq-product` read no labels, `phpq` and
    /// `phpq-product` are for classes that differ in details
    #[arg(
        long,
        default_value = "best",
        default_value_if("queries", clap::builder::ArgPredicate::IsPresent, "mopq"),
        requires_if("pretrained", "weights"),
        value_parser = clap::builder::PossibleValuesParser::new(TrainConfig::PRESETS)
    )]
    preset: String,
    /// A configuration file (`--print-config` prints one)
    #[arg(long, value_name = "TOML", conflicts_with = "preset")]
    config: Option<PathBuf>,
    /// Pretrained weights that the network's body starts from (`dpq weights import`). They decide
    /// the body and the size of images, which `--set network.input=64` changes for a residual
    /// network; a preset gets learning rates and crops for fine-tuning
    #[arg(long, value_name = "SAFETENSORS", conflicts_with_all = ["features", "queries"])]
    weights: Option<PathBuf>,
    /// Keep the weights of the first N stages of the body, as `--set network.freeze=N` does. A
    /// residual network has four
    #[arg(long, value_name = "N", conflicts_with_all = ["features", "queries"])]
    freeze: Option<usize>,
    /// Change the configuration by a line of TOML, such as `quantizer.levels=2` or
    /// `schedule="two-step"`
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Embeddings of the classes, of the network's `dim`: a .npy file, float32 [C, dim], or word
    /// vectors as text (GloVe, word2vec), looked up by class name [default: orthogonal vectors,
    /// from the seed]
    #[arg(long, value_name = "FILE")]
    embeddings: Option<PathBuf>,
    /// Stop at the first image that cannot be read [default: report and skip it]
    #[arg(long)]
    strict: bool,
    /// Seed of everything random; the same seed gives the same bytes [default: the configuration's]
    #[arg(long)]
    seed: Option<u64>,
    /// Device to train on: cpu, or cuda:N in a program built with --features cuda
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: Device,
    /// Continue from the checkpoint in the run folder, if there is one
    #[arg(long)]
    resume: bool,
    /// Print the configuration as TOML and stop
    #[arg(long)]
    print_config: bool,
}

/// The file of a run folder that describes a finished training: the object that `--json` prints.
pub(crate) const RECORD: &str = "train.json";

#[derive(Serialize, Deserialize)]
pub(crate) struct Trained {
    model: PathBuf,
    /// The data set folder, absolute.
    pub(crate) data: Option<PathBuf>,
    /// The SHA-256 of the names of the training images; none for features.
    pub(crate) train_split: Option<String>,
    /// The preset, or the file name of the configuration.
    pub(crate) preset: String,
    /// The lines that changed it.
    pub(crate) changes: Vec<String>,
    pub(crate) fingerprint: String,
    epochs: usize,
    pub(crate) seconds: f64,
    pub(crate) images_per_second: f64,
    pub(crate) images: usize,
    /// Training images that could not be read.
    pub(crate) left_out: usize,
    /// As in the model file: `seeded`, or `given` and a checksum.
    embeddings: Option<String>,
    pub(crate) embeddings_file: Option<PathBuf>,
    /// The classifier's loss: `softmax`, or `sigmoid` if any item of the whole set has several
    /// classes.
    pub(crate) classification_loss: String,
    /// The fingerprint of the pretrained weights.
    weights: Option<String>,
    config: TrainConfig,
    pub(crate) peak_memory_bytes: Option<u64>,
}

/// A caller other than the command.
pub(crate) struct Caller<'a> {
    /// Ends the run as Ctrl-C does.
    pub(crate) stop: &'a AtomicBool,
    /// Called with each epoch, as its line of epochs.jsonl.
    pub(crate) on_epoch: &'a mut (dyn FnMut(&str) -> Result<(), BoxError> + Send),
}

impl Args {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        if self.print_config {
            let (config, _) = self.configuration()?;
            return output::print(json, &config, &toml::to_string(&config)?);
        }
        let (trained, text) = self.train(None)?;
        output::print(json, &trained, &text)
    }

    /// Trains. Without a caller, Ctrl-C stops the training, and stderr shows its epochs.
    pub(crate) fn train(&self, mut caller: Option<Caller<'_>>) -> Result<(Trained, String)> {
        ensure!(!self.print_config, "--print-config trains nothing, leave it out");
        let (mut config, weights) = self.configuration()?;
        let (source, out) = match (&self.data, &self.features, &self.labels, &self.out) {
            (Some(data), .., Some(out)) => {
                let dataset = Dataset::open(data)?;
                images::report_skipped(&dataset);
                let dataset = match (&weights, config.network.input) {
                    (Some(weights), _) => dataset.resized(images::image_shape(weights.image_shape()))?,
                    (None, Some(side)) => {
                        let shape = ImageShape { height: side, width: side, ..dataset.shape() };
                        dataset.resized(shape)?
                    }
                    (None, None) => dataset,
                };
                (Source::images(dataset), out)
            }
            (_, Some(features), labels, Some(out)) => {
                ensure!(
                    labels.is_some() || !config.objective.needs_labels(),
                    "these features have no labels, give --labels, or train without by --preset mecoq"
                );
                ensure!(
                    config.objective.needs_labels() || self.views >= 3,
                    "mecoq compares two random views of an item, found --views {}, expected at least 3: the item \
                     and two views (dpq features --views 3)",
                    self.views
                );
                (Source::features(features, labels.as_deref(), self.views.into())?, out)
            }
            (.., Some(out)) if let (Some(queries), Some(keys)) = (&self.queries, &self.keys) => {
                (Source::pairs([queries, keys], self.pairs.as_deref())?, out)
            }
            _ => unreachable!("the command line asks for a source and a folder"),
        };
        ensure!(
            self.embeddings.is_none() || config.objective.needs_labels(),
            "this objective has no classes, leave out --embeddings"
        );
        source.adapt(&mut config);
        let vectors = |path: &PathBuf| source.embeddings(path, config.network.dim);
        let vectors = self.embeddings.as_ref().map(vectors).transpose()?;
        let asked = caller.as_ref().map(|caller| caller.stop);
        let readable = source.readable(self.strict, config.objective.needs_labels(), asked)?;
        let _dir = output::ResultDir::create(out)?;
        if self.resume && !out.join("checkpoint.safetensors").exists() {
            output::note(&format!("no checkpoint in {}, training from the first epoch", out.display()));
        }
        let [rows, held_out] = hold_out(&readable, config.validation.images, config.seed)?;
        let held_out = match held_out[..] {
            [] => None,
            _ => Some(HeldOut::read(&source, &held_out)?),
        };
        let bar = match caller {
            None => output::live(config.epochs, "epochs"),
            Some(_) => ProgressBar::hidden(),
        };
        let mut log = EpochLog::open(&out.join("epochs.jsonl"), self.resume)?;
        let (mut events, mut latest) = (None, None);
        let mut on_epoch = |report: &EpochReport, network: &Snapshot<'_>| -> Result<(), BoxError> {
            let done = report.epoch + 1;
            let due = done.is_multiple_of(config.validation.every) || done == config.epochs;
            let validation = match &held_out {
                Some(items) if due => Some(items.rank(network)?),
                _ => None,
            };
            latest = validation.clone().or(latest.take());
            let epoch = Epoch { report, validation, peak_memory_bytes: output::peak_memory_bytes() };
            if let Some(caller) = &mut caller {
                (caller.on_epoch)(&serde_json::to_string(&epoch)?)?;
            } else if bar.is_hidden() {
                output::note(&epoch.line(config.epochs));
            } else {
                bar.set_message(epoch.block(config.epochs, latest.as_ref()));
                bar.set_position(done as u64);
            }
            // Created after the first epoch, so that a refused run does not touch the files of an
            // earlier run.
            let events = match events.as_mut() {
                Some(events) => events,
                None => events.insert(EventFile::create(out, self.resume.then_some(done))?),
            };
            events.push(done, &epoch.scalars())?;
            Ok(log.push(&epoch)?)
        };
        let ctrl_c = if asked.is_none() { Some(output::stop_flag()?) } else { None };
        let stop = asked.or(ctrl_c.as_deref());
        let model = source.with_train_set(&rows, vectors.as_deref(), config.augment, |set| {
            let set = &TrainSet { weights: weights.as_ref(), ..set };
            let (device, resume) = (self.device, self.resume);
            let options = TrainOptions { device, resume, stop, on_epoch: Some(&mut on_epoch) };
            dpq_model::train(&config, set, out, options)
        })?;
        bar.finish();

        let seconds = log.seconds()?;
        let trained = Trained {
            model: out.join("model.safetensors"),
            data: self.data.as_deref().map(std::path::absolute).transpose()?,
            train_split: match (&source, &self.data) {
                (Source::Images { dataset, .. }, Some(folder)) => {
                    Some(dataset.split_sha256(Split::Train, folder))
                }
                _ => None,
            },
            preset: match self.config.as_deref().and_then(Path::file_name) {
                Some(name) => name.to_string_lossy().into_owned(),
                None => self.preset.clone(),
            },
            changes: self.changes(),
            fingerprint: model.codebooks().fingerprint(),
            epochs: config.epochs,
            seconds,
            images_per_second: (rows.len() * config.epochs) as f64 / seconds,
            images: rows.len(),
            left_out: source.len() - readable.len(),
            embeddings: model.embeddings().map(str::to_owned),
            embeddings_file: self.embeddings.clone(),
            classification_loss: match &source {
                _ if !config.objective.needs_labels() => "none",
                _ if source.is_multi_label() => "sigmoid",
                _ => "softmax",
            }
            .to_owned(),
            weights: model.weights().map(str::to_owned),
            config,
            peak_memory_bytes: output::peak_memory_bytes(),
        };
        let record = serde_json::to_vec_pretty(&trained)?;
        dpq_file::write_atomic(out.join(RECORD), |out| out.write_all(&record))?;
        let Trained { fingerprint, epochs, images, classification_loss: loss, .. } = &trained;
        let model = trained.model.display();
        let mut text = format!(
            "wrote {model} (fingerprint {fingerprint}) after {epochs} epochs of {images} items in {seconds:.0} s"
        );
        if let Source::Pairs { .. } = source {
            text += "\nqueries pass through `dpq features --model --queries` before they search the codes";
        } else if trained.config.objective.needs_labels() {
            let embeddings = trained.embeddings.as_deref().unwrap_or("not stated");
            text += &format!(", loss of the classifier: {loss}, label embeddings: {embeddings}");
        }
        if let Some(weights) = &trained.weights {
            text += &format!(", pretrained weights: {weights}");
        }
        if trained.left_out > 0 {
            text += &format!("\nskipped {} images that cannot be read or have no class", trained.left_out);
        }
        Ok((trained, text))
    }
}

impl Trained {
    /// Reads the record of a run folder.
    pub(crate) fn read(run: &Path) -> Result<Self> {
        let path = run.join(RECORD);
        let text = fs::read(&path).with_context(|| {
            format!("cannot read {}, give a folder in which `dpq train` has finished", path.display())
        })?;
        serde_json::from_slice(&text).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Refuses a data set of other training images than those of this training, for example after
    /// images came or went and the splits were drawn anew: training images may be queries then.
    pub(crate) fn check_split(&self, dataset: &Dataset, folder: &Path) -> Result<()> {
        let found = dataset.split_sha256(Split::Train, folder);
        ensure!(
            self.train_split.as_ref().is_none_or(|expected| *expected == found),
            "{} has other training images than this training had, which may be among its queries now, restore the images \
             or train again",
            folder.display()
        );
        Ok(())
    }
}

/// Refuses to split the data set of the training beside a model if the training had other images,
/// see [`Trained::check_split`]. Without a readable record nothing is known.
pub(crate) fn check_split(model: &Path, data: Option<&Path>, source: &inputs::Source) -> Result<()> {
    let (Some(data), inputs::Source::Images { dataset, .. }) = (data, source) else { return Ok(()) };
    let folder = Some(std::path::absolute(data)?);
    match Trained::read(model.parent().unwrap_or(Path::new(""))) {
        Ok(training) if training.data == folder => training.check_split(dataset, data),
        _ => Ok(()),
    }
}
