//! `dpq encode`: images or features in, codes out.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use dpq_codebook::{Beam, Codebooks, LevelUsage, usage};
use dpq_data::Dataset;
use dpq_file::Container;
use dpq_formats::{FeatureFile, npy};
use dpq_model::Model;
use rayon::prelude::*;
use serde::Serialize;

use crate::codebook::length_weights;
use crate::codes::{remove_stale, write_codes};
use crate::features::{Column, close, key, write_columns};
use crate::inputs::{Inputs, NetworkOptions, Source, lies_in};
use crate::{output, train};

/// Encode images or features into codes
///
/// A model writes codes.npy and features.npy, for images ids.npy, labels.npy (if they have
/// classes) and names.txt (for a folder), and with `--posteriors` the classifier's posteriors.npy.
/// It takes images, or features if it was trained on features. An interrupted run resumes.
/// Codebooks alone take features and write codes.npy.
#[derive(clap::Args)]
#[command(
    group = clap::ArgGroup::new("encoder").required(true),
    after_help = "Examples:\n  dpq encode --model runs/a/model.safetensors --data datasets/fashion-mnist --split gallery \
        --out-dir runs/a/gallery\n  dpq encode --model model.safetensors --images photos --out-dir photos.codes\n  \
        dpq encode --codebook cb.safetensors --features x.npy --out-dir codes"
)]
pub(crate) struct Args {
    /// A trained model
    #[arg(long, group = "encoder", value_name = "SAFETENSORS")]
    model: Option<PathBuf>,
    /// Codebooks (or a model file) to encode features with
    #[arg(long, group = "encoder", value_name = "SAFETENSORS", requires = "features")]
    codebook: Option<PathBuf>,
    #[command(flatten)]
    inputs: Inputs,
    /// Codes that a beam search keeps per level, to find one with less error (weighted by
    /// `--length-weights`); 1 is greedy [default: that of the model if CODEBOOK is one, else 1]
    #[arg(long, requires = "codebook", value_name = "B")]
    beam: Option<usize>,
    /// Weights of the error of each length in the beam search, L numbers. 0,0,0,1 is for the
    /// longest code alone, at the expense of its prefixes [default: 1 each]
    #[arg(long, requires = "beam", value_delimiter = ',', value_name = "W")]
    length_weights: Vec<f32>,
    /// Write the classifier's probabilities as vectors, too: float32 [N, C], the softmax of the
    /// logits. They are no posterior for images of several classes
    #[arg(long, requires = "model")]
    posteriors: bool,
    #[command(flatten)]
    network: NetworkOptions,
    /// Folder for the results
    #[arg(long, value_name = "DIR")]
    out_dir: PathBuf,
}

#[derive(Serialize)]
struct Encoded {
    items: usize,
    /// Images that could not be read.
    left_out: usize,
    /// Items that an interrupted run had written.
    resumed: usize,
    dim: usize,
    levels: usize,
    seconds: f64,
    items_per_second: f64,
    /// The classifier's accuracy on a data set; none if images have several labels.
    accuracy: Option<f64>,
    /// At each length that codes have.
    relative_distortion: Vec<f64>,
    usage: Vec<LevelUsage>,
    fingerprint: String,
    peak_memory_bytes: Option<u64>,
}

