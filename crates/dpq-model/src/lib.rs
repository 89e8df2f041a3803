//! Deep Progressive Quantization on candle: network, losses, training, checkpoints

pub mod embeddings;
pub mod loss;
pub mod ops;
pub mod quantize;
