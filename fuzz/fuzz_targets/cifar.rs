//! Any bytes given as an archive of CIFAR: reading it may fail, never panic.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = dpq_data::parse_cifar(bytes, &["data_batch_1.bin"], 1);
});
