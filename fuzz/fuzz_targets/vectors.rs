//! Any bytes given as vectors or ids, by the first byte .npy, .fvecs, .bvecs or .ivecs: reading may fail, never panic.

#![no_main]

// The command is no library, so its readers are compiled here; writing is not used.
#[allow(dead_code)]
#[path = "../../crates/dpq/src/npy.rs"]
mod npy;
#[allow(dead_code)]
#[path = "../../crates/dpq/src/vectors.rs"]
mod vectors;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let extension = [".npy", ".fvecs", ".bvecs", ".ivecs"][usize::from(kind % 4)];
    let file = tempfile::Builder::new().suffix(extension).tempfile().expect("a temporary file");
    std::fs::write(file.path(), bytes).expect("a temporary file can be written");
    let _ = vectors::read_features(file.path());
    let _ = vectors::read_ids(file.path());
});
