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
    /// The file is not the container that its reader expects.
    #[error("{}: {found}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The defect.
        found: Malformed,
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

/// Why a file is not the container that its reader expects.
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
    /// The file lacks metadata or a section.
    #[error("no {part} `{name}`, found {}", list(found))]
    Missing {
        /// `metadata` or `section`.
        part: &'static str,
        /// The name asked for.
        name: String,
        /// The names in the file, sorted.
        found: Vec<String>,
    },
    /// A section has another type or shape than its reader expects.
    #[error("section `{name}` has {:?} {:?}, expected {:?} {:?}", found.0, found.1, expected.0, expected.1)]
    Section {
        /// The section.
        name: String,
        /// The type and shape in the file.
        found: (Dtype, Vec<usize>),
        /// The type and shape that the reader expects.
        expected: (Dtype, Vec<usize>),
    },
    /// This part, the header or a section, does not match its checksum.
    #[error("{0} is damaged, make the file again or restore it from a copy")]
    Damaged(String),
    /// The file carries no checksum for this section, so it cannot be verified.
    #[error("section `{0}` carries no checksum, so it cannot be verified")]
    NoChecksum(String),
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { format!("`{}`", names.join("`, `")) }
}
