//! The errors of all readers and writers.

use std::fmt::{Debug, Display};
use std::io;
use std::path::{Path, PathBuf};

/// A file that cannot be read or written.
///
/// Only [`Read`](Self::Read), [`Stream`](Self::Stream), [`NotAFile`](Self::NotAFile) and
/// [`Container`](Self::Container) come from the system. All other variants describe the contents of
/// a file or the arguments of the caller.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused to read the file.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// The system refused to read a stream that has no path.
    #[error("cannot read the stream: {0}")]
    Stream(#[from] io::Error),
    /// The path names a folder, a pipe or a device.
    #[error("{} is not a regular file, save the data to a file first", .0.display())]
    NotAFile(PathBuf),
    /// The file could not be written, or is not a safetensors file.
    #[error(transparent)]
    Container(#[from] dpq_file::Error),
    /// Codebooks in the file are invalid.
    #[error(transparent)]
    Codebooks(#[from] dpq_codebook::Error),
    /// The file was read, and its contents are wrong.
    #[error("{path}: {1}", path = .0.display())]
    File(PathBuf, Box<Error>),
    /// The array of this name in a file is wrong.
    #[error("`{0}`: {1}")]
    Array(String, Box<Error>),
    /// Contents or arguments are wrong: what was found, what is expected, and what to do.
    #[error("{0}")]
    Invalid(String),
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Another kind of index, array or value than the reader expects.
    pub(crate) fn kind(found: impl Display, expected: &str) -> Self {
        Self::Invalid(format!("{found}, expected {expected}"))
    }

    /// A file that is not of the expected format at all.
    pub(crate) fn format(expected: &str, writer: &str) -> Self {
        Self::Invalid(format!("not a {expected}, write it with {writer}"))
    }

    /// A number of things outside its range; `help` is the reason for the range.
    pub(crate) fn range(what: &str, found: impl Display, [min, max]: [u64; 2], help: &str) -> Self {
        Self::Invalid(format!("has {found} {what}, expected {min} to {max}: {help}"))
    }

    /// A negative id, or an id above the maximum of the format.
    pub(crate) fn id(id: impl Display, max: u64) -> Self {
        Self::range("as an id", id, [0, max], "convert or replace the ids")
    }

    pub(crate) fn dimensions(found: usize, expected: &str) -> Self {
        Self::kind(format!("array has {found} dimension(s)"), expected)
    }

    /// An array of another element type; `expected` is NumPy's name of it.
    pub(crate) fn element_type(found: &str, expected: &str) -> Self {
        let remedy = format!("convert it with .astype('{expected}') if no value changes");
        Self::kind(format!("array holds {found}"), &format!("{expected}: {remedy}"))
    }

    /// An array whose shape does not match the bytes of its values.
    pub(crate) fn array_size(shape: &impl Debug, bytes: u64) -> Self {
        Self::Invalid(format!(
            "array of shape {shape:?} does not match its {bytes} bytes, the file is damaged"
        ))
    }

    /// The file ends inside a value, or a count is too large.
    pub(crate) fn truncated(needed: u64, left: u64) -> Self {
        Self::Invalid(format!(
            "needs {needed} more bytes where {left} are left, the file is cut off or damaged"
        ))
    }

    /// Refuses a count that contradicts another part of the file, or of the caller's arguments.
    pub(crate) fn check_count(what: &str, found: u64, expected: u64) -> Result<()> {
        if found == expected {
            Ok(())
        } else {
            Err(Self::kind(format!("has {found} {what}"), &expected.to_string()))
        }
    }

    /// Names the array that the error is about.
    pub(crate) fn in_array(self, name: &str) -> Self {
        Self::Array(name.to_owned(), Box::new(self))
    }

    /// Names the file that the error is about.
    pub(crate) fn at(self, path: &Path) -> Self {
        match self {
            Self::Stream(source) => Self::Read(path.to_owned(), source),
            problem => Self::File(path.to_owned(), Box::new(problem)),
        }
    }
}
