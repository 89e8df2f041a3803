//! Training, top to bottom.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use crate::body::layers;
use crate::checkpoint::State;
use crate::codebook;
use crate::config::{Body, RateSchedule, Start, TrainConfig};
use crate::diverged::{DUMP, diverged};
use crate::embeddings;
use crate::inputs::{Batch, Moments};
use crate::loss::{adaptive_margin, classification};
use crate::model::{Header, Model, Snapshot};
use crate::quantize::{hard_distortion, joint_center, quantize, soft_distortion};
use crate::report::{EpochReport, Tally};
use crate::rng::{Stream, mix, permutation, rng};
use crate::schedule::Phase;
use crate::{BoxError, Error, Weights, read_ahead};

/// Inputs and labels to learn from. The caller reads and augments; this crate says what and with which seed.
pub struct TrainSet<'a> {
    /// Training items.
    pub n_items: usize,
    /// Their classes, multi-hot u8 `[n_items, n_classes]`.
    pub labels: &'a [u8],
    /// Classes.
    pub n_classes: usize,
    /// Vectors of the classes, f32 `[n_classes, D]` with the D of the feature; none for random, near-orthogonal ones.
    pub embeddings: Option<&'a [f32]>,
    /// Images or features.
    pub inputs: Inputs<'a>,
    /// Where the body starts, and how images are scaled; none for random weights and the moments of training images.
    pub weights: Option<&'a Weights>,
}

/// What the network learns from. Each is read by its row in 0..n_items, and by the seed of its augmentation, none for none.
pub enum Inputs<'a> {
    /// Images.
    Images {
        /// `[C, H, W]`.
        shape: [usize; 3],
        /// Writes an image, u8 `[C, H, W]`.
        read: &'a Read<'a, u8>,
    },
    /// Features that something else made, for a network whose body is [`Body::Features`].
    Features {
        /// Their length, D.
        dim: usize,
        /// Writes a row, f32 `[D]`.
        read: &'a Read<'a, f32>,
    },
}

/// Reads the input of a row, augmented as a seed decides if there is one.
pub type Read<'a, T> = dyn Fn(usize, Option<u64>, &mut [T]) -> Result<(), BoxError> + Sync + 'a;

/// Hears of every epoch when it is done, and gets the network as it is then.
pub type OnEpoch<'a> = dyn FnMut(&EpochReport, &Snapshot<'_>) -> Result<(), BoxError> + 'a;

