//! What can go wrong with codebooks.

use std::ops::RangeInclusive;
use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] dpq_file::Error),
    /// The file carries no codebooks.
    #[error("{}: the file holds a `{format}` without codebooks, expected codebooks or a model", path.display())]
    NoCodebooks {
        /// The file.
        path: PathBuf,
        /// The name of its format.
        format: String,
    },
    /// The codebook file is of another version.
    #[error("{}: the file has version {found}, this program reads version {expected}, use a newer program", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: String,
        /// The version that this program reads.
        expected: &'static str,
    },
    /// The codebooks in the file are not those that the file was written with.
    #[error(
        "{}: the codebooks have the fingerprint {found}, the file says {claimed}, make it again or restore it from a copy",
        path.display()
    )]
    Fingerprint {
        /// The file.
        path: PathBuf,
        /// The fingerprint of the codebooks.
        found: String,
        /// The fingerprint that the file claims.
        claimed: String,
    },
    /// The section `codebook` does not have three dimensions.
    #[error("{}: section `codebook` has shape {found:?}, expected [levels, codewords, dimensions]", path.display())]
    Dimensions {
        /// The file.
        path: PathBuf,
        /// The shape of the section.
        found: Vec<usize>,
    },
    /// The values in a file are not codebooks.
    #[error("{}: {error}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The error of [`Codebooks::new`](crate::Codebooks::new) or of parsing the assignment.
        error: Box<Self>,
    },
    /// The name of an assignment is unknown.
    #[error("assignment is `{found}`, expected `euclidean` or `cosine`")]
    Assignment {
        /// The name.
        found: String,
    },
    /// A slice has another length than its shape says.
    #[error("{what} has {found} values, expected {}", product(expected))]
    Length {
        /// The argument.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The shape expected.
        expected: Vec<usize>,
    },
    /// A slice is not whole rows.
    #[error("{what} has {found} values, expected a multiple of {columns}")]
    Rows {
        /// The argument.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The length of a row.
        columns: usize,
    },
    /// A result would not fit into memory.
    #[error(
        "{what} would have {rows} × {columns} values, more than memory can hold, pass fewer rows per call"
    )]
    TooLarge {
        /// The result.
        what: &'static str,
        /// Its rows.
        rows: usize,
        /// Its columns.
        columns: usize,
    },
    /// A number is outside its range.
    #[error("{what} is {found}, expected {}", range(expected))]
    Range {
        /// The number.
        what: &'static str,
        /// Its value.
        found: usize,
        /// The values allowed.
        expected: RangeInclusive<usize>,
    },
    /// A number of bits is not the length of a code.
    #[error("code length in bits is {found}, expected a multiple of 8 from 8 to 2040")]
    Bits {
        /// The number of bits.
        found: usize,
    },
    /// A value is NaN or infinite.
    #[error("{what} has the value {value} at position {position}, expected finite numbers")]
    NotFinite {
        /// The argument.
        what: &'static str,
        /// The value.
        value: f32,
        /// Its position in the slice.
        position: usize,
    },
    /// A weight is negative, or the last one is 0.
    #[error(
        "weights has the value {value} at position {position}, expected 0 or more, and more than 0 at the end"
    )]
    Weight {
        /// The value.
        value: f32,
        /// Its position in the slice.
        position: usize,
    },
    /// Beam search and refinement need assignment to the nearest codeword.
    #[error(
        "the codebooks assign by cosine, expected euclidean: beam search and refinement are for the nearest codeword"
    )]
    Cosine,
    /// The inner products between codewords take too much memory.
    #[error(
        "the inner products between codewords take {n_bytes} bytes for {n_levels} levels of {n_codewords} codewords, \
         expected at most {max_bytes}, use fewer levels or rank by inner product"
    )]
    TooManyProducts {
        /// Levels, L.
        n_levels: usize,
        /// Codewords per level, K.
        n_codewords: usize,
        /// The size of all products, in bytes.
        n_bytes: u64,
        /// The maximum size, in bytes.
        max_bytes: u64,
    },
    /// Inner products between codewords overflow f32.
    #[error(
        "inner products between the codewords overflow f32, scale the features down and train the codebooks again"
    )]
    Overflow,
    /// There are fewer features than codewords.
    #[error(
        "{n_features} features cannot fit {n_codewords} codewords, give more features or ask for fewer codewords"
    )]
    TooFewFeatures {
        /// The features given.
        n_features: usize,
        /// The codewords per level asked for.
        n_codewords: usize,
    },
    /// The caller interrupted fitting.
    #[error("fitting codebooks was interrupted, run it again")]
    Interrupted,
}

fn product(shape: &[usize]) -> String {
    shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(" × ")
}

fn range(range: &RangeInclusive<usize>) -> String {
    match (*range.start(), *range.end()) {
        (start, usize::MAX) => format!("at least {start}"),
        (0, end) => format!("at most {end}"),
        (start, end) => format!("{start} to {end}"),
    }
}

/// Refuses NaN and infinite values.
pub(crate) fn check_finite(what: &'static str, values: &[f32]) -> Result<(), Error> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(position) => Err(Error::NotFinite { what, value: values[position], position }),
    }
}

/// Refuses a number outside a range.
pub(crate) fn check_range(
    what: &'static str,
    found: usize,
    expected: RangeInclusive<usize>,
) -> Result<(), Error> {
    if expected.contains(&found) { Ok(()) } else { Err(Error::Range { what, found, expected }) }
}

/// Refuses a slice of another length than its shape says.
pub(crate) fn check_length(what: &'static str, found: usize, expected: &[usize]) -> Result<(), Error> {
    let length = expected.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
    if length == Some(found) {
        Ok(())
    } else {
        Err(Error::Length { what, found, expected: expected.to_vec() })
    }
}

/// Refuses a slice that is not whole rows, and counts its rows.
pub(crate) fn check_rows(what: &'static str, found: usize, columns: usize) -> Result<usize, Error> {
    if found.is_multiple_of(columns) {
        Ok(found / columns)
    } else {
        Err(Error::Rows { what, found, columns })
    }
}

/// Returns the number of f32 values of a result, unless memory cannot hold them.
pub(crate) fn size_of_result(what: &'static str, rows: usize, columns: usize) -> Result<usize, Error> {
    rows.checked_mul(columns)
        .filter(|&size| size <= isize::MAX as usize / size_of::<f32>())
        .ok_or(Error::TooLarge { what, rows, columns })
}
