//! `dpq train`: a data set in, a model out.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::{fs, io};

use anyhow::{Context, Result, anyhow};
use dpq_data::{Augment, Dataset, Split};
use dpq_model::config::AugmentConfig;
use dpq_model::{BoxError, Device, EpochReport, TrainConfig, TrainSet};
use serde::{Deserialize, Serialize};

use crate::output;

/// Train a network and its codebooks
///
/// Writes model.safetensors, epochs.jsonl (one line an epoch) and a checkpoint into the run folder; `--resume` goes on
/// from the checkpoint and ends with the same bytes as a run that was never interrupted.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  dpq train --data datasets/fashion-mnist --out runs/a --preset best --seed 1"
)]
pub(crate) struct Args {
    /// A data set folder
    #[arg(long, value_name = "DIR", required_unless_present = "print_config")]
    data: Option<PathBuf>,
    /// The run folder
    #[arg(long, value_name = "DIR", required_unless_present = "print_config")]
    out: Option<PathBuf>,
    /// A named configuration
    #[arg(long, default_value = "best", value_parser = clap::builder::PossibleValuesParser::new(TrainConfig::PRESETS))]
    preset: String,
    /// A configuration of your own (`--print-config` shows one)
    #[arg(long, value_name = "TOML", conflicts_with = "preset")]
    config: Option<PathBuf>,
    /// Decides everything random; the same seed gives the same bytes [default: the configuration's]
    #[arg(long)]
    seed: Option<u64>,
    /// Where to train: cpu, or cuda:N in a program built with --features cuda
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: Device,
    /// Go on from the checkpoint in the run folder; without one, start at the first epoch
    #[arg(long)]
    resume: bool,
    /// Print the configuration as TOML and stop
    #[arg(long)]
    print_config: bool,
}

#[derive(Serialize)]
struct Trained<'a> {
    model: PathBuf,
    fingerprint: String,
    epochs: usize,
    seconds: f64,
    images_per_second: f64,
    config: &'a TrainConfig,
    peak_memory_bytes: Option<u64>,
}

impl Args {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        let config = self.config()?;
        let (Some(data), Some(out)) = (&self.data, &self.out) else {
            return output::print(json, &config, &toml::to_string(&config)?);
        };
        let dataset = Dataset::open(data)?;
        output::create_dir(out)?;
        if self.resume && !out.join("checkpoint.safetensors").exists() {
            output::note(&format!("no checkpoint in {}, training from the first epoch", out.display()));
        }
        let bar = output::progress(config.epochs, "epochs");
        let mut log = EpochLog::open(&out.join("epochs.jsonl"), self.resume)?;
        let rows = dataset.split(Split::Train);
        let shape = dataset.shape();
        let mut on_epoch = |report: &EpochReport| {
            bar.set_position(report.epoch as u64 + 1);
            if bar.is_hidden() {
                output::note(&describe(report, config.epochs));
            } else {
                bar.println(describe(report, config.epochs));
            }
            log.push(report).map_err(Into::into)
        };
        let model = dpq_model::train(
            &config,
            &TrainSet {
                n_items: rows.len(),
                labels: &dataset.multi_hot(rows),
                n_classes: dataset.n_classes(),
                embeddings: None,
                image_shape: [shape.channels, shape.height, shape.width],
                image: &train_image(&dataset, rows, augment(&config)),
            },
            self.device,
            out,
            self.resume,
            &AtomicBool::new(false),
            &mut on_epoch,
        )?;
        bar.finish_and_clear();

        let seconds = log.seconds()?;
        let trained = Trained {
            model: out.join("model.safetensors"),
            fingerprint: model.codebooks().fingerprint(),
            epochs: config.epochs,
            seconds,
            images_per_second: (rows.len() * config.epochs) as f64 / seconds,
            config: &config,
            peak_memory_bytes: output::peak_memory_bytes(),
        };
        let text = format!(
            "wrote {} (fingerprint {}) after {} epochs in {seconds:.0} s",
            trained.model.display(),
            trained.fingerprint,
            trained.epochs
        );
        output::print(json, &trained, &text)
    }
}

impl Args {
    fn config(&self) -> Result<TrainConfig> {
        let mut config = match &self.config {
            None => TrainConfig::preset(&self.preset)?,
            Some(path) => {
                let text =
                    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
                toml::from_str(&text).map_err(|error: toml::de::Error| {
                    // One line: where it is, and what is wrong there.
                    let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
                    anyhow!("{}, line {line}: {}", path.display(), error.message().replace('\n', " "))
                })?
            }
        };
        if let Some(seed) = self.seed {
            config.seed = seed;
        }
        Ok(config)
    }
}

/// What the configuration asks of the reader of images.
fn augment(config: &TrainConfig) -> Augment {
    let AugmentConfig { padding, mirror, cutout, cutout_probability } = config.augment;
    Augment { padding, mirror, cutout, cutout_probability }
}

/// One line for people.
fn describe(report: &EpochReport, epochs: usize) -> String {
    let mut line = format!("epoch {:>3} of {epochs}", report.epoch + 1);
    for (name, loss) in &report.losses {
        write!(line, "  {name} {loss:.4}").expect("writing to a string");
    }
    if let Some(distortion) = report.relative_distortion.last() {
        let dead: usize = report.usage.iter().map(|level| level.dead).sum();
        write!(line, "  distortion {distortion:.4}  dead {dead}").expect("writing to a string");
    }
    write!(line, "  {:.0} images/s", report.images_per_second).expect("writing to a string");
    line
}

fn train_image<'a>(
    dataset: &'a Dataset,
    rows: &'a [u32],
    augment: Augment,
) -> impl Fn(usize, Option<u64>, &mut [u8]) -> Result<(), BoxError> + Sync + 'a {
    move |row, seed, image| {
        dataset.read(rows[row] as usize, image)?;
        if let Some(seed) = seed {
            augment.apply(dataset.shape(), image, seed);
        }
        Ok(())
    }
}

/// `epochs.jsonl`: one JSON line an epoch, each written as soon as its epoch ends.
struct EpochLog {
    path: PathBuf,
    lines: Vec<String>,
}

impl EpochLog {
    /// Starts a log, or goes on with the lines that are there.
    fn open(path: &Path, resume: bool) -> Result<Self> {
        let lines = match fs::read_to_string(path) {
            Ok(text) if resume => text.lines().map(str::to_owned).collect(),
            Err(error) if resume && error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
            _ => Vec::new(),
        };
        Ok(Self { path: path.to_owned(), lines })
    }

    /// Adds an epoch. Lines of epochs that an interrupted run lost and repeats give way to the new ones.
    fn push(&mut self, report: &EpochReport) -> Result<()> {
        self.lines.truncate(report.epoch);
        self.lines.push(serde_json::to_string(report)?);
        let text = self.lines.join("\n") + "\n";
        dpq_file::write_atomic(&self.path, |out| out.write_all(text.as_bytes()))?;
        Ok(())
    }

    /// Seconds that all epochs took, those before an interruption included.
    fn seconds(&self) -> Result<f64> {
        let seconds = |line: &String| {
            let Seconds { seconds } = serde_json::from_str(line)
                .with_context(|| format!("{} is damaged, train without --resume", self.path.display()))?;
            Ok(seconds)
        };
        self.lines.iter().map(seconds).sum()
    }
}

/// The part of a line of `epochs.jsonl` that is read again.
#[derive(Deserialize)]
struct Seconds {
    seconds: f64,
}
