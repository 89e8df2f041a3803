#![doc = include_str!("../README.md")]

mod error;
mod faiss;
mod file;
pub mod npy;
mod npz;
mod pickle;
mod vectors;
mod weights;

pub use error::{Error, Result};
pub use faiss::FaissIndex;
pub use file::{extension, open};
pub use npy::Matrix;
pub use npz::{Array, NpzReader, NpzWriter};
pub use vectors::{FeatureFile, read_features, read_ids, read_sample};
pub use weights::{parse_dictionary, read_weights};
