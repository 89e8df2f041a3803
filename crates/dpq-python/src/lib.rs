//! The Python module `dpq`: the crates of this workspace on NumPy arrays.
//!
//! A thin layer: arrays come in and go out here, everything else is done and checked by the crates themselves, whose
//! sentences become Python's errors. `dpq.pyi` says what the module offers; `cargo xtask python` builds and tests it.
//!
//! - `array`: arrays in, with the one error that says what they should have been
//! - `error`: errors out
//! - `threads`: the threads of a call, and Ctrl-C
//! - `codebooks`, `index`, `model`, `precision`: a class or a function each

mod array;
mod codebooks;
mod error;
mod index;
mod model;
mod precision;
mod threads;

/// Exact search over nested codes at any code length.
///
/// Arrays are taken as they are, without a copy: C-contiguous, of the type that a function names. An array of another
/// type, order or number of dimensions is a ValueError that says how to convert it. While a call works it holds no
/// lock of Python's, so other threads run; they must not write into its arrays.
///
/// Everything that is wrong with arguments or with what a file holds is a ValueError, what the system refuses an
/// OSError; an argument of another type is a TypeError, a negative count an OverflowError. Ctrl-C ends a call between
/// two pieces of work, except `Codebooks.train`, `Index.from_codes` and `Index.verify`, which finish first.
///
/// Worker threads do not survive os.fork(): with multiprocessing, use the start method "spawn".
#[pyo3::pymodule(name = "dpq")]
mod module {
    #[pymodule_export]
    use crate::codebooks::Codebooks;
    #[pymodule_export]
    use crate::index::Index;
    #[pymodule_export]
    use crate::model::Model;
    #[pymodule_export]
    use crate::precision::mean_average_precision;
}
