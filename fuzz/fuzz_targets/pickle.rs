//! Reads any bytes as a pickle of weights behind a header of NumPy: reading may fail, never panic.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = dpq_formats::parse_dictionary(&[b"\x93NUMPY\x01\x00\x00\x00", bytes].concat());
});
