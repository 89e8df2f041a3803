//! The one error type of this crate.

use std::path::PathBuf;

/// What can go wrong with an index: opening, checking, building or searching it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The container around the index cannot be read or written, or its checksums disagree.
    #[error(transparent)]
    File(#[from] dpq_file::Error),
    /// The codebooks in the file, or a query given for them, are not right.
    #[error(transparent)]
    Codebook(#[from] dpq_codebook::Error),
    /// A well-formed file that is not an index of a version known here.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was found, what was expected and what to do.
        reason: String,
    },
    /// A section of the index contradicts the metadata or another section.
    #[error("{}: section `{section}` {reason}", path.display())]
    Section {
        /// The file.
        path: PathBuf,
        /// The section at fault.
        section: String,
        /// What was found and what was expected.
        reason: String,
    },
    /// Codes or ids from which no index can be built.
    #[error("{reason}")]
    Build {
        /// What was found and what was expected.
        reason: String,
    },
    /// The same id was given to two items.
    #[error("id {id} is given to more than one item, give each item its own id")]
    DuplicateId {
        /// The id.
        id: u64,
    },
    /// A search that makes no sense for this index.
    #[error("{reason}")]
    Search {
        /// What was found and what was expected.
        reason: String,
    },
    /// A filter that was made from another index, or two filters of different indexes combined.
    #[error(
        "the filter belongs to another index, expected one that was made from this opened index: make it with \
         `Index::allow`, `deny` or `filter` of the index that it is used with"
    )]
    ForeignFilter,
    /// A bitmap of another length.
    #[error("the bitmap has {found} words of 64 bits, expected {expected}: one bit per item")]
    Bitmap {
        /// Words given.
        found: usize,
        /// Words that hold one bit per item.
        expected: usize,
    },
    /// A metric that does not exist.
    #[error("unknown metric {found:?}, expected \"ip\" (inner product) or \"l2\" (Euclidean distance)")]
    Metric {
        /// What was given.
        found: String,
    },
}