/// Trains a network and its codebooks, and writes `model.safetensors` into the folder `out`.
///
/// After each epoch, once `on_epoch` has heard of it, `out` gets a checkpoint. With `resume` a run goes on from there, on
/// any device, and on the CPU ends with the same bytes as one that was never interrupted; without a checkpoint it starts
/// afresh. Setting `stop` ends the run before its next step.
///
/// # Errors
/// [`Error::Invalid`] if configuration, data or device cannot be used, [`Error::Diverged`] if a loss or a parameter
/// is no longer finite, [`Error::Interrupted`] if `stop` was set, and what reading images or writing files gives.
pub fn train(
    config: &TrainConfig,
    data: &TrainSet<'_>,
    device: crate::Device,
    out: &Path,
    resume: bool,
    stop: &AtomicBool,
    on_epoch: &mut OnEpoch<'_>,
) -> Result<Model, Error> {
    config.check()?;
    data.check(config)?;
    let device = device.open()?;
    let checkpoint = out.join("checkpoint.safetensors");
    let header = header(config, data)?;
    let fingerprint = data.fingerprint();
    remove_if_there(&out.join(DUMP))?;
    let mut state = match resume && checkpoint.exists() {
        true => State::open(&header, &fingerprint, &checkpoint, &device)?,
        false => {
            // A model of an earlier run must not be taken for this one's while this one is under way.
            remove_if_there(&out.join(MODEL))?;
            remove_if_there(&checkpoint)?;
            let mut state = State::new(&header, &device)?;
            if let Some(weights) = data.weights {
                let on_device =
                    |(name, tensor): (&String, &Tensor)| Ok((name.clone(), tensor.to_device(&device)?));
                let tensors: candle_core::Result<_> = weights.tensors.iter().map(on_device).collect();
                state.network.set(&tensors?)?;
            }
            state
        }
    };

    let embeddings = match data.embeddings {
        Some(embeddings) => embeddings.to_vec(),
        None => embeddings::label_embeddings(data.n_classes, config.network.dim, config.seed),
    };
    let embeddings = Tensor::from_vec(embeddings, (data.n_classes, config.network.dim), &device)?;
    let n_labels = |row: &[u8]| row.iter().filter(|&&label| label == 1).count();
    let multi_label = data.labels.chunks_exact(data.n_classes).any(|row| n_labels(row) > 1);
    let n_steps = data.n_items.div_ceil(config.batch_size);
    let total_steps = n_steps * config.epochs;
    let (quantizer, weights) = (&config.quantizer, &config.loss);

    for epoch in state.epoch..config.epochs {
        let start = Instant::now();
        if config.schedule.first_codebook_epoch(config.epochs).is_some_and(|first| epoch >= first)
            && state.codebook.is_empty()
        {
            state.codebook = match quantizer.start {
                Start::Random => codebook::random(config, &device)?,
                Start::ResidualKmeans => codebook::fit(config, &features(&header, &state, data)?, &device)?,
            };
        }

        let mut tally = Tally::default();
        let mut losses = BTreeMap::new();
        let mut epoch_features = Vec::new();
        let order = permutation(data.n_items, &mut rng(mix(config.seed, &[epoch]), Stream::Shuffle));
        let read = |step| {
            let rows = &order[step * data.n_items / n_steps..(step + 1) * data.n_items / n_steps];
            let batch = data.read(rows, &|row| Some(mix(config.seed, &[epoch, row])))?;
            Ok((step, rows, batch))
        };
        read_ahead(0..n_steps, read, |(step, rows, batch)| {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted { epoch });
            }
            let x = header.input(&batch, false, &device)?;
            let labels = data.labels_of(rows, &device)?;
            let factor = |schedule: RateSchedule| schedule.factor(epoch * n_steps + step, total_steps);
            for &phase in config.schedule.phases(epoch, config.epochs) {
                // The terms of the loss: name, weight, value.
                let mut terms: Vec<(&'static str, f64, Tensor)> = Vec::new();
                let features = if phase == Phase::Codebooks {
                    state.network.forward(&x)?.features
                } else {
                    let heads = state.network.forward_train(&x, mix(config.seed, &[epoch, step]))?;
                    let margin = adaptive_margin(&heads.features, &labels, &embeddings, weights.margins)?;
                    terms.push(("margin", weights.margin, margin));
                    let classification = classification(&heads.logits, &labels, multi_label)?;
                    terms.push(("classification", weights.classification, classification));
                    heads.features
                };
                if phase != Phase::Features {
                    let codebook = codebook::expanded(&state.codebook)?;
                    let quantized = quantize(&features, &codebook, quantizer.assignment, quantizer.softness)?;
                    let tau = weights.quantization;
                    terms.push((
                        "soft_distortion",
                        tau * weights.soft,
                        soft_distortion(&features, &quantized)?,
                    ));
                    terms.push((
                        "hard_distortion",
                        tau * weights.hard,
                        hard_distortion(&features, &quantized)?,
                    ));
                    terms.push(("joint_center", tau * weights.joint_center, joint_center(&quantized)?));
                    epoch_features.extend(features.flatten_all()?.to_vec1::<f32>()?);
                }

                let mut total = Tensor::zeros((), features.dtype(), &device)?;
                for (loss, weight, value) in &terms {
                    let number = f64::from(value.to_scalar::<f32>()?);
                    losses.insert(*loss, number);
                    tally.add(loss, number);
                    // Not 0 times it: a variable without a gradient stays as it is, one whose gradient is 0 decays.
                    if *weight > 0.0 {
                        total = (total + (value * *weight)?)?;
                    }
                }
                if losses.values().any(|loss| !loss.is_finite()) {
                    return Err(diverged(&state, (epoch, step), &losses, &checkpoint));
                }
                let gradients = total.backward()?;
                if phase != Phase::Codebooks {
                    let factor = factor(config.network_optimizer.rate_schedule);
                    state.network_optimizer.step(&state.network.variables, &gradients, factor)?;
                }
                if phase != Phase::Features {
                    let factor = factor(config.codebook_optimizer.rate_schedule);
                    state.codebook_optimizer.step(&state.codebook, &gradients, factor)?;
                }
            }
            Ok(())
        })?;

        let images_per_second = data.n_items as f64 / start.elapsed().as_secs_f64();
        if state.first_not_finite()?.is_some() {
            return Err(diverged(&state, (epoch, n_steps - 1), &losses, &checkpoint));
        }
        state.epoch = epoch + 1;
        if state.codebook.is_empty() && state.epoch == config.epochs {
            // Two-step training: codebooks of the features as they are in the end.
            epoch_features = features(&header, &state, data)?;
            state.codebook = codebook::fit(config, &epoch_features, &device)?;
        }
        let factor = config.network_optimizer.rate_schedule.factor(state.epoch * n_steps - 1, total_steps);
        let mut report = EpochReport {
            epoch,
            losses: tally.means(),
            images_per_second,
            seconds: 0.0,
            rate: config.network_optimizer.rate * factor,
            relative_distortion: Vec::new(),
            usage: Vec::new(),
            revived: 0,
        };
        let mut codebooks = None;
        if !state.codebook.is_empty() {
            let codebooks = codebooks.insert(codebook::codebooks(config, &state.codebook)?);
            let codes = codebooks.encode(&epoch_features)?;
            report.add_codebooks(codebooks, &epoch_features, &codes)?;
            // No step follows the last epoch, and a codeword is the model's only once it has learnt.
            if quantizer.revive && state.epoch < config.epochs {
                let variables = &state.codebook;
                report.revived =
                    codebook::revive(config, epoch, variables, codebooks, &epoch_features, &codes)?;
            }
        }
        report.seconds = start.elapsed().as_secs_f64();
        // The report first: a run that ends between the two repeats the epoch rather than lose its line.
        let codebooks = codebooks.as_ref();
        let snapshot =
            Snapshot { header: &header, tensors: state.network.tensors(), codebooks, device: &device };
        on_epoch(&report, &snapshot).map_err(Error::Callback)?;
        state.save(&header, &fingerprint, &checkpoint)?;
    }

    let codebooks = codebook::codebooks(config, &state.codebook)?;
    let embeddings = Some(data.describe_embeddings());
    let weights = data.weights.map(|weights| weights.fingerprint().to_owned());
    let model = Model { tensors: state.network.tensors(), codebooks, header, embeddings, weights, device };
    model.save(&out.join(MODEL))?;
    Ok(model)
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// The file that a run ends with.
const MODEL: &str = "model.safetensors";