impl Args {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        output::check_is_no_input(&self.out_dir.join("codes.npy"), &self.inputs.features)?;
        self.inputs.check_out(&self.out_dir)?;
        let encoded = match (&self.codebook, &self.model, &self.inputs.features) {
            (Some(codebook), _, Some(features)) => {
                let beam = self.beam.map_or_else(|| beam_of(codebook), Ok)?;
                self.encode_features(&Codebooks::open(codebook)?, beam, features)?
            }
            (_, Some(model), _) => {
                // Codebooks alone write beside the features; a model writes features of its own.
                output::check_is_no_input(&self.out_dir.join("features.npy"), &self.inputs.features)?;
                self.encode_items(model)?
            }
            _ => bail!("--codebook encodes --features, --model encodes --data, --images or --features"),
        };
        output::print(json, &encoded, &encoded.text(&self.out_dir))
    }

    fn encode_features(&self, codebooks: &Codebooks, width: usize, path: &Path) -> Result<Encoded> {
        let rows = FeatureFile::open(path)?;
        let (name, found, dim) = (path.display(), rows.columns(), codebooks.dim());
        ensure!(found == dim, "{name} has features of {found} dimensions, the codebooks have {dim}");
        let _dir = output::ResultDir::create(&self.out_dir)?;
        let weights = length_weights(self.length_weights.clone(), codebooks.n_levels());
        let beam = Beam { width, weights: &weights };
        let encode = |features: &[f32]| Ok(codebooks.encode_beam(features, beam)?);
        let (codes, distortion, seconds) = codes_of(&rows, codebooks, encode)?;
        if !lies_in(path, &self.out_dir) {
            remove_stale(&self.out_dir, &["features.npy", "posteriors.npy"])?;
        }
        self.write_codes(seconds, codebooks, distortion, &codes)
    }

    fn encode_items(&self, path: &Path) -> Result<Encoded> {
        let model = &self.network.open_model(path)?;
        ensure!(
            !self.posteriors || model.n_classes() > 0,
            "{} has no classifier, leave out --posteriors",
            path.display()
        );
        let source = self.inputs.open(model)?;
        train::check_split(path, self.inputs.data.as_deref(), &source)?;
        let _dir = output::ResultDir::create(&self.out_dir)?;
        // The classes of a folder are not those that the model knows.
        let classified = match &source {
            Source::Images { dataset, has_names: false, .. }
                if model.n_classes() > 0 && dataset.n_classes() == model.n_classes() =>
            {
                Some(dataset)
            }
            _ => None,
        };
        let mut columns = vec![Column { name: "features", width: model.codebooks().dim() }];
        columns.extend(self.posteriors.then_some(Column { name: "posteriors", width: model.n_classes() }));
        columns.extend(classified.map(|_| Column { name: PREDICTED, width: 1 }));
        let key = key(path, &self.inputs, &self.network, &format!("codes, posteriors {}", self.posteriors))?;
        let bad = (self.inputs.strict, self.inputs.skip_bad.as_deref());
        let (rows, written) = write_columns(&self.out_dir, &key, &source, &columns, bad, |_, items| {
            let output = items.forward(model)?;
            let logits = output.logits.chunks_exact(model.n_classes().max(1));
            let mut results = vec![output.features];
            results.extend(self.posteriors.then(|| logits.clone().flat_map(softmax).collect()));
            results.extend(classified.map(|_| logits.clone().map(|row| argmax(row) as f32).collect()));
            Ok(results)
        })?;
        let features = FeatureFile::open(self.out_dir.join("features.npy"))?;
        let encode = |features: &[f32]| Ok(model.encode(features)?);
        let (codes, distortion, seconds) = codes_of(&features, model.codebooks(), encode)?;
        let accuracy = match classified {
            None => None,
            Some(dataset) => {
                let path = self.out_dir.join(PREDICTED).with_extension("npy");
                let predicted = npy::read_matrix::<f32>(&path)?.values;
                accuracy(dataset, &rows, &predicted.iter().map(|&class| class as u32).collect::<Vec<_>>())
            }
        };
        let encoded = self.write_codes(written.seconds + seconds, model.codebooks(), distortion, &codes)?;
        close(&self.out_dir)?;
        if classified.is_some() {
            fs::remove_file(self.out_dir.join(PREDICTED).with_extension("npy"))?;
        }
        Ok(Encoded {
            resumed: written.resumed,
            left_out: written.left_out,
            items_per_second: (written.items - written.resumed) as f64 / (written.seconds + seconds),
            accuracy,
            ..encoded
        })
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
        let items = codes.len() / n_levels;
        Ok(Encoded {
            items,
            left_out: 0,
            resumed: 0,
            dim: codebooks.dim(),
            levels: n_levels,
            seconds,
            items_per_second: items as f64 / seconds,
            accuracy: None,
            relative_distortion,
            usage: usage(codes, n_levels, codebooks.n_codewords())?,
            fingerprint: codebooks.fingerprint(),
            peak_memory_bytes: output::peak_memory_bytes(),
        })
    }
}

/// The classes that a model predicts, until the accuracy is known: `predicted.npy`.
const PREDICTED: &str = "predicted";

