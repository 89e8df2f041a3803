//! NumPy arrays as files.

use std::fs;
use std::path::Path;

/// Writes an array of little-endian `values`; `dtype` and `shape` as NumPy writes them, `<i8` and
/// `(3, 1)`.
pub(crate) fn write_array(path: &Path, dtype: &str, shape: &str, values: &[u8]) {
    let header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}");
    let header = format!("{header:<117}\n");
    fs::write(path, [b"\x93NUMPY\x01\0v\0", header.as_bytes(), values].concat()).unwrap();
}
