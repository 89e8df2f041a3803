//! The errors of this crate.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use crate::{CodeLength, Form};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] dpq_file::Error),
    /// The file does not hold codebooks that this program can read.
    #[error("{}: {found}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The defect.
        found: Unreadable,
    },
    /// The name of an assignment is unknown.
    #[error("assignment is `{0}`, expected `euclidean` or `cosine`")]
    Assignment(String),
    /// The name of a form is unknown.
    #[error("form is `{0}`, expected `progressive` or `product`")]
    Form(String),
    /// A number, or the length of a slice, is not possible.
    #[error("{what} {expected}", expected = expected.with(*found))]
    Argument {
        /// The argument.
        what: &'static str,
        /// The number, or the number of values of the slice.
        found: usize,
        /// The numbers that are possible.
        expected: Expected,
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
    /// A weight is negative, or the last one is 0: its value and its position.
    #[error("weights has the value {0} at position {1}, expected 0 or more, and more than 0 at the end")]
    Weight(f32, usize),
    /// A result is too large.
    #[error(
        "{what} would have {rows} × {columns} values, expected at most {max} in total, use fewer items or levels"
    )]
    TooLarge {
        /// The result.
        what: &'static str,
        /// Its rows.
        rows: usize,
        /// Its columns.
        columns: usize,
        /// The maximum number of values.
        max: usize,
    },
    /// Beam search and refinement need assignment to the nearest codeword.
    #[error(
        "the codebooks assign by cosine, expected euclidean: beam search and refinement are for the nearest codeword"
    )]
    Cosine,
    /// Beam search, refinement and rounded codebooks are for progressive codebooks.
    #[error(
        "the codebooks are product codebooks, expected progressive ones: leave out beam search, refinement and rounding, \
         which a product does not need"
    )]
    Product,
    /// Only whole codes of product codebooks are codes.
    #[error("code length is {found}, expected {expected}: the codes of product codebooks have one length")]
    Length {
        /// The length asked for.
        found: CodeLength,
        /// The length of the codes.
        expected: CodeLength,
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

/// Why a file does not hold codebooks that this program can read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unreadable {
    /// It carries no codebooks; it has this format.
    #[error("the file holds a `{0}` without codebooks, expected codebooks or a model")]
    NoCodebooks(String),
    /// It is a codebook file of this version.
    #[error("the file has version {0}, this program reads versions 1 and 2, use a newer program")]
    Version(String),
    /// It is a codebook file of this version, which is not the one of its form.
    #[error(
        "the file has version {0} with {1} codebooks, expected version 2 for product ones alone, restore it"
    )]
    VersionOfForm(String, Form),
    /// The section `codebook` has this shape.
    #[error("section `codebook` has shape {0:?}, expected [levels, codewords, dimensions]")]
    Shape(Vec<usize>),
    /// The values or the assignment are not those of codebooks.
    #[error(transparent)]
    Values(Box<Error>),
    /// The fingerprint of the codebooks is the first, but the file claims the second.
    #[error(
        "the codebooks have the fingerprint {0}, the file says {1}, make it again or restore it from a copy"
    )]
    Fingerprint(String, String),
}

/// The numbers that an argument can be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expected {
    /// A number in this range.
    Range(RangeInclusive<usize>),
    /// A number of bits: a multiple of 8 from 8 to 2040.
    Bits,
    /// The number of values of this shape.
    Shape(Vec<usize>),
    /// A multiple of this number of values, the length of a row.
    Rows(usize),
    /// A dimension that this number of levels cuts into equal parts.
    Parts(usize),
}

impl Expected {
    /// Refuses a number, or the number of values of a slice, that is not as expected.
    ///
    /// # Errors
    /// [`Error::Argument`], in which `what` names the argument.
    pub fn check(self, what: &'static str, found: usize) -> Result<(), Error> {
        let fits = match &self {
            Self::Range(range) => range.contains(&found),
            Self::Bits => found.is_multiple_of(8) && (8..=2040).contains(&found),
            Self::Shape(shape) => shape.iter().try_fold(1, |n: usize, &m| n.checked_mul(m)) == Some(found),
            Self::Rows(n) | Self::Parts(n) => found.is_multiple_of(*n),
        };
        if fits { Ok(()) } else { Err(Error::Argument { what, found, expected: self }) }
    }

    fn with(&self, found: usize) -> impl fmt::Display {
        fmt::from_fn(move |f| match self {
            Self::Range(range) if *range.end() == usize::MAX => {
                write!(f, "is {found}, expected at least {}", range.start())
            }
            Self::Range(range) if *range.start() == 0 => {
                write!(f, "is {found}, expected at most {}", range.end())
            }
            Self::Range(range) => write!(f, "is {found}, expected {} to {}", range.start(), range.end()),
            Self::Bits => write!(f, "is {found}, expected a multiple of 8 from 8 to 2040"),
            Self::Shape(shape) => {
                let shape: Vec<_> = shape.iter().map(ToString::to_string).collect();
                write!(f, "has {found} values, expected {}", shape.join(" × "))
            }
            Self::Rows(columns) => write!(f, "has {found} values, expected a multiple of {columns}"),
            Self::Parts(n_levels) => {
                write!(f, "is {found}, expected a multiple of {n_levels}, the levels of product codebooks")
            }
        })
    }
}

/// Refuses NaN and infinite values.
pub(crate) fn check_finite(what: &'static str, values: &[f32]) -> Result<(), Error> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(position) => Err(Error::NotFinite { what, value: values[position], position }),
    }
}

/// The maximum number of f32 values that memory can hold.
pub(crate) const MAX_VALUES: usize = isize::MAX as usize / size_of::<f32>();

/// Returns the number of values of a result, unless there are more than `max`.
pub(crate) fn check_size(
    what: &'static str,
    rows: usize,
    columns: usize,
    max: usize,
) -> Result<usize, Error> {
    let size = rows.checked_mul(columns).filter(|&size| size <= max);
    size.ok_or(Error::TooLarge { what, rows, columns, max })
}
