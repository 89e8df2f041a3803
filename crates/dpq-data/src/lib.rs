//! Image data sets, splits and augmentation for dpq.
//!
//! A [`Dataset`] is images and their classes: a folder with a `dataset.toml` (see `datasets/fashion-mnist`), a folder of
//! images, or a list file. Images are u8, channel-major `[C, H, W]`. This crate knows nothing of models or codes.
//!
//! ```
//! use dpq_data::{Augment, Dataset, ImageShape};
//!
//! let dir = tempfile::tempdir()?;
//! for class in ["cat", "dog"] {
//!     std::fs::create_dir(dir.path().join(class))?;
//!     image::GrayImage::new(40, 30).save(dir.path().join(class).join("1.png"))?;
//! }
//! let shape = ImageShape { channels: 1, height: 28, width: 28 };
//! let dataset = Dataset::from_folder(dir.path(), shape)?;
//! assert_eq!(dataset.class_names(), ["cat", "dog"]);
//!
//! let mut image = vec![0; shape.len()];
//! dataset.read(1, &mut image)?;
//! let augment = Augment { padding: 2, mirror: true, cutout: 8, cutout_probability: 0.5 };
//! augment.apply(shape, &mut image, 7); // the same for the same seed
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod augment;
mod cifar;
mod collage;
mod dataset;
mod error;
mod folder;
mod idx;
mod image_file;
mod labels;
mod list;
mod manifest;
mod source;
mod split;
mod word_vectors;

pub use augment::Augment;
pub use cifar::parse_cifar;
pub use dataset::Dataset;
pub use error::Error;
pub use idx::parse_idx;
pub use image_file::{ImageShape, encode_png, read_image};
pub use list::parse_list;
pub use source::{Source, SourceFile, sha256};
pub use split::{Protocol, Split, hold_out};
pub use word_vectors::parse_word_vectors;
