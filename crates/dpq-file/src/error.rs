//! The errors of this crate.

use std::io;
use std::path::PathBuf;

use safetensors::Dtype;

/// An error of reading or writing a container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused to read or write.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The action, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is written, but the system refused to sync its folder. The old file may come back
    /// after a crash.
    #[error("{} is written, but may be lost in a crash: its folder cannot be synced, write it again", path.display())]
    Unsynced {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is damaged, or is not the container that its reader expects.
    #[error("{}: {problem}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The defect, and the remedy.
        problem: String,
    },
    /// A section to write does not have the bytes that its type and shape need.
    #[error("section `{name}` has {n_bytes} bytes, expected those of {dtype:?} {shape:?}")]
    Bytes {
        /// The section.
        name: String,
        /// The number of bytes given.
        n_bytes: usize,
        /// The type given.
        dtype: Dtype,
        /// The shape given.
        shape: Vec<usize>,
    },
    /// Two sections to write share a name, or a section or metadata entry has the name of a
    /// checksum.
    #[error("the name `{0}` is reserved or given twice, choose another name")]
    Name(String),
}
