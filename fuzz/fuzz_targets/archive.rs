//! Any bytes given as an archive of images: opening it and reading an image may fail, never panic.

#![no_main]

use dpq_data::{Dataset, ImageShape};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    std::fs::write(file.path(), bytes).expect("a temporary file can be written");
    let shape = ImageShape { channels: 1, height: 2, width: 2 };
    if let Ok(dataset) = Dataset::from_folder(file.path(), shape) {
        let _ = dataset.read(0, &mut [0; 4]);
    }
});
