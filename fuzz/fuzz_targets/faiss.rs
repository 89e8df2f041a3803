//! Any bytes given as an index of faiss: reading them may fail, never panic.

#![no_main]

// The command is no library, so its reader is compiled here; writing is not used.
#[allow(dead_code)]
#[path = "../../crates/dpq/src/faiss.rs"]
mod faiss;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = faiss::parse(bytes, bytes.len() as u64);
});
