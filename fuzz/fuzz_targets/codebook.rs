//! Any bytes given as codebooks: opening them, and encoding with what opens, may fail, never panic.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = dpq_file::Container::from_bytes(bytes.to_vec()) else { return };
    let Ok(codebooks) = dpq_codebook::Codebooks::from_container(&file) else { return };
    let codes = codebooks.encode(&vec![1e20; codebooks.dim()]).expect("finite features of the right dimension");
    codebooks.decode(&codes, codebooks.max_length()).expect("codes of these codebooks");
});
