#![doc = include_str!("../README.md")]

mod error;
mod filter;
mod folder;
mod items;
mod live;
mod manifest;
mod merge;
mod names;
mod segment;
mod snapshot;
mod tail;

pub use dpq_index::{Assignment, CodeLength, Codebooks, Form, Hit, Metric, SearchOptions};
pub use error::Error;
pub use filter::Filter;
pub use live::LiveIndex;
pub use merge::{Merge, Merged};
pub use snapshot::{Snapshot, Stats};

/// The program of the tutorial runs with the other tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/tutorials/rust.md")]
mod tutorial {}
