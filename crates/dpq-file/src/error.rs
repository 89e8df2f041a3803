//! The errors of this crate.

use std::io;
use std::path::PathBuf;

use safetensors::{Dtype, SafeTensorError};

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
    /// The file is not a container, or a damaged one.
    #[error("{}: {found}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The defect.
        found: Malformed,
    },
    /// The file has no metadata under this key.
    #[error("{}: no metadata `{key}`, found {}", path.display(), list(found))]
    MissingMetadata {
        /// The file.
        path: PathBuf,
        /// The key asked for.
        key: String,
        /// The keys in the file, sorted.
        found: Vec<String>,
    },
    /// The file has no section of this name.
    #[error("{}: no section `{name}`, found {}", path.display(), list(found))]
    MissingSection {
        /// The file.
        path: PathBuf,
        /// The name asked for.
        name: String,
        /// The names in the file, sorted.
        found: Vec<String>,
    },
    /// A section has another type or shape than its reader expects.
    #[error(
        "{}: section `{name}` has {:?} {:?}, expected {:?} {:?}",
        path.display(), found.0, found.1, expected.0, expected.1
    )]
    Section {
        /// The file.
        path: PathBuf,
        /// The section.
        name: String,
        /// The type and shape in the file.
        found: (Dtype, Vec<usize>),
        /// The type and shape that the reader expects.
        expected: (Dtype, Vec<usize>),
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
    /// Bytes changed after the file was written.
    #[error("{}: {part} is damaged, make the file again or restore it from a copy", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The part that does not match its checksum: the header or a section.
        part: String,
    },
    /// The file carries no checksum for a section, so it cannot be verified.
    #[error("{}: section `{name}` carries no checksum, so it cannot be verified", path.display())]
    NoChecksum {
        /// The file.
        path: PathBuf,
        /// The section.
        name: String,
    },
}

/// Why a file is not a container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The file has no bytes.
    #[error("the file is empty, make it again or restore it from a copy")]
    Empty,
    /// The file is a pointer that Git LFS left in the place of a large file.
    #[error("this is a Git LFS pointer, not the file it points to, run `git lfs pull`")]
    LfsPointer,
    /// The file ends inside its header.
    #[error("the file is truncated: it ends after {0} bytes, inside its header")]
    Truncated(u64),
    /// The file does not have the length that its header says.
    #[error(
        "the file is truncated or was appended to: its {0} bytes are not what its header describes, copy it again"
    )]
    WrongLength(u64),
    /// The file is of another kind.
    #[error("not a safetensors file, expected a .safetensors file")]
    OtherKind,
    /// The file begins as a safetensors file does, but its header does not describe sections.
    #[error("not a safetensors file ({0}), expected a .safetensors file")]
    Header(SafeTensorError),
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { format!("`{}`", names.join("`, `")) }
}
