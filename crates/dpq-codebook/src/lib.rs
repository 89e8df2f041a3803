#![doc = include_str!("../README.md")]

mod assign;
mod beam;
mod codebooks;
mod distortion;
mod dot;
mod encode;
mod error;
mod kmeans;
mod length;
mod norm;
mod norms;
mod options;
mod refine;
mod rounded;
mod rounded_codebooks;
mod table;
mod vectorize;

pub use beam::Beam;
pub use codebooks::{Assignment, Codebooks, Form};
pub use distortion::{LevelUsage, usage};
pub use dot::inner_products;
pub use error::{Error, Expected, Unreadable};
pub use kmeans::ResidualKMeans;
pub use length::CodeLength;
pub use options::FitOptions;
pub use rounded_codebooks::{RoundedCodebooks, RoundedQuery};
pub use table::LookupTable;
