//! What can go wrong with codebooks.

use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] dpq_file::Error),
    /// The file holds something else.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What was found, what was expected.
        reason: String,
    },
    /// A slice has another length than its shape says.
    #[error("{what} has {found} values, expected {expected}")]
    Length {
        /// The argument.
        what: &'static str,
        /// The length found.
        found: usize,
        /// The lengths that fit.
        expected: String,
    },
    /// A number is outside its range.
    #[error("{what} is {found}, expected {expected}")]
    Range {
        /// The number.
        what: &'static str,
        /// Its value.
        found: usize,
        /// The values that are possible.
        expected: String,
    },
    /// A value is NaN or infinite.
    #[error("{what} has the value {value} at position {position}, expected finite numbers")]
    NotFinite {
        /// The argument.
        what: &'static str,
        /// The value.
        value: f32,
        /// Where it is.
        position: usize,
    },
    /// A weight is negative, or the last one is 0.
    #[error(
        "weights has the value {value} at position {position}, expected 0 or more, and more than 0 at the end"
    )]
    Weight {
        /// The value.
        value: f32,
        /// Where it is.
        position: usize,
    },
    /// Beam search and refinement are for the nearest codeword.
    #[error(
        "the codebooks assign by cosine, expected euclidean: beam search and refinement are for the nearest codeword"
    )]
    Cosine,
    /// The inner products between codewords are too many to keep.
    #[error(
        "the inner products between codewords take {n_bytes} bytes for \
         {n_levels} levels of {n_codewords} codewords, expected at most {max_bytes}, use fewer levels or rank by inner product"
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
        /// The codewords a level asked for.
        n_codewords: usize,
    },
}

/// Refuses NaN and infinite values.
pub(crate) fn check_finite(what: &'static str, values: &[f32]) -> Result<(), Error> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(position) => Err(Error::NotFinite { what, value: values[position], position }),
    }
}

/// Refuses a slice that is not whole rows, and counts its rows.
pub(crate) fn check_rows(what: &'static str, found: usize, columns: usize) -> Result<usize, Error> {
    if found.is_multiple_of(columns) {
        Ok(found / columns)
    } else {
        Err(Error::Length { what, found, expected: format!("a multiple of {columns}") })
    }
}
