//! Deep Progressive Quantization on candle: network, losses, training, checkpoints

pub mod ops;
