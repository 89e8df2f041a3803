//! Training, top to bottom.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use crate::checkpoint::State;
use crate::codebook;
use crate::config::{RateSchedule, Start, TrainConfig};
use crate::diverged::{DUMP, diverged};
use crate::embeddings;
use crate::loss::{adaptive_margin, classification};
use crate::model::{Header, Model, Snapshot};
use crate::quantize::{hard_distortion, joint_center, quantize, soft_distortion};
use crate::report::{EpochReport, Tally};
use crate::rng::{Stream, mix, permutation, rng};
use crate::schedule::Phase;
use crate::{BoxError, Error, read_ahead};

/// Images and labels to learn from. The caller reads and augments images; this crate says which and with which seed.
pub struct TrainSet<'a> {
    /// Training images.
    pub n_items: usize,
    /// Their classes, multi-hot u8 `[n_items, n_classes]`.
    pub labels: &'a [u8],
    /// Classes.
    pub n_classes: usize,
    /// Vectors of the classes, f32 `[n_classes, D]` with the D of the feature; none for random, near-orthogonal ones.
    pub embeddings: Option<&'a [f32]>,
    /// The shape of an image, `[C, H, W]`.
    pub image_shape: [usize; 3],
    /// Writes an image, u8 `[C, H, W]`: row in 0..n_items, and the seed of its augmentation, none for none.
    pub image: &'a ReadImage<'a>,
}

/// Reads the image of a row, augmented as a seed decides if there is one.
pub type ReadImage<'a> = dyn Fn(usize, Option<u64>, &mut [u8]) -> Result<(), BoxError> + Sync + 'a;

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
            State::new(&header, &device)?
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
            let images = data.read(rows, &|row| Some(mix(config.seed, &[epoch, row])))?;
            Ok((step, rows, images))
        };
        read_ahead(0..n_steps, read, |(step, rows, images)| {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted { epoch });
            }
            let x = header.input(&images, false, &device)?;
            let labels = data.labels_of(rows, &device)?;
            let factor = |schedule: RateSchedule| schedule.factor(epoch * n_steps + step, total_steps);
            for &phase in config.schedule.phases(epoch, config.epochs) {
                // The terms of the loss: name, weight, value.
                let mut terms: Vec<(&'static str, f64, Tensor)> = Vec::new();
                let features = if phase == Phase::Codebooks {
                    crate::network::forward(&config.network, &state.network.tensors(), &x)?.features
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
    let model = Model { tensors: state.network.tensors(), codebooks, header, embeddings, device };
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

impl TrainSet<'_> {
    fn check(&self, config: &TrainConfig) -> Result<(), Error> {
        let expected = self.n_items * self.n_classes;
        if self.n_items < 2 || self.n_classes == 0 {
            let reason =
                format!("found {} images of {} classes, expected some of each", self.n_items, self.n_classes);
            return Err(Error::invalid("training set", reason));
        }
        if self.labels.len() != expected || self.labels.iter().any(|&label| label > 1) {
            let reason = format!("found {} values, expected {expected} that are 0 or 1", self.labels.len());
            return Err(Error::invalid("labels", reason));
        }
        let unlabelled = self.labels.chunks_exact(self.n_classes).position(|row| !row.contains(&1));
        if let Some(row) = unlabelled {
            return Err(Error::invalid("labels", format!("image {row} has none, expected at least one")));
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
        if self.image_shape.contains(&0)
            || self.image_shape[1..].iter().any(|side| side >> config.network.pools == 0)
        {
            let reason =
                format!("found {:?}, too small for {} poolings", self.image_shape, config.network.pools);
            return Err(Error::invalid("image shape", reason));
        }
        let fits = config.quantizer.start == Start::ResidualKmeans;
        if fits && self.n_items < config.quantizer.codewords {
            let reason = format!(
                "found {}, expected at most the {} training images",
                config.quantizer.codewords, self.n_items
            );
            return Err(Error::invalid("quantizer.codewords", reason));
        }
        Ok(())
    }

    /// Names labels and embeddings, so that no run goes on from the checkpoint of other ones.
    fn fingerprint(&self) -> String {
        let vectors = bytes(self.embeddings.unwrap_or_default());
        let crc = dpq_file::crc32c_append(dpq_file::crc32c(self.labels), &vectors);
        format!("{} images, {crc:08x}", self.n_items)
    }

    /// What the model's file says of the label embeddings.
    fn describe_embeddings(&self) -> String {
        match self.embeddings {
            Some(vectors) => format!("given, crc32c {:08x}", dpq_file::crc32c(&bytes(vectors))),
            None => "seeded".to_owned(),
        }
    }

    /// Reads the images of `rows`, in parallel.
    fn read(&self, rows: &[usize], seed: &(dyn Fn(usize) -> Option<u64> + Sync)) -> Result<Vec<u8>, Error> {
        let len = self.image_shape.iter().product();
        let mut images = vec![0; rows.len() * len];
        images.par_chunks_exact_mut(len).zip(rows).try_for_each(|(image, &row)| {
            (self.image)(row, seed(row), image).map_err(|source| Error::Image { row, source })
        })?;
        Ok(images)
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

/// The header of the model to be: the configuration, and the moments of each channel over the training images.
fn header(config: &TrainConfig, data: &TrainSet<'_>) -> Result<Header, Error> {
    let [channels, height, width] = data.image_shape;
    let mut sums = BTreeMap::new();
    for rows in data.pieces() {
        for (plane, pixels) in data.read(&rows, &|_| None)?.chunks_exact(height * width).enumerate() {
            let (sum, squares) = sums.entry(plane % channels).or_insert((0u64, 0u64));
            *sum += pixels.iter().map(|&pixel| u64::from(pixel)).sum::<u64>();
            *squares += pixels.iter().map(|&pixel| u64::from(pixel).pow(2)).sum::<u64>();
        }
    }
    let n = (data.n_items * height * width) as f64;
    let mean = |sum: u64| sum as f64 / n / 255.0;
    // A channel of one value is left as it is.
    let deviation = |&(sum, squares): &(u64, u64)| {
        let variance = squares as f64 / n / 255.0 / 255.0 - mean(sum).powi(2);
        if variance > 1e-12 { variance.sqrt() as f32 } else { 1.0 }
    };
    Ok(Header {
        train: config.clone(),
        image_shape: data.image_shape,
        n_classes: data.n_classes,
        mean: sums.values().map(|&(sum, _)| mean(sum) as f32).collect(),
        deviation: sums.values().map(deviation).collect(),
    })
}

/// The features of all training images, not augmented, as the network is now.
fn features(header: &Header, state: &State, data: &TrainSet<'_>) -> Result<Vec<f32>, Error> {
    let tensors = state.network.tensors();
    let mut features = Vec::new();
    let read = |rows: Vec<usize>| data.read(&rows, &|_| None);
    read_ahead(data.pieces(), read, |images| {
        features.extend(header.forward(&tensors, &images, &state.device)?.features);
        Ok(())
    })?;
    Ok(features)
}
