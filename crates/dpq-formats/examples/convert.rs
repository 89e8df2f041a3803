//! Converts features in .fvecs, .bvecs or .safetensors to .npy:
//!
//! `cargo run -p dpq-formats --example convert -- base.fvecs base.npy`

use std::path::PathBuf;

use dpq_formats::{npy, read_features};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let mut names = std::env::args_os().skip(1).map(PathBuf::from);
    let (from, to) = match (names.next(), names.next()) {
        (Some(from), Some(to)) => (from, to),
        // Without names, two vectors of three numbers.
        _ => {
            let from = folder.path().join("two.fvecs");
            let row = |row: [f32; 3]| [&3u32.to_le_bytes()[..], &row.map(f32::to_le_bytes).concat()].concat();
            std::fs::write(&from, [row([0.0, 1.0, 2.0]), row([3.0, 4.0, 5.0])].concat())?;
            (from.clone(), from.with_extension("npy"))
        }
    };
    let features = read_features(&from)?;
    npy::write(&to, &[features.rows, features.columns], &features.values)?;
    println!("{} vectors of {} numbers in {}", features.rows, features.columns, to.display());
    Ok(())
}
