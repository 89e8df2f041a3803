//! Training: a run, its epochs and its steps.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use candle_core::Tensor;
use dpq_codebook::{Codebooks, LevelUsage};

use crate::ahead::read_ahead;
use crate::checkpoint::State;
use crate::codebook;
use crate::config::{self, Start, TrainConfig};
use crate::diverged::{DUMP, diverged};
use crate::embeddings;
use crate::header::Header;
use crate::inference::Folded;
use crate::inputs::Moments;
use crate::model::{Model, Snapshot};
use crate::objective::{Dpq, Mecoq, Mopq, Objective};
use crate::report::{CodewordUsage, EpochReport, Tally};
use crate::rng::{Stream, mix, permutation, rng};
use crate::tensors::Variables;
use crate::train_set::{Inputs, TrainSet};
use crate::{BoxError, Device, Error};

mod step;

/// A function that [`train`] calls after each epoch, with the report and the network of that
/// moment.
pub type OnEpoch<'a> = dyn FnMut(&EpochReport, &Snapshot<'_>) -> Result<(), BoxError> + 'a;

/// How [`train`] runs. These options do not change the model.
#[derive(Default)]
pub struct TrainOptions<'a> {
    /// Where the network runs.
    pub device: Device,
    /// Resumes from the checkpoint in the folder. Without a checkpoint training starts afresh,
    /// unless the folder has a model.
    pub resume: bool,
    /// Ends the run soon after it is set.
    pub stop: Option<&'a AtomicBool>,
    /// Called after each epoch.
    pub on_epoch: Option<&'a mut OnEpoch<'a>>,
}

impl fmt::Debug for TrainOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, resume, stop, .. } = self;
        let mut out = f.debug_struct("TrainOptions");
        out.field("device", device).field("resume", resume).field("stop", stop).finish_non_exhaustive()
    }
}

/// Trains a network and its codebooks, and writes `model.safetensors` to the folder `out`.
///
/// After each epoch it calls `on_epoch`, then writes a checkpoint to `out`. A run can resume from
/// its checkpoint on any device. On the CPU it then ends with the same bytes as an uninterrupted
/// run.
///
/// # Errors
/// [`Error::Config`] and the errors of a training set or a device if one of them cannot be used,
/// [`Error::Exists`] if the folder has a model or a checkpoint and `resume` is not set or finds no
/// checkpoint, [`Error::Diverged`] if a loss or a parameter is not finite,
/// [`Error::Interrupted`] if `stop` was set, [`Error::Input`], [`Error::Callback`] and
/// [`Error::File`] if the caller's code or a file fails.
pub fn train(
    config: &TrainConfig,
    data: &TrainSet<'_>,
    out: impl AsRef<Path>,
    mut options: TrainOptions<'_>,
) -> Result<Model, Error> {
    let out = out.as_ref();
    let mut run = Run::new(config, data, out, &options)?;
    while run.state.epoch < config.epochs {
        let epoch = run.epoch()?;
        let (report, codebooks) = run.report(epoch)?;
        // The report first: a run that ends between the two repeats the epoch rather than lose its
        // report.
        if let Some(on_epoch) = &mut options.on_epoch {
            let (tensors, codebooks) = (run.state.network.tensors(), codebooks.as_ref());
            let (header, device, folded) = (&run.header, &run.state.device, Folded::default());
            let snapshot = Snapshot { header, tensors, folded, codebooks, device };
            on_epoch(&report, &snapshot).map_err(Error::Callback)?;
        }
        run.save()?;
    }
    let model = run.model()?;
    model.save(out.join(MODEL))?;
    Ok(model)
}

/// The result of a run.
const MODEL: &str = "model.safetensors";

/// A run between two epochs.
struct Run<'a> {
    config: &'a TrainConfig,
    data: &'a TrainSet<'a>,
    objective: Box<dyn Objective>,
    header: Header,
    state: State,
    checkpoint: PathBuf,
    /// Fingerprint of the labels and weights.
    fingerprint: String,
    stop: Option<&'a AtomicBool>,
    /// Steps per epoch.
    n_steps: usize,
    sorted_pairs: Vec<[u32; 2]>,
    /// The codes of all keys, u8 `[n_keys, L]`, if the objective needs them in this epoch.
    codes: Option<Vec<u8>>,
}

/// The steps of an epoch so far.
struct Epoch {
    number: usize,
    /// The header with the shape of the images of the epoch.
    header: Header,
    start: Instant,
    images_per_second: f64,
    losses: Tally,
    /// The features of steps that train codebooks.
    features: Vec<f32>,
}

