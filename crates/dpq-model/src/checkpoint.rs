//! The state of a run between two epochs, and its file.
//!
//! Random choices depend only on the seed and the position in the run, so there is no generator to
//! save.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor, Var};
use dpq_file::Container;

use crate::codebook;
use crate::header::Header;
use crate::network::Network;
use crate::objective::Objective;
use crate::ops::update::Buffers;
use crate::optim::Optimizer;
use crate::tensors::{self, Array, Variables, arrays};
use crate::{Error, TrainConfig};

const FORMAT: &str = "dpq-checkpoint";

/// The section of the memory of an objective.
const MEMORY: &str = "memory";

/// The state of a run.
pub(crate) struct State {
    /// Number of completed epochs.
    pub(crate) epoch: usize,
    pub(crate) network: Network,
    /// The device of all tensors.
    pub(crate) device: Device,
    /// The codebooks. Empty before they start.
    pub(crate) codebook: Variables,
    pub(crate) network_optimizer: Optimizer,
    pub(crate) codebook_optimizer: Optimizer,
}

impl State {
    /// Returns the state before the first epoch.
    pub(crate) fn new(header: &Header, device: &Device) -> Result<Self, Error> {
        let config = &header.train;
        let (shape, n_classes) = (header.image_shape, header.n_classes);
        Ok(Self {
            epoch: 0,
            network: Network::new(config, shape, n_classes, device)?,
            device: device.clone(),
            codebook: Variables::new(),
            network_optimizer: Optimizer::new(config.network_optimizer),
            codebook_optimizer: Optimizer::new(config.codebook_optimizer),
        })
    }

    /// Returns the first parameter, by name, that is not finite, with its value.
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

    /// Writes the state and the memory of the objective. `data` identifies the labels, the header
    /// all else.
    pub(crate) fn save(
        &self,
        header: &Header,
        data: &str,
        path: &Path,
        memory: Option<&Tensor>,
    ) -> Result<(), Error> {
        let mut all = arrays(&self.network.tensors(), "network.")?;
        all.extend(arrays(self.codebook.iter().map(|(name, var)| (name, &**var)), "")?);
        let name = MEMORY.to_owned();
        all.extend(arrays(memory.map(|memory| (&name, memory)), "")?);
        all.extend(buffers("network_optimizer", &self.network_optimizer)?);
        all.extend(buffers("codebook_optimizer", &self.codebook_optimizer)?);
        let metadata = [
            ("format", FORMAT.to_owned()),
            ("config", header.to_json()),
            ("data", data.to_owned()),
            ("epoch", self.epoch.to_string()),
            ("network_optimizer", self.network_optimizer.n_steps.to_string()),
            ("codebook_optimizer", self.codebook_optimizer.n_steps.to_string()),
        ];
        tensors::write(path, &metadata, &all)
    }

    /// Reads the state of a run of the same configuration on the same data, and gives the objective
    /// its memory.
    pub(crate) fn open(
        header: &Header,
        data: &str,
        path: &Path,
        objective: &mut dyn Objective,
        device: &Device,
    ) -> Result<Self, Error> {
        let file = Container::open(path)?;
        file.verify()?;
        let content = |what: &str| Error::content(path, what);
        let format = file.metadata("format")?;
        if format != FORMAT {
            return Err(content(&format!("the file holds a `{format}`, expected a checkpoint of this run")));
        }
        if file.metadata("config")? != header.to_json() || file.metadata("data")? != data {
            let other = "the checkpoint is of another configuration or data set";
            return Err(content(&format!("{other}, resume with those or train into another folder")));
        }
        let number = |key: &str| -> Result<usize, Error> {
            file.metadata(key)?.parse().map_err(|_| content("the counters of the checkpoint are not numbers"))
        };
        let mut state = Self::new(header, device)?;
        state.epoch = number("epoch")?;
        state.network.set(&header.read_tensors(&file, "network.", device)?)?;
        state.network_optimizer.n_steps = number("network_optimizer")?;
        state.codebook_optimizer.n_steps = number("codebook_optimizer")?;
        let shapes = codebook::shapes(&header.train);
        for (&name, shape) in shapes.iter().filter(|(name, _)| file.section(name).is_ok()) {
            let values = file.floats(name, shape)?;
            state.codebook.insert(name.to_owned(), Var::from_vec(values, &shape[..], device)?);
        }
        let network = state.network.body.iter().chain(&state.network.heads);
        state.network_optimizer.buffers = read_buffers(&file, "network_optimizer", network);
        state.codebook_optimizer.buffers = read_buffers(&file, "codebook_optimizer", &state.codebook);
        let found = file.section(MEMORY).ok().map(|section| section.shape.to_vec());
        if let (Some(&[n, ..]), Some([capacity, levels, codewords])) =
            (found.as_deref(), objective.memory_shape())
        {
            let shape = [n.min(capacity), levels, codewords];
            objective.set_memory(Tensor::from_vec(file.floats(MEMORY, &shape)?, &shape[..], device)?);
        }
        let TrainConfig { schedule, epochs, .. } = header.train;
        let last = state.epoch.checked_sub(1);
        let needs_codebook =
            last.is_some_and(|last| schedule.trains_codebooks(last, epochs)) || state.epoch == epochs;
        let n_buffers = state.network_optimizer.buffers.len() + state.codebook_optimizer.buffers.len();
        let n_sections = state.network.tensors().len() + state.codebook.len() + 2 * n_buffers;
        let n_sections = n_sections + usize::from(objective.memory().is_some());
        if state.epoch > epochs
            || state.codebook.len() != if needs_codebook { shapes.len() } else { 0 }
            || file.names().count() != n_sections
        {
            return Err(content(
                "the checkpoint does not hold what its epoch needs, train into another folder",
            ));
        }
        Ok(state)
    }
}

/// Returns the buffers of an optimiser: `<prefix>.first.<variable>` and
/// `<prefix>.second.<variable>`.
fn buffers(prefix: &str, optimizer: &Optimizer) -> Result<Vec<Array>, Error> {
    let mut all = Vec::new();
    for (variable, buffers) in &optimizer.buffers {
        for (which, values) in ["first", "second"].into_iter().zip(buffers.to_vecs()?) {
            all.push((format!("{prefix}.{which}.{variable}"), vec![values.len()], values));
        }
    }
    Ok(all)
}

/// Reads the [`buffers`] of an optimiser, without those of another length than their variable.
fn read_buffers<'a>(
    file: &Container,
    prefix: &str,
    variables: impl IntoIterator<Item = (&'a String, &'a Var)>,
) -> BTreeMap<String, Buffers> {
    let read = |(variable, var): (&String, &Var)| {
        let section = |which| file.floats(&format!("{prefix}.{which}.{variable}"), &[var.elem_count()]).ok();
        Some((variable.clone(), Buffers::new([section("first")?, section("second")?])))
    };
    variables.into_iter().filter_map(read).collect()
}
