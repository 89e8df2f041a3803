//! `dpq encode`: images or features in, codes out.
//!
//! - `body`: features below a network's heads, which are written as they come
//! - `outputs`: what a model makes, collected

mod body;
mod outputs;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use dpq_codebook::{Beam, Codebooks, LevelUsage, usage};
use dpq_data::{Dataset, ImageShape, Split};
use dpq_formats::{FeatureFile, npy};
use dpq_model::config::Body;
use dpq_model::{Device, Model, Weights};
use serde::Serialize;

use crate::codebook::length_weights;
use crate::codes::{remove_stale, write_codes};
use crate::{data, output};
use outputs::{Outputs, accuracy};

/// Encode images or features into codes
///
/// With a model: a split of a data set, or a folder of images, becomes codes.npy, features.npy, ids.npy, labels.npy
/// (where there are labels) and names.txt (for a folder). With codebooks alone: features become codes.npy. With
/// `--posterior` there are no codes: fit codebooks to the features and encode them as any others. With `--body`
/// images become features.npy below the heads of the network, without codes: what `dpq train --features` takes. With
/// pretrained weights in place of a model they become the same.
#[derive(clap::Args)]
#[command(
    group = clap::ArgGroup::new("encoder").required(true),
    group = clap::ArgGroup::new("input").required(true),
    after_help = "Examples:\n  dpq encode --model runs/a/model.safetensors --data datasets/fashion-mnist --split gallery \
        --out-dir runs/a/gallery\n  dpq encode --model model.safetensors --images photos --out-dir photos.codes\n  \
        dpq encode --codebook cb.safetensors --features x.npy --out-dir codes\n  dpq encode --model model.safetensors \
        --data datasets/fashion-mnist --split train --body --out-dir bodies"
)]
pub(crate) struct Args {
    /// A trained model
    #[arg(long, group = "encoder", value_name = "SAFETENSORS")]
    model: Option<PathBuf>,
    /// Codebooks (or a model file) to encode features with
    #[arg(long, group = "encoder", value_name = "SAFETENSORS", requires = "features")]
    codebook: Option<PathBuf>,
    /// Codes kept from level to level; more than 1 looks for the code of least error, as `--length-weights` counts it
    #[arg(long, default_value_t = 1, requires = "codebook", value_name = "B")]
    beam: usize,
    /// How much a beam counts the error of each length, L numbers; 0,0,0,1 is the longest code alone, at the expense of its
    /// prefixes [default: 1 each]
    #[arg(long, requires = "beam", value_delimiter = ',', value_name = "W")]
    length_weights: Vec<f32>,
    /// Pretrained weights (`dpq weights import`), for features as those of `--body`
    #[arg(long, group = "encoder", value_name = "SAFETENSORS", conflicts_with = "features")]
    weights: Option<PathBuf>,
    /// A data set folder; its images are brought to the size that the network takes
    #[arg(long, group = "input", value_name = "DIR", requires = "split")]
    data: Option<PathBuf>,
    /// Which split of the data set: train, query or gallery
    #[arg(long, requires = "data", value_parser = |s: &str| s.parse::<Split>())]
    split: Option<Split>,
    /// Folder of images, flat or one sub-folder per class
    #[arg(long, group = "input", value_name = "DIR")]
    images: Option<PathBuf>,
    /// Features, [N, D], .npy (float32), .fvecs or .bvecs: for codebooks, or for a model that was trained on such
    #[arg(long, group = "input", value_name = "FILE")]
    features: Option<PathBuf>,
    /// Take the classifier's probabilities for the feature, as weights of fixed orthogonal vectors, in place of the paper's;
    /// they are blind within a class and to new classes. T divides the logits before the softmax, 1 unless given
    #[arg(long, requires = "model", value_name = "T", num_args = 0..=1, require_equals = true, default_missing_value = "1")]
    posterior: Option<f32>,
    /// Whether features are means over an image and its mirror image [default: as the model's configuration says]
    #[arg(long, requires = "model", conflicts_with = "features", value_name = "BOOL")]
    mirror_average: Option<bool>,
    /// Write what the network makes of images below its heads, float32 [N, F], in place of features and codes; a run that was
    /// cut off goes on where it was
    #[arg(long, requires = "model", conflicts_with_all = ["features", "posterior"])]
    body: bool,
    /// Stop at the first image that cannot be read; without this, such images are named and left out
    #[arg(long, conflicts_with = "features")]
    strict: bool,
    /// Where the network runs: cpu, or cuda:N in a program built with --features cuda
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: Device,
    /// Folder for the results
    #[arg(long, value_name = "DIR")]
    out_dir: PathBuf,
}

