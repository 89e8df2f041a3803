//! Reads any bytes as a faiss index: reading may fail, never panic.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = dpq_formats::FaissIndex::parse(bytes, bytes.len() as u64);
});