/// Encodes all rows of a file. Returns the codes, their distortion at each length, and the seconds
/// of encoding.
fn codes_of(
    rows: &FeatureFile,
    codebooks: &Codebooks,
    encode: impl Fn(&[f32]) -> Result<Vec<u8>>,
) -> Result<(Vec<u8>, Vec<f64>, f64)> {
    let bar = output::progress(rows.rows(), "encoding");
    let mut seconds = 0.0;
    let mut codes = Vec::with_capacity(rows.rows() * codebooks.n_levels());
    // The energy of all features read so far, and the energy of the error at each length.
    let (mut energy, mut left) = (0.0, vec![0.0; codebooks.lengths().count()]);
    for (first, n) in rows.chunks() {
        let mut features = vec![0.0; n * rows.columns()];
        rows.read_finite(first, &mut features)?;
        let start = Instant::now();
        let chunk = encode(&features)?;
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
    Ok((codes, left, seconds))
}

/// Returns the width of the beam that a model encodes by; codebooks alone state none.
fn beam_of(path: &Path) -> Result<usize> {
    let is_model = Container::open(path)?.metadata("format").is_ok_and(|format| format == "dpq-model");
    Ok(if is_model { Model::open(path)?.config().quantizer.beam } else { 1 })
}

pub(crate) struct Outputs {
    /// The rows of the items that could be read.
    pub(crate) rows: Vec<u32>,
    /// f32 [n, D].
    pub(crate) features: Vec<f32>,
    /// u8 [n, L].
    pub(crate) codes: Vec<u8>,
    /// f32 [n, C], the softmax of the logits, if asked for.
    pub(crate) posteriors: Vec<f32>,
    predicted: Vec<u32>,
}

impl Outputs {
    /// Runs the model on `rows` of the items. Unreadable images are skipped, or an error if
    /// `strict`.
    pub(crate) fn new(
        model: &Model,
        source: &Source,
        rows: &[u32],
        strict: bool,
        posteriors: bool,
    ) -> Result<Self> {
        let (codebooks, n) = (model.codebooks(), rows.len());
        let mut outputs = Self {
            rows: Vec::with_capacity(n),
            features: Vec::with_capacity(n * codebooks.dim()),
            codes: Vec::with_capacity(n * codebooks.n_levels()),
            posteriors: Vec::new(),
            predicted: Vec::with_capacity(n),
        };
        let bar = output::progress(n, "encoding");
        source.for_each_batch(rows, strict, |rows, items| {
            let output = items.forward(model)?;
            outputs.codes.extend(model.encode(&output.features)?);
            outputs.features.extend(output.features);
            let logits = output.logits.chunks_exact(model.n_classes().max(1));
            outputs.predicted.extend(logits.clone().map(argmax));
            if posteriors {
                outputs.posteriors.extend(logits.flat_map(softmax));
            }
            outputs.rows.extend_from_slice(rows);
            bar.set_position(outputs.rows.len() as u64);
            Ok(())
        })?;
        bar.finish_and_clear();
        Ok(outputs)
    }

    pub(crate) fn accuracy(&self, dataset: &Dataset) -> Option<f64> {
        accuracy(dataset, &self.rows, &self.predicted)
    }
}

/// Returns the share of items whose only label is the class predicted; none if items have several
/// labels.
fn accuracy(dataset: &Dataset, rows: &[u32], predicted: &[u32]) -> Option<f64> {
    let right = rows.par_iter().zip(predicted).map(|(&row, class)| match dataset.labels(row as usize) {
        [label] => Some(u32::from(label == class)),
        _ => None,
    });
    Some(f64::from(right.sum::<Option<u32>>()?) / rows.len() as f64)
}

fn argmax(logits: &[f32]) -> u32 {
    (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best }) as u32
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let largest = logits.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let weights: Vec<f32> = logits.iter().map(|x| (x - largest).exp()).collect();
    let total: f32 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / total).collect()
}

impl Encoded {
    fn text(&self, dir: &Path) -> String {
        let Self { items, left_out, resumed, items_per_second, .. } = self;
        let dir = dir.display();
        let mut text = format!("encoded {items} items into {dir} ({items_per_second:.0} per second)\n");
        if *resumed > 0 {
            text += &format!("resumed after {resumed} items\n");
        }
        if *left_out > 0 {
            text += &format!("skipped {left_out} images that cannot be read\n");
        }
        if let Some(accuracy) = self.accuracy {
            text += &format!("classified {:.2} % of them right\n", 100.0 * accuracy);
        }
        // Product codes have one length, the last.
        let lengths = (1..).zip(&self.usage).skip(self.usage.len() - self.relative_distortion.len());
        for ((level, LevelUsage { used, distinct, .. }), distortion) in lengths.zip(&self.relative_distortion)
        {
            let bits = 8 * level;
            text += &format!(
                "{bits:>3} bits: distortion {distortion:.4} of mean x², {used} codewords used, {distinct} distinct codes\n"
            );
        }
        text
    }
}
