//! Any bytes given as a container: opening and verifying them may fail, never panic.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = dpq_file::Container::from_bytes(bytes.to_vec()) else { return };
    let _ = file.verify();
    for name in file.names() {
        let shape = file.section(name).expect("a name of this file").shape;
        let _ = file.floats(name, shape);
    }
});
