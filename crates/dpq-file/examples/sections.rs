//! Lists and verifies the sections of any file of dpq, or of a made-up one:
//!
//! `cargo run -p dpq-file --example sections -- gallery.dpq`

use std::collections::BTreeMap;
use std::path::PathBuf;

use dpq_file::{Container, Dtype, Section};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let path = match std::env::args_os().nth(1) {
        Some(path) => PathBuf::from(path),
        None => {
            let path = folder.path().join("numbers.safetensors");
            let metadata = BTreeMap::from([("format".to_owned(), "numbers".to_owned())]);
            let section = Section { dtype: Dtype::U8, shape: &[2, 2], bytes: &[1, 2, 3, 4] };
            dpq_file::write(&path, &metadata, &[("square", section)])?;
            path
        }
    };
    let file = Container::open(&path)?;
    println!("format {}, {} bytes", file.metadata("format")?, file.bytes().len());
    for name in file.names() {
        let section = file.section(name)?;
        println!("{name}: {:?} {:?}, {} bytes", section.dtype, section.shape, section.bytes.len());
    }
    file.verify()?;
    println!("every byte is as it was written");
    Ok(())
}
