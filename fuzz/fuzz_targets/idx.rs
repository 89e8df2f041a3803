//! Any bytes given as an IDX file: reading them may fail, never panic.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = dpq_data::parse_idx(bytes);
});
