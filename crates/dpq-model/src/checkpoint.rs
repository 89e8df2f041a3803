//! The state of a run between two epochs.
//!
//! Everything random is a function of the seed and of where the run is, so there is no generator to keep.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Var};
use dpq_file::Container;

use crate::Error;
use crate::codebook::{self, Variables};
use crate::model::{Array, Header, arrays, write};
use crate::network::Network;
use crate::optim::Optimizer;

/// The state of a run.
pub(crate) struct State {
    /// Epochs that are done.
    pub(crate) epoch: usize,
    pub(crate) network: Network,
    /// Where all of it is.
    pub(crate) device: Device,
    /// The codebooks; empty before they start.
    pub(crate) codebook: Variables,
    pub(crate) network_optimizer: Optimizer,
    pub(crate) codebook_optimizer: Optimizer,
}

impl State {
    /// The state before the first epoch.
    pub(crate) fn new(header: &Header, device: &Device) -> Result<Self, Error> {
        let config = &header.train;
        let (shape, n_classes) = (header.image_shape, header.n_classes);
        Ok(Self {
            epoch: 0,
            network: Network::new(&config.network, shape, n_classes, config.seed, device)?,
            device: device.clone(),
            codebook: BTreeMap::new(),
            network_optimizer: Optimizer::new(config.network_optimizer),
            codebook_optimizer: Optimizer::new(config.codebook_optimizer),
        })
    }

    /// The first parameter, by name, with a value that is not finite, and that value.
    pub(crate) fn first_not_finite(&self) -> Result<Option<(String, f32)>, Error> {
        let codebook = self.codebook.iter().map(|(name, var)| (name.clone(), var.as_detached_tensor()));
        for (name, tensor) in self.network.tensors().into_iter().chain(codebook) {
            let values = tensor.flatten_all()?.to_vec1::<f32>()?;
            if let Some(&value) = values.iter().find(|value| !value.is_finite()) {
                return Ok(Some((name, value)));
            }
        }
        Ok(None)
    }

    /// Writes the state. `data` names the labels learnt from; the header does the rest.
    pub(crate) fn save(&self, header: &Header, data: &str, path: &Path) -> Result<(), Error> {
        let mut all = arrays(&self.network.tensors(), "network.")?;
        for (name, var) in &self.codebook {
            all.push((name.clone(), var.dims().to_vec(), var.as_detached_tensor().flatten_all()?.to_vec1()?));
        }
        all.extend(buffers("network_optimizer", &self.network_optimizer)?);
        all.extend(buffers("codebook_optimizer", &self.codebook_optimizer)?);
        let metadata = [
            ("format", "dpq-checkpoint".to_owned()),
            ("config", header.to_json()),
            ("data", data.to_owned()),
            ("epoch", self.epoch.to_string()),
            ("network_optimizer", self.network_optimizer.n_steps.to_string()),
            ("codebook_optimizer", self.codebook_optimizer.n_steps.to_string()),
        ];
        write(path, &metadata, &all)
    }

    /// Reads the state of a run of the same configuration on the same data.
    pub(crate) fn open(header: &Header, data: &str, path: &Path, device: &Device) -> Result<Self, Error> {
        let file = Container::open(path)?;
        file.verify()?;
        let content = |reason: &str| Error::Content { path: path.to_owned(), reason: reason.to_owned() };
        if file.metadata("format")? != "dpq-checkpoint" {
            return Err(content("the file is no checkpoint"));
        }
        if file.metadata("config")? != header.to_json() || file.metadata("data")? != data {
            return Err(content(
                "the checkpoint is of another configuration or data set, resume with those or train without --resume",
            ));
        }
        let number = |key: &str| -> Result<usize, Error> {
            file.metadata(key)?.parse().map_err(|_| content("the checkpoint's counters are no numbers"))
        };
        let mut state = Self::new(header, device)?;
        state.epoch = number("epoch")?;
        state.network.set(&header.read_tensors(&file, "network.", device)?)?;
        state.network_optimizer.n_steps = number("network_optimizer")?;
        state.codebook_optimizer.n_steps = number("codebook_optimizer")?;
        let shapes = codebook::shapes(&header.train);
        for name in file.names() {
            if let Some(shape) = shapes.get(name) {
                let values = file.floats(name, shape)?;
                state.codebook.insert(name.to_owned(), Var::from_vec(values, &shape[..], device)?);
            } else if let Some((optimizer, which, variable)) = state.buffer_of(name) {
                optimizer.buffers.entry(variable).or_default()[which] =
                    file.floats(name, file.section(name)?.shape)?;
            }
        }
        let started = header.train.schedule.first_codebook_epoch(header.train.epochs);
        let needs_codebook =
            started.is_some_and(|first| state.epoch > first) || state.epoch == header.train.epochs;
        if state.epoch > header.train.epochs
            || state.codebook.len() != if needs_codebook { shapes.len() } else { 0 }
            || !state.buffers_fit()
        {
            return Err(content("the checkpoint does not hold what its epoch needs, train without --resume"));
        }
        Ok(state)
    }

    /// Whether each buffer belongs to a variable and is as long.
    fn buffers_fit(&self) -> bool {
        let fit = |optimizer: &Optimizer, variables: &BTreeMap<String, Var>| {
            optimizer.buffers.iter().all(|(name, buffers)| {
                variables
                    .get(name)
                    .is_some_and(|var| buffers.iter().all(|buffer| buffer.len() == var.elem_count()))
            })
        };
        fit(&self.network_optimizer, &self.network.variables) && fit(&self.codebook_optimizer, &self.codebook)
    }

    /// The optimiser, buffer and variable that a section of [`buffers`] belongs to.
    fn buffer_of(&mut self, section: &str) -> Option<(&mut Optimizer, usize, String)> {
        let (optimizer, rest) = section.split_once('.')?;
        let (which, variable) = rest.split_once('.')?;
        let optimizer = match optimizer {
            "network_optimizer" => &mut self.network_optimizer,
            "codebook_optimizer" => &mut self.codebook_optimizer,
            _ => return None,
        };
        let which = ["first", "second"].iter().position(|name| *name == which)?;
        Some((optimizer, which, variable.to_owned()))
    }
}

/// An optimiser's buffers: `<prefix>.first.<variable>` and `<prefix>.second.<variable>`.
fn buffers(prefix: &str, optimizer: &Optimizer) -> Result<Vec<Array>, Error> {
    let all = optimizer.all_buffers()?;
    let buffers = all.iter().flat_map(|(variable, [first, second])| {
        [("first", first), ("second", second)].map(|(which, values)| {
            (format!("{prefix}.{which}.{variable}"), vec![values.len()], values.clone())
        })
    });
    Ok(buffers.collect())
}
