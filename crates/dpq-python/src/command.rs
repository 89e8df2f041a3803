//! The `dpq` command, which pip installs beside the module, and its training.

use std::ffi::OsString;
use std::sync::mpsc::{SyncSender, sync_channel};

use dpq::BoxError;
use pyo3::prelude::*;

use crate::error::raise_dyn;
use crate::threads::interruptible_with;

/// Runs the `dpq` command with the words of a command line, its name first, and returns its exit
/// code. Wrong use and --help end the process.
#[pyfunction]
pub(crate) fn run_command(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    py.detach(|| dpq::run(arguments))
}

/// Trains as `dpq train` does with these options. Calls on_epoch in this thread with each epoch, a
/// line of epochs.jsonl.
#[pyfunction]
#[pyo3(signature = (arguments, on_epoch = None))]
pub(crate) fn run_training(
    py: Python<'_>,
    arguments: Vec<OsString>,
    on_epoch: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    // The training waits until on_epoch has returned, or until nobody receives its epochs.
    let (sender, epochs) = sync_channel::<(String, SyncSender<()>)>(1);
    let serve = move || {
        let Ok((line, reply)) = epochs.try_recv() else { return Ok(()) };
        on_epoch.map(|on_epoch| on_epoch.call1((line,))).transpose()?;
        // The training may have ended meanwhile.
        let _ = reply.send(());
        Ok(())
    };
    let mut report = move |line: &str| -> Result<(), BoxError> {
        let (reply, replied) = sync_channel(1);
        sender.send((line.to_owned(), reply))?;
        Ok(replied.recv()?)
    };
    interruptible_with(py, |stop| dpq::train(arguments, stop, &mut report), serve)?
        .map_err(|error| raise_dyn(error.as_ref()))
}
