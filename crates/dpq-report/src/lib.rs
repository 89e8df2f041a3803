#![doc = include_str!("../README.md")]

pub mod attacks;
pub mod benchmarks;
mod csv;
pub mod docs;
mod document;
mod embed;
mod error;
mod figures;
mod files;
pub mod grids;
mod page;
mod paper;
mod plot;
pub mod quick;
pub mod results;
mod sheet;
pub mod study;
mod summary;
mod svg;
mod table;
#[cfg(test)]
mod test_data;
mod tsne;
mod words;

pub use embed::place;
pub use error::Error;
pub use files::Report;
pub use paper::{CLASS_POSTERIOR, POSTERIOR};
pub use plot::recall_by_time;
pub use results::Results;
pub use sheet::{Example, ExampleHit, choose, sheet};
pub use summary::{Curve, Metrics, Rankings, Run, mean_sd};
pub use tsne::tsne;