#[derive(Serialize)]
struct Encoded {
    items: usize,
    /// Images that could not be read.
    left_out: usize,
    dim: usize,
    levels: usize,
    seconds: f64,
    items_per_second: f64,
    accuracy: Option<f64>,
    relative_distortion: Vec<f64>,
    usage: Vec<Usage>,
    /// Of the codebooks; none where there are no codes.
    fingerprint: Option<String>,
    peak_memory_bytes: Option<u64>,
}

#[derive(Serialize)]
struct Usage {
    used: usize,
    perplexity: f64,
    distinct: usize,
}

impl Args {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        output::check_is_no_input(&self.out_dir.join("codes.npy"), &self.features)?;
        if self.codebook.is_none() {
            // Codebooks alone write beside the features; a model writes features of its own.
            output::check_is_no_input(&self.out_dir.join("features.npy"), &self.features)?;
        }
        if let Some(path) = &self.weights {
            let weights = Weights::open(path)?.on(self.device)?;
            let shape = data::image_shape(weights.image_shape());
            return self.encode_bodies(shape, weights.body_dim(), |images| weights.body(images), json);
        }
        let model = self.model.as_deref().map(|path| self.open(path)).transpose()?;
        let encoded = match (&self.codebook, &model, &self.features) {
            (Some(codebook), _, Some(features)) => {
                self.encode_features(&Codebooks::open(codebook)?, features)?
            }
            (_, Some(model), Some(features)) => self.encode_foreign(model, features)?,
            (_, Some(model), None) if self.body => {
                let shape = data::model_shape(model)?;
                return self.encode_bodies(shape, model.body_dim(), |images| model.body(images), json);
            }
            (_, Some(model), None) => self.encode_images(model)?,
            _ => bail!("--codebook encodes --features, --model encodes --data, --images or --features"),
        };
        output::print(json, &encoded, &encoded.text(&self.out_dir))
    }

    fn open(&self, path: &Path) -> Result<Model> {
        let model = Model::open(path)?.on(self.device)?;
        Ok(match self.mirror_average {
            Some(average) => model.with_mirror_average(average),
            None => model,
        })
    }

    fn encode_features(&self, codebooks: &Codebooks, path: &Path) -> Result<Encoded> {
        let rows = FeatureFile::open(path)?;
        ensure!(
            rows.columns() == codebooks.dim(),
            "{} has features of {} dimensions, the codebooks have {}",
            path.display(),
            rows.columns(),
            codebooks.dim()
        );
        let _dir = output::ResultDir::create(&self.out_dir)?;
        let weights = length_weights(self.length_weights.clone(), codebooks.n_levels());
        let beam = Beam { width: self.beam, weights: &weights };
        let bar = output::progress(rows.rows(), "encoding");
        let mut seconds = 0.0;
        let mut codes = Vec::with_capacity(rows.rows() * codebooks.n_levels());
        // Of all features read so far, their energy and what each level leaves of it.
        let (mut energy, mut left) = (0.0, vec![0.0; codebooks.n_levels()]);
        for (first, n) in rows.chunks() {
            let mut features = vec![0.0; n * rows.columns()];
            rows.read_finite(first, &mut features)?;
            let start = Instant::now();
            let chunk = codebooks.encode_beam(&features, beam)?;
            seconds += output::seconds(start);
            let chunk_energy: f64 = features.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            let distortion = codebooks.relative_distortion(&features, &chunk)?;
            left.iter_mut().zip(distortion).for_each(|(left, distortion)| *left += distortion * chunk_energy);
            energy += chunk_energy;
            codes.extend(chunk);
            bar.inc(n as u64);
        }
        bar.finish_and_clear();
        if energy > 0.0 {
            left.iter_mut().for_each(|left| *left /= energy);
        }
        self.write_codes(seconds, codebooks, left, &codes)
    }

    /// Encodes features that something else made, with a model that was trained on such.
    fn encode_foreign(&self, model: &Model, path: &Path) -> Result<Encoded> {
        let rows = FeatureFile::open(path)?;
        let dim = rows.columns();
        ensure!(
            model.config().network.body == Body::Features && model.image_shape() == [dim, 1, 1],
            "{} has features of {dim} numbers, the model takes {}",
            path.display(),
            data::model_inputs(model)
        );
        let _dir = output::ResultDir::create(&self.out_dir)?;
        let start = Instant::now();
        let mut outputs = Outputs::new(model, self.posterior, rows.rows());
        for first in (0..rows.rows()).step_by(data::BATCH) {
            let mut inputs = vec![0.0; data::BATCH.min(rows.rows() - first) * dim];
            rows.read(first, &mut inputs).with_context(|| format!("cannot read {}", path.display()))?;
            let output = model.forward_features(&inputs);
            outputs.push(output.with_context(|| format!("{}, counted from row {first}", path.display()))?)?;
        }
        remove_stale(&self.out_dir, &["codes.npy"])?;
        self.write_outputs(start, outputs)
    }

    /// The images to encode, in `shape`.
    fn images(&self, shape: ImageShape) -> Result<(Dataset, Vec<u32>)> {
        match (&self.data, self.split, &self.images) {
            (Some(dir), Some(split), _) => {
                let dataset = Dataset::open(dir)?.resized(shape)?;
                let rows = dataset.split(split).to_vec();
                Ok((dataset, rows))
            }
            (_, _, Some(dir)) => {
                let dataset = Dataset::from_folder(dir, shape)?;
                data::report_skipped(&dataset);
                let rows = (0..dataset.len() as u32).collect();
                Ok((dataset, rows))
            }
            _ => bail!("a network encodes --data with --split, or --images"),
        }
    }

    /// Writes who the rows are: `ids.npy`, and `labels.npy` and `names.txt` where there are such, in place of an earlier
    /// encoding's.
    fn write_ids(&self, dataset: &Dataset, rows: &[u32]) -> Result<()> {
        remove_stale(&self.out_dir, &["labels.npy", "names.txt", "codes.npy"])?;
        // Line i of names.txt is id i, so images that were left out leave no gap there.
        let id = |(at, &row): (usize, &u32)| if self.images.is_some() { at as u64 } else { row.into() };
        let ids: Vec<u64> = rows.iter().enumerate().map(id).collect();
        npy::write(&self.out_dir.join("ids.npy"), &[ids.len()], &ids)?;
        if dataset.n_classes() > 0 {
            let labels = dataset.multi_hot(rows);
            npy::write(&self.out_dir.join("labels.npy"), &[rows.len(), dataset.n_classes()], &labels)?;
        }
        if self.images.is_some() {
            write_names(&self.out_dir.join("names.txt"), dataset, rows)?;
        }
        Ok(())
    }

    fn encode_images(&self, model: &Model) -> Result<Encoded> {
        let (dataset, rows) = self.images(data::model_shape(model)?)?;
        let _dir = output::ResultDir::create(&self.out_dir)?;
        let start = Instant::now();
        let bar = output::progress(rows.len(), "encoding");
        let mut outputs = Outputs::new(model, self.posterior, rows.len());
        let mut kept = Vec::with_capacity(rows.len());
        data::for_each_batch(&dataset, &rows, self.strict, |batch| {
            outputs.push(model.forward(&batch.pixels)?)?;
            kept.extend(batch.rows);
            bar.set_position(kept.len() as u64);
            Ok(())
        })?;
        bar.finish_and_clear();
        ensure!(!kept.is_empty(), "none of the {} images of {} can be read", rows.len(), dataset.name());
        let left_out = rows.len() - kept.len();
        let rows = kept;

        self.write_ids(&dataset, &rows)?;
        // The classes of a folder of the user's are not those that the model knows.
        let accuracy = if self.data.is_some() && dataset.n_classes() == model.n_classes() {
            accuracy(&dataset, &rows, &outputs.predicted)
        } else {
            None
        };
        Ok(Encoded { left_out, accuracy, ..self.write_outputs(start, outputs)? })
    }

    /// Writes features, and codes where there are such.
    fn write_outputs(&self, start: Instant, outputs: Outputs) -> Result<Encoded> {
        let Outputs { model, features, codes, .. } = outputs;
        let codebooks = model.codebooks();
        let items = features.len() / codebooks.dim();
        npy::write(&self.out_dir.join("features.npy"), &[items, codebooks.dim()], &features)?;
        let seconds = output::seconds(start);
        if self.posterior.is_some() {
            return Ok(Encoded::without_codes(seconds, items, codebooks.dim()));
        }
        self.write_codes(seconds, codebooks, codebooks.relative_distortion(&features, &codes)?, &codes)
    }

    fn write_codes(
        &self,
        seconds: f64,
        codebooks: &Codebooks,
        relative_distortion: Vec<f64>,
        codes: &[u8],
    ) -> Result<Encoded> {
        let n_levels = codebooks.n_levels();
        write_codes(&self.out_dir, codebooks, codes, None)?;
        Ok(Encoded {
            levels: n_levels,
            relative_distortion,
            usage: usage(codes, n_levels, codebooks.n_codewords())?.into_iter().map(Usage::from).collect(),
            fingerprint: Some(codebooks.fingerprint()),
            ..Encoded::without_codes(seconds, codes.len() / n_levels, codebooks.dim())
        })
    }
}

