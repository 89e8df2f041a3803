//! The `dpq` command, which pip installs beside the module.

use std::ffi::OsString;

use pyo3::prelude::*;

/// Runs the `dpq` command with the words of a command line, its name first, and returns its exit
/// code. Wrong use and --help end the process.
#[pyfunction]
pub(crate) fn run_command(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    py.detach(|| dpq::run(arguments))
}
