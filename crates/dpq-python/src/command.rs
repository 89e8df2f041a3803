//! The `dpq` command, which pip installs beside the module, and its training.

use std::ffi::OsString;

use dpq::BoxError;
use pyo3::prelude::*;

use crate::error::raise_dyn;
use crate::threads::interruptible;

/// Runs the `dpq` command with the words of a command line, its name first, and returns its exit
/// code. Wrong use and --help end the process.
#[pyfunction]
pub(crate) fn run_command(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    py.detach(|| dpq::run(arguments))
}

/// Trains as `dpq train` does with these options. Calls on_epoch with each epoch, a line of
/// epochs.jsonl.
#[pyfunction]
#[pyo3(signature = (arguments, on_epoch = None))]
pub(crate) fn run_training(
    py: Python<'_>,
    arguments: Vec<OsString>,
    on_epoch: Option<Py<PyAny>>,
) -> PyResult<()> {
    let mut report = |line: &str| -> Result<(), BoxError> {
        let Some(on_epoch) = &on_epoch else { return Ok(()) };
        Ok(Python::attach(|py| on_epoch.call1(py, (line,)).map(drop))?)
    };
    interruptible(py, |stop| dpq::train(arguments, stop, &mut report))?
        .map_err(|error| raise_dyn(error.as_ref()))
}
