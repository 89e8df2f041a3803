//! Any text given as a list of images: reading it may fail, never panic.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = dpq_data::parse_list(text);
});
