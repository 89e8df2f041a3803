//! Any bytes given as a pickle of weights: reading them may fail, never panic.

#![no_main]

// The command is no library, so its reader is compiled here; what others make of an array is not used.
#[allow(dead_code)]
#[path = "../../crates/dpq/src/weights/pickle.rs"]
mod pickle;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = pickle::read(bytes);
});
