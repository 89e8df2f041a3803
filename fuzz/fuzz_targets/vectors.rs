//! Reads any bytes as vectors and ids: reading may fail, never panic. The first byte chooses the
//! format.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((format, bytes)) = bytes.split_first() else { return };
    let extension = [".npy", ".fvecs", ".bvecs", ".ivecs", ".safetensors"][usize::from(format % 5)];
    let file = tempfile::Builder::new().suffix(extension).tempfile().expect("a temporary file");
    std::fs::write(file.path(), bytes).expect("a temporary file can be written");
    let _ = dpq_formats::read_features(file.path());
    let _ = dpq_formats::read_ids(file.path());
});
