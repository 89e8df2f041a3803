#![doc = include_str!("../README.md")]

mod ahead;
mod attack;
mod body;
mod checkpoint;
mod codebook;
pub mod config;
mod device;
mod diverged;
mod embeddings;
mod error;
mod header;
mod inference;
mod inputs;
mod loss;
mod model;
mod network;
mod objective;
mod ops;
mod optim;
mod pass;
mod quantize;
mod report;
mod rng;
mod schedule;
mod shards;
mod tensors;
#[cfg(test)]
mod tests;
mod train;
mod train_set;
mod weights;

pub use ahead::read_ahead;
pub use attack::{Attack, AttackLoss};
pub use config::TrainConfig;
pub use device::Device;
pub use error::{BoxError, Error};
pub use inference::Output;
pub use model::{Model, Snapshot};
pub use report::{CodewordUsage, EpochReport};
pub use train::{OnEpoch, TrainOptions, train};
pub use train_set::{Inputs, Read, TrainSet};
pub use weights::{Arrays, Weights};