impl<'a> Run<'a> {
    /// Checks configuration and data, and reads the checkpoint or starts afresh.
    fn new<'o: 'a>(
        config: &'a TrainConfig,
        data: &'a TrainSet<'a>,
        out: &Path,
        options: &TrainOptions<'o>,
    ) -> Result<Self, Error> {
        let checkpoint = out.join("checkpoint.safetensors");
        let resumes = options.resume && checkpoint.exists();
        // A run takes hours, so none is replaced. Nobody must take an earlier model for this one.
        let earlier = [out.join(MODEL), checkpoint.clone()].into_iter().find(|path| path.exists());
        if let Some(path) = earlier.filter(|_| !resumes) {
            return Err(Error::Exists(path));
        }
        config.check()?;
        data.check(config)?;
        let (device, stop) = (options.device.open()?, options.stop);
        let embeddings = match data.embeddings {
            Some(embeddings) => embeddings.to_vec(),
            None => embeddings::label_embeddings(data.n_classes, config.network.dim, config.seed),
        };
        let embeddings = Tensor::from_vec(embeddings, (data.n_classes, config.network.dim), &device)?;
        let (loss, quantizer, multi_label) = (config.loss, config.quantizer, data.multi_label);
        let mut objective: Box<dyn Objective> = match config.objective {
            config::Objective::Dpq => {
                Box::new(Dpq { loss, quantizer, multi_label, embeddings: embeddings.clone() })
            }
            config::Objective::Mopq(config) => Box::new(Mopq { config }),
            config::Objective::Mecoq(config) => Box::new(Mecoq::new(config, quantizer)),
        };
        if objective.needs().labels {
            data.check_labels()?;
        }

        let header = header(config, data, stop)?;
        let fingerprint = data.fingerprint(objective.needs().labels, &|| check_stop(stop, 0))?;
        let state = if resumes {
            State::open(&header, &fingerprint, &checkpoint, objective.as_mut(), &device)?
        } else {
            let mut state = State::new(&header, &device)?;
            state.network.embed_classes(&embeddings)?;
            if let Some(weights) = data.weights {
                state.network.start_from(weights.tensors_on(&device)?)?;
            }
            state
        };
        remove_if_exists(&out.join(DUMP))?;
        let n_steps = data.n_items.div_ceil(config.batch_size);
        Ok(Self {
            config,
            data,
            objective,
            header,
            state,
            checkpoint,
            fingerprint,
            stop,
            n_steps,
            sorted_pairs: data.sorted_pairs(),
            codes: None,
        })
    }

    /// Writes the checkpoint.
    fn save(&self) -> Result<(), Error> {
        self.state.save(&self.header, &self.fingerprint, &self.checkpoint, self.objective.memory())
    }

    /// Takes the steps of an epoch.
    fn epoch(&mut self) -> Result<Epoch, Error> {
        let (config, data, n_steps, number) = (self.config, self.data, self.n_steps, self.state.epoch);
        let start = Instant::now();
        self.objective.begin(number as f64 / config.epochs as f64);
        if config.schedule.trains_codebooks(number, config.epochs) && self.state.codebook.is_empty() {
            self.state.codebook = match config.quantizer.start {
                Start::Random => codebook::random(config, &self.state.device)?,
                Start::ResidualKmeans => self.fit(number, &self.features(number)?)?,
            };
        }
        let trains_codebooks = config.schedule.trains_codebooks(number, config.epochs);
        if trains_codebooks && self.objective.needs().codes && self.codes.is_none() {
            let codebooks = codebook::codebooks(config, &self.state.codebook)?;
            let features = self.features(number)?;
            self.codes = Some(codebook::encode(&config.quantizer, &codebooks, &features)?);
        }
        let (losses, features) = (Tally::default(), Vec::new());
        let shape = config.shape_in(number, self.header.image_shape);
        let header = Header { image_shape: shape, ..self.header.clone() };
        let mut epoch = Epoch { number, header, start, images_per_second: 0.0, losses, features };
        let order = permutation(data.n_items, &mut rng(mix(config.seed, &[number]), Stream::Shuffle));
        let views = self.objective.needs().views;
        let read = |step: usize| -> Result<_, Error> {
            let rows = &order[step * data.n_items / n_steps..(step + 1) * data.n_items / n_steps];
            let view = |view| data.read_view(view, rows, shape, &|row| mix(config.seed, &[number, row]));
            Ok((step, rows, (0..views).map(view).collect::<Result<Vec<_>, _>>()?))
        };
        read_ahead(0..n_steps, read, |(step, rows, views)| {
            check_stop(self.stop, number)?;
            self.step(&mut epoch, step, rows, &views)
        })?;
        epoch.images_per_second = data.n_items as f64 / start.elapsed().as_secs_f64();
        if self.state.first_not_finite()?.is_some() {
            return Err(diverged(&self.state, (number, n_steps - 1), &epoch.losses, &self.checkpoint));
        }
        Ok(epoch)
    }

