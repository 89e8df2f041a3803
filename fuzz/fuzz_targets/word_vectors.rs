//! Any bytes given as word vectors: reading them may fail, never panic.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = dpq_data::parse_word_vectors(bytes, &["a".to_owned(), "B_c/d".to_owned()]);
});
