//! `dpq features`: images or features in, features out.
//!
//! - `partial`: features on their way to `features.npy`, from which an interrupted run resumes

mod partial;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use dpq_data::{Augment, ImageShape};
use dpq_model::config::AugmentConfig;
use dpq_model::{Model, TrainConfig};
use rayon::prelude::*;
use serde::Serialize;

use crate::inputs::{Inputs, Items, NetworkOptions, Source};
use crate::{images, output, train, weights};
use partial::Partial;
pub(crate) use partial::{Column, close};

/// Compute features of images by a network, without codes
///
/// A model gives the features that its codebooks encode; with `--body` those below its heads, which
/// `dpq train --features` takes; with `--posterior` the classifier's probabilities; with
/// `--queries` those that search the codes of a model of pairs. Pretrained weights give those of
/// their body. Writes features.npy, and for images ids.npy, labels.npy (if they have classes) and
/// names.txt (for a folder). An interrupted run resumes.
#[derive(clap::Args)]
#[command(
    group = clap::ArgGroup::new("network").required(true),
    after_help = "Examples:\n  dpq features --model model.safetensors --images photos --out-dir photos.features\n  \
        dpq features --model model.safetensors --data datasets/fashion-mnist --split train --body --out-dir bodies\n  \
        dpq features --weights alexnet.safetensors --data datasets/nus-wide-21 --split train --out-dir bodies"
)]
pub(crate) struct Args {
    /// A trained model
    #[arg(long, group = "network", value_name = "SAFETENSORS")]
    model: Option<PathBuf>,
    /// Pretrained weights (`dpq weights import`)
    #[arg(long, group = "network", value_name = "SAFETENSORS", conflicts_with = "features")]
    weights: Option<PathBuf>,
    /// Side of the images in pixels, for weights of a residual network [default: 224]
    #[arg(long = "input", requires = "weights", value_name = "PIXELS")]
    side: Option<usize>,
    #[command(flatten)]
    inputs: Inputs,
    /// Compute the features below the model's heads, float32 [N, F]
    #[arg(long, requires = "model", conflicts_with_all = ["features", "posterior"])]
    body: bool,
    /// Take the classifier's probabilities for features, as weights of fixed orthogonal vectors:
    /// they tell nothing within a class or about new classes. T divides the logits before the
    /// softmax [default: 1]
    #[arg(long, requires = "model", value_name = "T", num_args = 0..=1, require_equals = true, default_missing_value = "1")]
    posterior: Option<f32>,
    /// The features are queries of a model of pairs, which maps them otherwise than keys
    #[arg(long, requires_all = ["model", "features"], conflicts_with_all = ["body", "posterior"])]
    queries: bool,
    /// Features of V views of each image, side by side, [N, V F]: the image itself, then random
    /// crops, mirror images and colours, as preset `mecoq` has them. `dpq train --views` trains on
    /// them
    #[arg(long, value_name = "V", default_value_t = 1, conflicts_with = "features", value_parser = clap::value_parser!(u16).range(1..))]
    views: u16,
    /// Seed of the views
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    network: NetworkOptions,
    /// Folder for the results
    #[arg(long, value_name = "DIR")]
    out_dir: PathBuf,
}

#[derive(Serialize)]
pub(crate) struct Written {
    pub(crate) items: usize,
    /// Items that an interrupted run had written.
    pub(crate) resumed: usize,
    /// Images that could not be read.
    pub(crate) left_out: usize,
    dim: usize,
    pub(crate) seconds: f64,
    items_per_second: f64,
    peak_memory_bytes: Option<u64>,
}