    /// Completes an epoch: fits codebooks if two-step training ends with it, reports on codebooks,
    /// and moves dead codewords.
    fn report(&mut self, mut epoch: Epoch) -> Result<(EpochReport, Option<Codebooks>), Error> {
        let (config, n_steps) = (self.config, self.n_steps);
        self.state.epoch += 1;
        let is_last = self.state.epoch == config.epochs;
        if self.state.codebook.is_empty() && is_last {
            epoch.features = self.features(epoch.number)?;
            self.state.codebook = self.fit(epoch.number, &epoch.features)?;
        }
        let schedule = config.network_optimizer.rate_schedule;
        let factor = schedule.factor(self.state.epoch * n_steps - 1, n_steps * config.epochs);
        let (mut relative_distortion, mut usage, mut revived) = (Vec::new(), Vec::new(), 0);
        let mut codebooks = None;
        if !self.state.codebook.is_empty() {
            if self.objective.needs().codes {
                epoch.features = self.features(epoch.number)?;
            }
            let (variables, features) = (&self.state.codebook, &epoch.features);
            let codebooks = codebooks.insert(codebook::codebooks(config, variables)?);
            let codes = codebook::encode(&config.quantizer, codebooks, features)?;
            relative_distortion = codebooks.relative_distortion(features, &codes)?;
            let k = codebooks.n_codewords();
            let levels = dpq_codebook::usage(&codes, codebooks.n_levels(), k)?.into_iter();
            let of = |LevelUsage { used, perplexity, .. }| CodewordUsage { used, perplexity, dead: k - used };
            usage = levels.map(of).collect();
            // No step follows the last epoch, and a moved codeword has to learn.
            if config.quantizer.revive && !is_last {
                revived = codebook::revive(config, epoch.number, variables, codebooks, features, &codes)?;
            }
            // Moved codewords need other codes.
            self.codes = (self.objective.needs().codes && revived == 0).then_some(codes);
        }
        let report = EpochReport {
            epoch: epoch.number,
            losses: epoch.losses.means(),
            images_per_second: epoch.images_per_second,
            seconds: epoch.start.elapsed().as_secs_f64(),
            rate: config.network_optimizer.rate * factor,
            relative_distortion,
            usage,
            revived,
        };
        Ok((report, codebooks))
    }

    /// Fits codebooks to features in an epoch.
    fn fit(&self, epoch: usize, features: &[f32]) -> Result<Variables, Error> {
        let fitted = codebook::fit(self.config, features, &self.state.device, self.stop);
        // k-means reports an interruption as an error of its own.
        fitted.or_else(|error| check_stop(self.stop, epoch).and(Err(error)))
    }

    /// Returns the features of all training items without augmentation, f32 `[n_items, D]`.
    fn features(&self, epoch: usize) -> Result<Vec<f32>, Error> {
        let (tensors, folded) = (self.state.network.tensors(), Folded::default());
        let mut features = Vec::new();
        let read = |rows: Vec<usize>| self.data.read(&rows, self.header.image_shape, &|_| None);
        read_ahead(self.data.pieces(), read, |batch| {
            check_stop(self.stop, epoch)?;
            let output = self.header.forward((&tensors, &folded), &batch, &self.state.device)?;
            features.extend(output.features);
            Ok(())
        })?;
        Ok(features)
    }

    fn model(self) -> Result<Model, Error> {
        let state = self.state;
        // Without a classifier no labels were embedded.
        let embeddings = (self.header.n_classes > 0).then(|| self.data.describe_embeddings());
        Ok(Model {
            tensors: state.network.tensors(),
            folded: Folded::default(),
            codebooks: codebook::codebooks(self.config, &state.codebook)?,
            header: self.header,
            embeddings,
            weights: self.data.weights.map(|weights| weights.fingerprint().to_owned()),
            device: state.device,
        })
    }
}

fn check_stop(stop: Option<&AtomicBool>, epoch: usize) -> Result<(), Error> {
    let is_set = stop.is_some_and(|stop| stop.load(Ordering::Relaxed));
    if is_set { Err(Error::Interrupted { epoch }) } else { Ok(()) }
}

fn remove_if_exists(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(dpq_file::Error::Io { action: "replace", path: path.to_owned(), source }.into())
        }
        _ => Ok(()),
    }
}

/// Returns the header of the model, with the moments of the training inputs, or of the inputs of
/// the pretrained weights.
fn header(config: &TrainConfig, data: &TrainSet<'_>, stop: Option<&AtomicBool>) -> Result<Header, Error> {
    let image_shape = data.inputs.shape();
    let [mean, deviation] = match (data.weights, &data.inputs) {
        (Some(weights), _) => weights.moments(),
        // Maps start as the identity, so the inputs stay as they are.
        (None, &Inputs::Pairs { dim, .. }) => [vec![0.0; dim], vec![1.0; dim]],
        (None, _) => {
            let mut moments = Moments::new(image_shape);
            for rows in data.pieces() {
                check_stop(stop, 0)?;
                moments.add(&data.read(&rows, image_shape, &|_| None)?)?;
            }
            moments.finish()
        }
    };
    let n_classes = if config.network.feature.has_classifier() { data.n_classes } else { 0 };
    Ok(Header { train: config.clone(), image_shape, n_classes, mean, deviation })
}
