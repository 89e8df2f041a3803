//! The Python module `pydpq`: the crates of this workspace on NumPy arrays.
//!
//! A thin layer that converts arrays and errors; the crates do and check everything else. It is
//! `_pydpq` of the package in `python/pydpq`, which has the types. `cargo xtask python` builds and
//! tests the package.
//!
//! - `array`: reads arrays
//! - `error`: converts errors
//! - `threads`: thread pools, and Ctrl-C
//! - `opened`: index files and live indexes
//! - `command`: the `dpq` command, and its training
//! - `codebooks`, `index`, `live`, `model`, `precision`: the classes and the function

mod array;
mod codebooks;
mod command;
mod error;
mod index;
mod live;
mod model;
mod opened;
mod precision;
mod threads;

/// Exact search over nested codes at any code length.
///
/// Arrays are used without a copy if they are C-contiguous and of the type that a function names.
/// NumPy converts others, lists and data frames, as long as their meaning does not change: numbers
/// to float32, whole numbers to integers. Floats are not cut off to integers. One row alone, [D],
/// gives a result without the dimension of rows. Other Python threads run during a call; they must
/// not write to its arrays.
///
/// Invalid arguments and file contents are a ValueError. A file that the system refuses is an
/// OSError, an argument of another type a TypeError, a negative count an OverflowError.
/// `LiveIndex.delete` of an unknown id is a KeyError, and `LiveIndex.open` beside another writer a
/// BlockingIOError. Ctrl-C ends a long call, except `Index.from_codes`, `Index.verify` and the
/// changes of `LiveIndex`.
///
/// The import sets the environment variable `CANDLE_NUM_THREADS` to 1, unless it is set: candle,
/// which runs networks, would start threads of its own that wait by spinning.
///
/// Worker threads do not survive os.fork(): use the start method "spawn" of multiprocessing.
/// Indexes, codebooks and models can be pickled for it; a LiveIndex cannot, since it holds a lock.
#[pyo3::pymodule(name = "_pydpq")]
mod module {
    #[pymodule_export]
    use crate::codebooks::Codebooks;
    #[pymodule_export]
    use crate::command::{run_command, run_training};
    #[pymodule_export]
    use crate::index::{Filter, Index};
    #[pymodule_export]
    use crate::live::LiveIndex;
    #[pymodule_export]
    use crate::model::Model;
    #[pymodule_export]
    use crate::precision::mean_average_precision;

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "the name that Python has for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
