#![doc = include_str!("../README.md")]

mod archive;
mod augment;
mod cifar;
mod collage;
mod dataset;
mod error;
mod files;
mod folder;
mod idx;
mod image_file;
mod jpeg;
mod labels;
mod list;
mod manifest;
mod open;
mod pixels;
mod source;
mod split;
mod thumbnail;
mod view;
mod word_vectors;

pub use augment::Augment;
pub use cifar::parse_cifar;
pub use dataset::Dataset;
pub use error::Error;
pub use files::{SourceFile, sha256};
pub use idx::parse_idx;
pub use image_file::{ImageShape, encode_png, read_image, read_image_bytes};
pub use list::{ListLine, parse_list};
pub use source::Source;
pub use split::{Protocol, Split, hold_out};
pub use thumbnail::Thumbnail;
pub use view::View;
pub use word_vectors::parse_word_vectors;
