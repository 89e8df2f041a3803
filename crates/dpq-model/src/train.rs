//! Training, top to bottom.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use candle_core::Tensor;

use crate::checkpoint::State;
use crate::codebook;
use crate::config::{RateSchedule, Start, TrainConfig};
use crate::diverged::{DUMP, diverged};
use crate::embeddings;
use crate::inputs::Moments;
use crate::loss::{adaptive_margin, classification};
use crate::model::{Header, Model, Snapshot};
use crate::ops;
use crate::quantize::{hard_distortion, joint_center, quantize, soft_distortion};
use crate::report::{EpochReport, Tally};
use crate::rng::{Stream, mix, permutation, rng};
use crate::schedule::Phase;
use crate::train_set::TrainSet;
use crate::{BoxError, Error, Weights, read_ahead};

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
                    let classification = classification(&heads.logits, &labels, data.multi_label)?;
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
                let gradients = ops::backward(&total)?;
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