impl Args {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        output::check_is_no_input(&self.out_dir.join("features.npy"), &self.inputs.features)?;
        self.inputs.check_out(&self.out_dir)?;
        let written = match (&self.model, &self.weights) {
            (Some(path), _) => {
                let model = self.network.open_model(path)?;
                let source = self.inputs.open(&model)?;
                train::check_split(path, self.inputs.data.as_deref(), &source)?;
                let dim = if self.body { model.body_dim() } else { model.codebooks().dim() };
                self.write(path, &source, dim, |items| self.features(&model, items))?
            }
            (_, Some(path)) => {
                let weights = weights::open(path)?.on(self.network.device)?;
                let weights = match self.side {
                    Some(side) => weights.with_input(side)?,
                    None => weights,
                };
                let source = self.inputs.open_images(images::image_shape(weights.image_shape()))?;
                self.write(path, &source, weights.body_dim(), |items| Ok(weights.body(items.pixels()?)?))?
            }
            _ => bail!("give --model or --weights"),
        };
        output::print(json, &written, &written.text(&self.out_dir))
    }

    /// The features of items that the options ask a model for, f32 [n, dim].
    fn features(&self, model: &Model, items: &Items) -> Result<Vec<f32>> {
        if self.body {
            return Ok(model.body(items.pixels()?)?);
        }
        if let (true, Items::Features(queries)) = (self.queries, items) {
            return Ok(model.forward_queries(queries)?);
        }
        let output = items.forward(model)?;
        Ok(match self.posterior {
            None => output.features,
            Some(temperature) => model.posterior_features(&output.logits, temperature)?,
        })
    }

    /// Writes the features of all items by the network of the file `network`.
    fn write(
        &self,
        network: &Path,
        source: &Source,
        dim: usize,
        features: impl Fn(&Items) -> Result<Vec<f32>> + Sync,
    ) -> Result<Written> {
        let _dir = output::ResultDir::create(&self.out_dir)?;
        let (key, n_views) = (self.key(network)?, usize::from(self.views));
        let of_views = |rows: &[u32], items: &Items| -> Result<Vec<f32>> {
            let (Source::Images { dataset, .. }, Items::Images(pixels), 2..) = (source, items, n_views)
            else {
                return features(items);
            };
            let mut all = vec![0.0; rows.len() * n_views * dim];
            for view in 0..n_views {
                let mut pixels = pixels.clone();
                if view > 0 {
                    let seed = |row: u32| {
                        self.seed.wrapping_mul(SEEDS).wrapping_add(u64::from(row) << 16 | view as u64)
                    };
                    let images = pixels.par_chunks_exact_mut(dataset.shape().len()).zip(rows);
                    images.try_for_each(|(image, &row)| random_view(dataset.shape(), image, seed(row)))?;
                }
                let of_view = features(&Items::Images(pixels))?;
                let places = all.chunks_exact_mut(dim).skip(view).step_by(n_views);
                places.zip(of_view.chunks_exact(dim)).for_each(|(to, from)| to.copy_from_slice(from));
            }
            Ok(all)
        };
        let bad = self.inputs.skip_bad.as_deref();
        write_features(&self.out_dir, &key, source, n_views * dim, self.inputs.strict, bad, of_views)
    }

    fn key(&self, network: &Path) -> Result<String> {
        let Self { side, body, posterior, queries, .. } = self;
        let views = (self.views > 1).then_some((self.views, self.seed));
        let what = format!(
            "side {side:?}, body {body}, posterior {posterior:?}, queries {queries}, views {views:?}"
        );
        key(network, &self.inputs, &self.network, &what)
    }
}

/// Tells runs apart, so that none resumes from the results of another.
pub(crate) fn key(network: &Path, inputs: &Inputs, options: &NetworkOptions, what: &str) -> Result<String> {
    let Inputs { data, images, features, strict, .. } = inputs;
    let (average, items) = (options.mirror_average, [data, images, features]);
    let stamp = features.iter().chain(images).map(|path| stamp(path)).collect::<String>();
    let network = dpq_file::crc32c(&fs::read(network)?);
    Ok(format!(
        "network {network:08x}, {what}, mirror average {average:?}, strict {strict}, items of {items:?}{stamp}"
    ))
}

/// Tells a file from another of the same path: its size and the time of its last change.
fn stamp(path: &Path) -> String {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file);
    metadata.map_or(String::new(), |file| format!(" {} bytes {:?}", file.len(), file.modified().ok()))
}

