//! Exact search over nested codes, at any of their lengths, in one memory-mapped file.
//!
//! Codes of one byte a level are sorted and written to a file by [`build()`]. An [`Index`] opens that file in no time, whatever
//! its size, and [`Index::search`] returns exactly the items that scoring and sorting all of them would: by descending
//! score, then by ascending id, at every length that the codes have. This crate knows nothing of images, or of how codes
//! were made: any codes whose score is a sum of one table entry a level will do.
//!
//! ```
//! use dpq_codebook::{Assignment, CodeLength, Codebooks};
//! use dpq_index::{Index, Metric, SearchOptions, build};
//!
//! // Two levels of two codewords in the plane, and four items, a row of two bytes each.
//! let codewords = vec![1.0, 0.0, 0.0, 1.0, /* level 1 */ 0.25, 0.0, 0.0, 0.25];
//! let codebooks = Codebooks::new(codewords, 2, 2, 2, Assignment::Euclidean)?;
//! let dir = tempfile::tempdir()?;
//! let path = dir.path().join("gallery.dpq");
//! build(&path, &codebooks, Metric::InnerProduct, &[0, 0, 0, 1, 1, 0, 1, 1], Some(&[10, 11, 12, 13]))?;
//!
//! let index = Index::open(&path)?;
//! let table = index.lookup_table(&[0.1, 1.0])?;
//! let ids = |bits, k| -> Result<Vec<u64>, Box<dyn std::error::Error>> {
//!     let hits = index.search(&table, &SearchOptions::new(k, CodeLength::from_bits(bits)?))?;
//!     Ok(hits.iter().map(|hit| hit.id).collect())
//! };
//! assert_eq!(ids(8, 2)?, [12, 13]); // at 8 bits these two tie, so the lesser id comes first
//! assert_eq!(ids(16, 2)?, [13, 12]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod batch;
mod block;
mod bound;
mod build;
mod distinct;
mod error;
mod estimate;
mod file;
mod filter;
mod kernel;
mod layout;
mod norms;
mod order;
mod prune;
mod ranking;
mod score;
mod search;
mod sort;
mod topk;
mod verify;
mod view;

pub use block::{Codes, score_block};
pub use build::build;
pub use distinct::DistinctCodes;
pub use error::Error;
pub use file::Index;
pub use filter::Filter;
pub use kernel::Kernel;
pub use layout::Metric;
pub use search::SearchOptions;
pub use topk::Hit;
