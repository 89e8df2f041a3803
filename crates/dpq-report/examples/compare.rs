//! Prints the accuracies of reports below each other, or of two made-up ones:
//!
//! `cargo run -p dpq-report --example compare -- FOLDER FOLDER`

use std::fs;
use std::path::PathBuf;

use dpq_report::Report;

const MADE_UP: [(&str, &str); 2] = [
    ("one", include_str!("../src/test_data/one-seed.json")),
    ("three", include_str!("../src/test_data/three-seeds.json")),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let made_up = tempfile::tempdir()?;
    let mut folders: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if folders.is_empty() {
        for (name, results) in MADE_UP {
            let folder = made_up.path().join(name);
            fs::create_dir(&folder)?;
            fs::write(folder.join("results.json"), results)?;
            folders.push(folder);
        }
    }
    for folder in folders {
        let report = Report::read(&folder)?;
        println!("{}, preset {}", report.results.about.dataset, report.results.about.preset);
        for (bits, [mean, deviation]) in &report.results.map_all {
            println!("{bits:>4} bits: mAP@all {mean:.4} ± {deviation:.4}");
        }
    }
    Ok(())
}