impl From<LevelUsage> for Usage {
    fn from(level: LevelUsage) -> Self {
        Self { used: level.used, perplexity: level.perplexity, distinct: level.distinct }
    }
}

impl Encoded {
    fn without_codes(seconds: f64, items: usize, dim: usize) -> Self {
        Self {
            items,
            left_out: 0,
            dim,
            levels: 0,
            seconds,
            items_per_second: items as f64 / seconds,
            accuracy: None,
            relative_distortion: Vec::new(),
            usage: Vec::new(),
            fingerprint: None,
            peak_memory_bytes: output::peak_memory_bytes(),
        }
    }

    fn text(&self, dir: &Path) -> String {
        let mut text = format!(
            "encoded {} items into {} ({:.0} a second)\n",
            self.items,
            dir.display(),
            self.items_per_second
        );
        if self.left_out > 0 {
            writeln!(text, "left out {} images that cannot be read", self.left_out)
                .expect("writing to a string");
        }
        if let Some(accuracy) = self.accuracy {
            writeln!(text, "classified {:.2} % of them right", 100.0 * accuracy)
                .expect("writing to a string");
        }
        for (level, (distortion, usage)) in self.relative_distortion.iter().zip(&self.usage).enumerate() {
            writeln!(
                text,
                "{:>3} bits: distortion {distortion:.4} of mean x², {} codewords used, {} distinct codes",
                8 * (level + 1),
                usage.used,
                usage.distinct
            )
            .expect("writing to a string");
        }
        text
    }
}

fn write_names(path: &Path, dataset: &Dataset, rows: &[u32]) -> Result<()> {
    let mut names = String::new();
    for &row in rows {
        let name = dataset.path(row as usize).context("images of a folder have paths")?.display().to_string();
        ensure!(!name.contains(['\n', '\r']), "the name {name:?} has a line break, rename the file");
        writeln!(names, "{name}")?;
    }
    dpq_file::write_atomic(path, |out| out.write_all(names.as_bytes()))?;
    Ok(())
}
