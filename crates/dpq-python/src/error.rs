//! Converts the errors of the crates to Python exceptions.

use std::error::Error;
use std::io;

use pyo3::PyErr;
use pyo3::exceptions::{PyOSError, PyValueError};

/// Returns an OSError if the system refused something, with the system's error number, and a
/// ValueError otherwise.
pub(crate) fn raise(error: impl Error + 'static) -> PyErr {
    let chain = || std::iter::successors(Some(&error as &(dyn Error + 'static)), |&error| error.source());
    let sentence = chain().map(ToString::to_string).collect::<Vec<_>>().join(": ");
    match chain().find_map(|error| error.downcast_ref::<io::Error>()) {
        Some(io) => match io.raw_os_error() {
            Some(number) => PyOSError::new_err((number, sentence)),
            None => PyOSError::new_err(sentence),
        },
        None => PyValueError::new_err(sentence),
    }
}
