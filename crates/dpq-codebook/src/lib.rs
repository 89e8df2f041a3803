//! Codebooks of Deep Progressive Quantization: encode, decode, lookup tables, residual k-means.
//!
//! A feature x in R^D is approximated step by step: level l adds the codeword of its codebook that fits best what the
//! levels before it left over. An item's code is one byte a level, and its first l bytes are the complete code of 8·l
//! bits. This crate takes and returns plain slices; it knows nothing of images, networks or indexes.
//!
//! Layouts, all row-major: features f32 [N, D], codes u8 [N, L], codebooks f32 [L, K, D], lookup tables f32 [L, K].
//!
//! ```
//! use dpq_codebook::{CodeLength, ResidualKMeans};
//!
//! let dim = 2;
//! let features: Vec<f32> = (0..200).map(|i| ((i * 37) % 101) as f32 / 101.0).collect();
//! let config = ResidualKMeans { n_levels: 3, n_codewords: 8, n_iterations: 25 };
//! let codebooks = config.train(&features, dim, &mut |_, _| {})?;
//!
//! let codes = codebooks.encode(&features)?; // [100, 3]: the first byte of a row is a code, so are the first two
//! let near = codebooks.decode(&codes, CodeLength::from_bits(24)?)?;
//! let far = codebooks.decode(&codes, CodeLength::from_bits(8)?)?;
//! let error = |x: &[f32]| x.iter().zip(&features).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
//! assert!(error(&near) < error(&far));
//! # Ok::<(), dpq_codebook::Error>(())
//! ```

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
mod products;
mod refine;
mod rounded;
mod table;
mod vectorize;

pub use beam::Beam;
pub use codebooks::{Assignment, Codebooks};
pub use distortion::{LevelUsage, usage};
pub use error::Error;
pub use kmeans::ResidualKMeans;
pub use length::CodeLength;
pub use table::LookupTable;
