//! The error type of this crate.

use std::path::PathBuf;

use dpq_codebook::CodeLength;

use crate::layout::Metric;

/// An error of opening, checking, building or searching an index.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The container around the index cannot be read or written, or its checksums disagree.
    #[error(transparent)]
    File(#[from] dpq_file::Error),
    /// An argument has another length, range or value than expected, or the codebooks in the file
    /// are wrong.
    #[error(transparent)]
    Codebook(#[from] dpq_codebook::Error),
    /// A well-formed file that is not an index of a known version.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The finding, the expectation and the remedy.
        reason: String,
    },
    /// A section of the file contradicts the metadata or another section.
    #[error("{}: section `{section}` {reason}", path.display())]
    Section {
        /// The file.
        path: PathBuf,
        /// The name of the section.
        section: String,
        /// The finding and the expectation.
        reason: String,
    },
    /// A code to build from that names no codeword.
    #[error(
        "row {row} of the codes has {found} at level {level}, but there are {n_codewords} codewords: give the codebooks \
         that made these codes"
    )]
    Code {
        /// The row of the codes.
        row: usize,
        /// The level, which is the column.
        level: usize,
        /// The code.
        found: u8,
        /// Codewords per level.
        n_codewords: usize,
    },
    /// Two items to build from with the same id.
    #[error("id {id} is given to more than one item, give each item its own id")]
    DuplicateId {
        /// The smallest such id.
        id: u64,
    },
    /// A minimum score that is NaN.
    #[error("the minimum score is NaN, expected a number")]
    NanMinScore,
    /// A lookup table of another shape than the search needs.
    #[error(
        "the lookup table has {} levels of {} codewords, the index {} of {}, and the search is at {length}: make the \
         table with the codebooks of the index, for this length or more",
        found[0], found[1], max[0], max[1]
    )]
    Table {
        /// Levels and codewords of the table.
        found: [usize; 2],
        /// Levels and codewords of the index.
        max: [usize; 2],
        /// The length searched.
        length: CodeLength,
    },
    /// A lookup table that other codebooks made.
    #[error("other codebooks made the lookup table, make it with those of the index that is searched")]
    ForeignTable,
    /// A filter that was made from another index, or two filters of different indexes combined.
    #[error(
        "the filter belongs to another index, make it from the opened index that is searched (`allow`, `deny`, `filter`)"
    )]
    ForeignFilter,
    /// An index searched together with another one that has other codebooks or another metric.
    #[error(
        "an index of codebooks {} and metric {} is searched together with one of {} and {}, give indexes of the \
         same codebooks and metric",
        found.0, found.1, expected.0, expected.1
    )]
    ForeignPart {
        /// Fingerprint and metric of the index.
        found: (String, Metric),
        /// Fingerprint and metric of the first index.
        expected: (String, Metric),
    },
    /// The caller interrupted a search, or the building of an index.
    #[error("the work was interrupted before its end")]
    Interrupted,
    /// Distances of hits whose scores are inner products.
    #[error(
        "scores of this index are inner products, which give no distances, build it with the Euclidean metric"
    )]
    NoDistance,
    /// A query or a vector to score a hit by with values that are not finite, or too large.
    #[error("the vector of id {id} has the score {score}, expected finite values in it and in the query")]
    Vector {
        /// The id of the hit.
        id: u64,
        /// The score.
        score: f32,
    },
    /// A metric that does not exist.
    #[error("unknown metric {0:?}, expected \"ip\" (inner product) or \"l2\" (Euclidean distance)")]
    Metric(String),
}
