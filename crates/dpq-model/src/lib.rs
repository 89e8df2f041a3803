//! Deep Progressive Quantization on candle: network, losses, training, checkpoints.
//!
//! [`train`] makes a [`Model`] from images and labels: a network that maps an image to a feature, and codebooks that
//! approximate features step by step. This crate knows nothing of searching or evaluating, and nothing of where images
//! come from: [`TrainSet`] asks the caller for them. It runs on the CPU and, with the feature `cuda`, on
//! NVIDIA GPUs.
//!
//! Everything random is a function of the seed, so two runs with one seed, the same data and the same machine give the
//! same bytes, at one thread and at two.
//!
//! Work runs in rayon's current pool. candle has threads of its own beside it for elementwise operations on large tensors, which
//! spin while they wait; a program that trains on the CPU sets the environment variable `CANDLE_NUM_THREADS` to 1 before its first tensor, as
//! `dpq` does.
//!
//! ```no_run
//! use dpq_model::Model;
//!
//! let model = Model::open("runs/a/model.safetensors".as_ref())?;
//! let [channels, height, width] = model.image_shape();
//! let images = vec![0; 10 * channels * height * width]; // u8 [10, C, H, W]
//! let output = model.forward(&images)?;
//! let codes = model.codebooks().encode(&output.features)?; // u8 [10, L]
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod ahead;
mod body;
mod checkpoint;
mod codebook;
pub mod config;
mod device;
mod diverged;
mod embeddings;
mod error;
mod inputs;
mod loss;
mod model;
mod network;
mod ops;
mod optim;
mod quantize;
mod report;
mod rng;
mod schedule;
#[cfg(test)]
mod tests;
mod train;
mod train_set;
mod weights;

pub use ahead::read_ahead;
pub use config::TrainConfig;
pub use device::Device;
pub use error::{BoxError, Error};
pub use model::{Model, Output, Snapshot};
pub use report::{CodewordUsage, EpochReport};
pub use train::{OnEpoch, train};
pub use train_set::{Inputs, Read, TrainSet};
pub use weights::{Arrays, Weights};