fn remove_if_there(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(dpq_file::Error::Io { action: "replace", path: path.to_owned(), source }.into())
        }
        _ => Ok(()),
    }
}

impl Inputs<'_> {
    /// `[C, H, W]`, or `[D, 1, 1]`.
    fn shape(&self) -> [usize; 3] {
        match *self {
            Self::Images { shape, .. } => shape,
            Self::Features { dim, .. } => [dim, 1, 1],
        }
    }
}

impl TrainSet<'_> {
    fn check(&self, config: &TrainConfig) -> Result<(), Error> {
        let expected = self.n_items * self.n_classes;
        if self.n_items < 2 || self.n_classes == 0 {
            let reason =
                format!("found {} items of {} classes, expected some of each", self.n_items, self.n_classes);
            return Err(Error::invalid("training set", reason));
        }
        if self.labels.len() != expected || self.labels.iter().any(|&label| label > 1) {
            let reason = format!("found {} values, expected {expected} that are 0 or 1", self.labels.len());
            return Err(Error::invalid("labels", reason));
        }
        let unlabelled = self.labels.chunks_exact(self.n_classes).position(|row| !row.contains(&1));
        if let Some(row) = unlabelled {
            return Err(Error::invalid("labels", format!("item {row} has none, expected at least one")));
        }
        if let Some(vectors) = self.embeddings {
            let (n, dim) = (self.n_classes, config.network.dim);
            if n.checked_mul(dim) != Some(vectors.len()) {
                let reason =
                    format!("found {} values, expected {n} classes × {dim} dimensions", vectors.len());
                return Err(Error::invalid("label embeddings", reason));
            }
            let bad = |v: &[f32]| v.iter().any(|v| !v.is_finite()) || v.iter().all(|&v| v == 0.0);
            if let Some(class) = vectors.chunks_exact(dim).position(bad) {
                let reason = format!("that of class {class} is 0 or not finite, expected a direction");
                return Err(Error::invalid("label embeddings", reason));
            }
        }
        let shape = self.inputs.shape();
        let takes_features = config.network.body == Body::Features;
        if takes_features != matches!(self.inputs, Inputs::Features { .. }) {
            let reason = "expected `features` for features that something else made, another for images";
            return Err(Error::invalid("network.body", reason));
        }
        if shape.contains(&0) {
            return Err(Error::invalid("input shape", format!("found {shape:?}, expected no 0")));
        }
        layers(&config.network.body, shape)?;
        if let Some(weights) = self.weights {
            let (body, [c, h, w]) = (weights.body_config(), weights.image_shape());
            if (&config.network.body, shape) != (body, [c, h, w]) {
                let reason = format!(
                    "found those of {body:?} for images of {c}x{h}x{w}, expected those of `network.body` for {shape:?}"
                );
                return Err(Error::invalid("weights", reason));
            }
        }
        let fits = config.quantizer.start == Start::ResidualKmeans;
        if fits && self.n_items < config.quantizer.codewords {
            let reason = format!(
                "found {}, expected at most the {} training items",
                config.quantizer.codewords, self.n_items
            );
            return Err(Error::invalid("quantizer.codewords", reason));
        }
        Ok(())
    }

    /// Names labels, embeddings and weights, so that no run goes on from the checkpoint of other ones.
    fn fingerprint(&self) -> String {
        let vectors = bytes(self.embeddings.unwrap_or_default());
        let crc = dpq_file::crc32c_append(dpq_file::crc32c(self.labels), &vectors);
        let weights = self.weights.map(|weights| format!(", weights {}", weights.fingerprint()));
        format!("{} items, {crc:08x}{}", self.n_items, weights.unwrap_or_default())
    }

    /// What the model's file says of the label embeddings.
    fn describe_embeddings(&self) -> String {
        match self.embeddings {
            Some(vectors) => format!("given, crc32c {:08x}", dpq_file::crc32c(&bytes(vectors))),
            None => "seeded".to_owned(),
        }
    }

    /// Reads the inputs of `rows`, in parallel.
    fn read(
        &self,
        rows: &[usize],
        seed: &(dyn Fn(usize) -> Option<u64> + Sync),
    ) -> Result<Batch<'static>, Error> {
        fn all<T: Copy + Default + Send>(
            rows: &[usize],
            len: usize,
            read: impl Fn(usize, &mut [T]) -> Result<(), BoxError> + Sync,
        ) -> Result<Cow<'static, [T]>, Error> {
            let mut values = vec![T::default(); rows.len() * len];
            values
                .par_chunks_exact_mut(len)
                .zip(rows)
                .try_for_each(|(out, &row)| read(row, out).map_err(|source| Error::Input { row, source }))?;
            Ok(Cow::Owned(values))
        }
        let len = self.inputs.shape().iter().product();
        Ok(match self.inputs {
            Inputs::Images { read, .. } => {
                Batch::Images(all(rows, len, |row, out| read(row, seed(row), out))?)
            }
            Inputs::Features { read, .. } => {
                Batch::Vectors(all(rows, len, |row, out| read(row, seed(row), out))?)
            }
        })
    }

    /// The labels of `rows`, f32 `[n, C]`.
    fn labels_of(&self, rows: &[usize], device: &Device) -> candle_core::Result<Tensor> {
        let c = self.n_classes;
        let labels: Vec<f32> =
            rows.iter().flat_map(|row| &self.labels[row * c..][..c]).map(|&label| f32::from(label)).collect();
        Tensor::from_vec(labels, (rows.len(), c), device)
    }

    /// Rows read at a time where all are read.
    fn pieces(&self) -> impl Iterator<Item = Vec<usize>> {
        let n = self.n_items;
        (0..n).step_by(512).map(move |begin| (begin..(begin + 512).min(n)).collect())
    }
}

/// The header of the model to be: the configuration, and the moments of each channel over the training inputs, or over
/// those that pretrained weights were trained on.
fn header(config: &TrainConfig, data: &TrainSet<'_>) -> Result<Header, Error> {
    let image_shape = data.inputs.shape();
    let [mean, deviation] = match data.weights {
        Some(Weights { header: Header { mean, deviation, .. }, .. }) => [mean.clone(), deviation.clone()],
        None => {
            let mut moments = Moments::new(image_shape);
            for rows in data.pieces() {
                moments.add(&data.read(&rows, &|_| None)?)?;
            }
            moments.finish()
        }
    };
    Ok(Header { train: config.clone(), image_shape, n_classes: data.n_classes, mean, deviation })
}

/// The features of all training items, not augmented, as the network is now.
fn features(header: &Header, state: &State, data: &TrainSet<'_>) -> Result<Vec<f32>, Error> {
    let tensors = state.network.tensors();
    let mut features = Vec::new();
    let read = |rows: Vec<usize>| data.read(&rows, &|_| None);
    read_ahead(data.pieces(), read, |batch| {
        features.extend(header.forward(&tensors, &batch, &state.device)?.features);
        Ok(())
    })?;
    Ok(features)
}