/// Writes features f32 [N, dim] of all items, as [`write_columns`].
pub(crate) fn write_features(
    dir: &Path,
    key: &str,
    source: &Source,
    dim: usize,
    strict: bool,
    bad: Option<&Path>,
    features: impl Fn(&[u32], &Items) -> Result<Vec<f32>> + Sync,
) -> Result<Written> {
    let column = Column { name: "features", width: dim };
    let results = |rows: &[u32], items: &Items| Ok(vec![features(rows, items)?]);
    let written = write_columns(dir, key, source, &[column], (strict, bad), results)?;
    close(dir).with_context(|| format!("cannot write into {}", dir.display()))?;
    Ok(written.1)
}

/// Writes results of all items, and the files of [`Source::write_ids`], into the folder `dir`, and
/// the images that cannot be read into the file `bad`, unless the first is an error (`strict`).
/// Resumes an interrupted run of the same `key` and rows, until the caller calls [`close`]. Returns
/// the rows of the items that could be read.
pub(crate) fn write_columns(
    dir: &Path,
    key: &str,
    source: &Source,
    columns: &[Column],
    (strict, bad): (bool, Option<&Path>),
    results: impl Fn(&[u32], &Items) -> Result<Vec<Vec<f32>>> + Sync,
) -> Result<(Vec<u32>, Written)> {
    let start = Instant::now();
    let rows = source.rows()?;
    // A folder that has other images by now gives row i to another one.
    let place = |&row: &u32| match source {
        Source::Images { dataset, .. } => dataset.path(row as usize),
        Source::Features(_) => None,
    };
    let items = rows.iter().map(|row| {
        format!(
            "{row} {}",
            place(row).map_or(String::new(), |path| path.display().to_string() + &stamp(path))
        )
    });
    let items = dpq_file::crc32c(items.collect::<Vec<_>>().join("\n").as_bytes());
    let key = format!("{key}, {} rows {items:08x}", rows.len());
    let writing = || format!("cannot write into {}", dir.display());
    let mut partial = Partial::open(dir, &key, columns).with_context(writing)?;
    let (resumed, last) = (partial.done.len(), partial.done.last().copied());
    let rest = last.and_then(|last| rows.iter().position(|&row| row == last)).map_or(0, |at| at + 1);
    let bar = output::progress(rows.len(), "features");
    // The time that is left does not depend on what was done before.
    bar.set_position(rest as u64);
    bar.reset_eta();
    source.for_each_batch(&rows[rest..], strict, |rows, items| {
        partial.push(rows, &results(rows, &items)?).with_context(writing)?;
        bar.inc(rows.len() as u64);
        Ok(())
    })?;
    bar.finish_and_clear();
    let kept = partial.done.clone();
    if let Some(path) = bad {
        source.write_bad(path, &rows, &kept)?;
    }
    source.write_ids(dir, &kept)?;
    partial.finish().with_context(writing)?;
    let seconds = output::seconds(start);
    let written = Written {
        items: kept.len(),
        resumed,
        left_out: rows.len() - kept.len(),
        dim: columns[0].width,
        seconds,
        items_per_second: (kept.len() - resumed) as f64 / seconds,
        peak_memory_bytes: output::peak_memory_bytes(),
    };
    Ok((kept, written))
}

/// An odd number, so that the seeds of two runs are far apart.
const SEEDS: u64 = 0x9e37_79b9_7f4a_7c15;

/// Makes a random view of an image, as preset `mecoq` has it.
fn random_view(shape: ImageShape, image: &mut [u8], seed: u64) -> Result<()> {
    let AugmentConfig { mirror, view, .. } = TrainConfig::mecoq().augment;
    let mirror = Augment { padding: 0, mirror, cutout: 0, cutout_probability: 0.0 };
    mirror.apply(shape, image, seed)?;
    Ok(view.map_or(Ok(()), |view| train::view(view).apply(shape, image, seed))?)
}

impl Written {
    fn text(&self, dir: &Path) -> String {
        let Self { items, resumed, left_out, dim, items_per_second: rate, .. } = self;
        let dir = dir.display();
        let mut text =
            format!("wrote features of {dim} numbers for {items} items to {dir} ({rate:.0} per second)");
        if *resumed > 0 {
            text += &format!("\nresumed after {resumed} items");
        }
        if *left_out > 0 {
            text += &format!("\nskipped {left_out} images that cannot be read");
        }
        text
    }
}
