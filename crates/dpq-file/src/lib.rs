//! The one container of dpq: safetensors files that are read or memory-mapped, checked and written atomically.
//!
//! A [`Container`] is a safetensors file whose header has been checked against the size of the file: every section lies
//! inside it, without gaps or overlaps. This crate knows nothing of what sections mean. Files that [`write()`] makes have
//! sorted keys, so equal contents are equal bytes, and a CRC32C for each section under the metadata key `crc.<section>`.
//!
//! ```
//! use std::collections::BTreeMap;
//! use dpq_file::{Container, Dtype, Section};
//!
//! let dir = tempfile::tempdir()?;
//! let path = dir.path().join("numbers.safetensors");
//! let metadata = BTreeMap::from([("format".to_owned(), "numbers".to_owned())]);
//! dpq_file::write(&path, &metadata, &[("bytes", Section { dtype: Dtype::U8, shape: &[3], bytes: &[1, 2, 3] })])?;
//!
//! let file = Container::open(&path)?;
//! file.verify()?;
//! assert_eq!(file.metadata("format")?, "numbers");
//! assert_eq!(file.section("bytes")?.bytes, [1, 2, 3]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod atomic;
mod container;
mod error;
mod header;
mod section;

pub use atomic::{rename, write_atomic};
pub use container::{Container, to_bytes, write};
pub use error::Error;
pub use safetensors::Dtype;
pub use section::Section;

/// The CRC32C (Castagnoli) of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// The CRC32C of what `crc` was computed over, followed by `bytes`.
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, bytes)
}
