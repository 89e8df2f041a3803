#![doc = include_str!("../README.md")]

mod batch;
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
mod parts;
mod prefix;
mod prune;
mod ranking;
mod refine;
mod rerank;
mod score;
mod search;
mod shortlist;
mod sort;
mod topk;
mod verify;
mod view;

pub use build::IndexBuilder;
pub use distinct::DistinctCodes;
pub use dpq_codebook::{Assignment, CodeLength, Codebooks, Form, LookupTable};
pub use error::Error;
pub use file::Index;
pub use filter::Filter;
pub use kernel::Kernel;
pub use layout::Metric;
pub use search::SearchOptions;
pub use topk::Hit;
