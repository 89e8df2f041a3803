//! The Python module `dpq`: the crates of this workspace on NumPy arrays.
//!
//! A thin layer that converts arrays and errors; the crates do and check everything else. `dpq.pyi`
//! gives the types, and `cargo xtask python` builds and tests the module.
//!
//! - `array`: borrows arrays
//! - `error`: converts errors
//! - `threads`: thread pools, and Ctrl-C
//! - `opened`: index files and live indexes
//! - `codebooks`, `index`, `model`, `precision`: the classes and the function

mod array;
mod codebooks;
mod error;
mod index;
mod model;
mod opened;
mod precision;
mod threads;

/// Exact search over nested codes at any code length.
///
/// Arrays are used without a copy: C-contiguous, of the type that a function names. An array of
/// another type, order or number of dimensions is a ValueError that says how to convert it. Other
/// Python threads run during a call; they must not write to its arrays.
///
/// Invalid arguments and file contents are a ValueError. A file that the system refuses is an
/// OSError, an argument of another type a TypeError, a negative count an OverflowError. Ctrl-C ends
/// a long call, except `Index.from_codes` and `Index.verify`.
///
/// Worker threads do not survive os.fork(): use the start method "spawn" of multiprocessing.
#[pyo3::pymodule(name = "dpq")]
mod module {
    #[pymodule_export]
    use crate::codebooks::Codebooks;
    #[pymodule_export]
    use crate::index::{Filter, Index};
    #[pymodule_export]
    use crate::model::Model;
    #[pymodule_export]
    use crate::precision::mean_average_precision;
}
