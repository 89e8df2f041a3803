#![doc = include_str!("../README.md")]

mod atomic;
mod container;
mod error;

pub use atomic::{rename, sync_folder, write_atomic};
pub use container::{Container, Section, to_bytes, write};
pub use crc32c::{crc32c, crc32c_append};
pub use error::Error;
pub use safetensors::Dtype;
