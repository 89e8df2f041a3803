//! Converts the errors of the crates to Python exceptions.

use std::error::Error;
use std::io;

use pyo3::PyErr;
use pyo3::exceptions::{PyBlockingIOError, PyKeyError, PyOSError, PyValueError};

/// Returns an OSError if the system refused something, with the system's error number, and a
/// ValueError otherwise.
pub(crate) fn raise(error: impl Error + 'static) -> PyErr {
    raise_dyn(&error)
}

/// Does the same for an error of any type.
pub(crate) fn raise_dyn(error: &(dyn Error + 'static)) -> PyErr {
    let chain = || std::iter::successors(Some(error), |&error| error.source());
    let sentence = chain().map(ToString::to_string).collect::<Vec<_>>().join(": ");
    match chain().find_map(|error| error.downcast_ref::<io::Error>()) {
        Some(io) => match io.raw_os_error() {
            Some(number) => PyOSError::new_err((number, sentence)),
            None => PyOSError::new_err(sentence),
        },
        None => PyValueError::new_err(sentence),
    }
}

/// Does the same for a live index: an unknown id is a KeyError, and the lock of another writer a
/// BlockingIOError.
pub(crate) fn raise_live(error: dpq_live::Error) -> PyErr {
    match error {
        dpq_live::Error::UnknownId { .. } => PyKeyError::new_err(error.to_string()),
        dpq_live::Error::Locked { .. } => PyBlockingIOError::new_err(error.to_string()),
        error => raise(error),
    }
}
