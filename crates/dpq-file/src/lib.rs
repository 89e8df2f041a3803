#![doc = include_str!("../README.md")]

mod atomic;
mod container;
mod error;
mod header;

pub use atomic::{rename, write_atomic};
pub use container::{Container, Section, to_bytes, write};
pub use error::{Error, Malformed};
pub use safetensors::Dtype;

/// Returns the CRC32C (Castagnoli) of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// Returns the CRC32C of the bytes that gave `crc`, followed by `bytes`.
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, bytes)
}
