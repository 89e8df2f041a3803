//! The steps that make a gallery. Each is done once: its result gets its name when it is whole.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;
use dpq_data::Dataset;
use dpq_live::{LiveIndex, Metric};
use serde_json::json;

use super::plain::Plain;
use crate::{Cli, output};

/// The maximum number of images that a network learns from, to keep the time short.
const MAX_TRAIN: usize = 5_000;

/// Epochs from pretrained weights, half of those of the preset.
const EPOCHS: usize = 8;

pub(super) struct Build<'a> {
    folder: &'a Path,
    input: &'a Path,
    weights: Option<&'a Path>,
    /// Whether `input` is a folder or archive of images, not a data set.
    is_images: bool,
}

impl<'a> Build<'a> {
    pub(super) fn new(folder: &'a Path, input: &'a Path, weights: Option<&'a Path>, is_images: bool) -> Self {
        Self { folder, input, weights, is_images }
    }

    pub(super) fn gallery(&self) -> PathBuf {
        self.folder.join("gallery.live")
    }

    /// Returns true for images whose classes a network can learn.
    pub(super) fn trains(&self, dataset: &Dataset) -> bool {
        dataset.n_classes() > 1
    }

    pub(super) fn network(&self) -> String {
        match self.weights {
            Some(weights) => format!("by a network trained on their classes from {}", weights.display()),
            None => "by a small network trained on their classes".to_owned(),
        }
    }

    /// Trains a network on the classes, or resumes.
    pub(super) fn train(&self, dataset: &Dataset, json: bool) -> Result<()> {
        let run = self.folder.join("run");
        if run.join("model.safetensors").exists() {
            return Ok(());
        }
        let data = if self.is_images { self.data_set(dataset)? } else { self.input.to_owned() };
        let mut line = words(&["train", "--data"]);
        line.extend([data.into_os_string(), "--out".into(), run.clone().into_os_string()]);
        match self.weights {
            Some(weights) => {
                line.extend(words(&["--preset", "pretrained", "--weights"]));
                line.push(weights.into());
                line.extend(words(&["--set", &format!("epochs={EPOCHS}")]));
            }
            None => line.extend(words(&["--preset", "quick"])),
        }
        // A level needs as many images as codewords.
        let n_codewords = 1 << (dataset.len() - 1).ilog2().min(8);
        if self.is_images && n_codewords < 256 {
            line.extend(words(&["--set", &format!("quantizer.codewords={n_codewords}")]));
        }
        if run.join("checkpoint.safetensors").exists() {
            line.push("--resume".into());
        }
        command(line, json)
    }

    /// Describes the images as a data set.
    fn data_set(&self, dataset: &Dataset) -> Result<PathBuf> {
        let (folder, path) = (self.folder.join("data"), std::path::absolute(self.input)?);
        // Nothing is evaluated, so one query is enough.
        let n_train = (dataset.len() - 1).min(MAX_TRAIN);
        let mut images = toml::Table::from_iter([("format".to_owned(), "folder".into())]);
        images.insert("path".to_owned(), path.to_str().context("the path is not UTF-8")?.into());
        let table = json!({
            "name": path.file_stem().unwrap_or_default().to_string_lossy(),
            "train_in_gallery": true,
            "shape": { "channels": 3, "height": 32, "width": 32 },
            "images": images,
            "protocol": { "queries": 1, "train": n_train, "seed": 1 },
        });
        let text = toml::to_string(&toml::Table::try_from(&table)?)?;
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        dpq_file::write_atomic(folder.join("dataset.toml"), |out| out.write_all(text.as_bytes()))?;
        Ok(folder)
    }

    /// Adds all images by the network.
    pub(super) fn add_by_model(&self, json: bool) -> Result<()> {
        self.build(|partial| {
            let mut line = words(&["index", "add"]);
            line.push(partial.into());
            match self.is_images {
                true => line.push("--images".into()),
                false => line.extend(words(&["--split", "gallery", "--data"])),
            }
            line.extend([self.input.into(), "--model".into()]);
            line.push(self.folder.join("run/model.safetensors").into());
            command(line, json)
        })
    }

    /// Adds all images by features that need no labels.
    pub(super) fn add_plain(&self, dataset: Dataset, plain: &Plain) -> Result<()> {
        self.build(|partial| {
            let items = plain.encode(dataset.resized(plain.shape())?)?;
            let mut live = LiveIndex::create(partial, &items.codebooks, Metric::Euclidean)?;
            let codes = items.codes.chunks_exact(items.codebooks.n_levels());
            for (id, (code, name)) in (0..).zip(codes.zip(&items.names)) {
                live.upsert_named(id, code, name)?;
            }
            live.commit()?;
            while live.merge_step()? {}
            live.commit()?;
            Ok(())
        })
    }

    /// Makes the gallery beside its place and moves it there.
    fn build(&self, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let (gallery, partial) = (self.gallery(), self.folder.join("gallery.partial"));
        if gallery.exists() {
            return Ok(());
        }
        if partial.exists() {
            fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
        }
        make(&partial)?;
        fs::rename(&partial, &gallery).with_context(|| format!("cannot write {}", gallery.display()))?;
        Ok(dpq_file::sync_folder(self.folder)?)
    }
}

fn words(line: &[&str]) -> Vec<OsString> {
    line.iter().map(OsString::from).collect()
}

/// Runs a command of dpq, and shows it so that people can run it themselves.
fn command(line: Vec<OsString>, json: bool) -> Result<()> {
    let shown: Vec<_> = line.iter().map(|word| word.to_string_lossy()).collect();
    output::note(&format!("$ dpq {}", shown.join(" ")));
    let cli = Cli::try_parse_from(["dpq".into()].into_iter().chain(line)).context("a step of the demo")?;
    cli.command.run(json)
}
