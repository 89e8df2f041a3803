//! The errors of all readers and writers.

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
    /// The file was read, and its contents are wrong.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error in its contents.
        problem: Box<Error>,
    },
    /// One array of a file is wrong.
    #[error("`{name}`: {problem}")]
    Array {
        /// The array.
        name: String,
        /// The error in it.
        problem: Box<Error>,
    },
    /// A file that is not of the expected format at all.
    #[error("not a {expected}, write it with {writer}")]
    Format {
        /// The format.
        expected: &'static str,
        /// The function that writes it.
        writer: &'static str,
    },
    /// Another kind of index, array or value than the reader expects.
    #[error("{found}, expected {expected}")]
    Kind {
        /// The value found.
        found: String,
        /// The value expected, and the remedy.
        expected: &'static str,
    },
    /// An array of another element type.
    #[error(
        "array holds {found}, expected {expected}: convert it with .astype('{expected}') if no value changes"
    )]
    ElementType {
        /// NumPy's type string.
        found: String,
        /// NumPy's name of the type.
        expected: &'static str,
    },
    /// A header of a .npy file that cannot be parsed.
    #[error("damaged .npy header of {length} bytes, write the array again with numpy.save")]
    Header {
        /// The length that the file gives.
        length: usize,
    },
    /// An array whose shape does not match its size.
    #[error("array of shape {shape:?} does not match its {bytes} bytes, the file is damaged")]
    ArraySize {
        /// The shape in the header.
        shape: Vec<u64>,
        /// The bytes that follow the header.
        bytes: u64,
    },
    /// A count that contradicts another part of the file, or of the caller's arguments.
    #[error("has {found} {what}, expected {expected}")]
    Count {
        /// The things counted, plural.
        what: &'static str,
        /// The number found.
        found: u64,
        /// The number expected.
        expected: u64,
    },
    /// A number outside its range.
    #[error("has {found} {what}, expected {min} to {max}: {help}")]
    OutOfRange {
        /// The things counted, plural.
        what: &'static str,
        /// The number found.
        found: i128,
        /// The minimum.
        min: u64,
        /// The maximum.
        max: u64,
        /// The reason for the range.
        help: &'static str,
    },
    /// A row of another length than the first one.
    #[error("row {row} has {found} values, row 0 has {expected}: expected rows of equal length")]
    RowLength {
        /// The row, from 0.
        row: usize,
        /// Its number of values.
        found: i32,
        /// The number of values of row 0.
        expected: usize,
    },
    /// The file ends inside a value, or a count is too large.
    #[error("needs {needed} more bytes where {left} are left, the file is cut off or damaged")]
    Truncated {
        /// The bytes that the next value takes.
        needed: u64,
        /// The bytes until the end of the file.
        left: u64,
    },
    /// The file does not end where its contents end.
    #[error("has {0} more bytes after its contents, the file is damaged")]
    Trailing(u64),
    /// A feature that is infinite or NaN.
    #[error("row {row}, column {column} is {value}, expected finite numbers")]
    NotFinite {
        /// The row, from 0.
        row: usize,
        /// The column, from 0.
        column: usize,
        /// The value.
        value: f32,
    },
    /// A faiss index that maps two items to the same id.
    #[error(
        "gives the id {0} to several items, expected distinct ids: to number the items from 0 instead, write the index \
         without its map, in Python `faiss.write_index(faiss.read_index(file).index, new_file)`"
    )]
    RepeatedId(u64),
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn kind(found: impl Into<String>, expected: &'static str) -> Self {
        Self::Kind { found: found.into(), expected }
    }

    pub(crate) fn range(
        what: &'static str,
        found: impl Into<i128>,
        [min, max]: [u64; 2],
        help: &'static str,
    ) -> Self {
        Self::OutOfRange { what, found: found.into(), min, max, help }
    }

    /// A negative id, or an id above the maximum of the format.
    pub(crate) fn id(id: impl Into<i128>, max: u64) -> Self {
        Self::range("as an id", id, [0, max], "convert or replace the ids")
    }

    pub(crate) fn dimensions(found: usize, expected: &'static str) -> Self {
        Self::kind(format!("array has {found} dimension(s)"), expected)
    }

    /// Names the array that the error is about.
    pub(crate) fn in_array(self, name: &str) -> Self {
        Self::Array { name: name.to_owned(), problem: Box::new(self) }
    }

    /// Names the file that the error is about.
    pub(crate) fn at(self, path: &Path) -> Self {
        match self {
            Self::Stream(source) => Self::Read(path.to_owned(), source),
            problem => Self::File { path: path.to_owned(), problem: Box::new(problem) },
        }
    }
}
