//! Prints the accuracies of two reports side by side: cargo run -p dpq-report --example compare --
//! docs/results/fashion-mnist-best docs/results/fashion-mnist-paper

use dpq_report::Report;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let results = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/results");
    let ours = ["best", "paper"].map(|preset| format!("{results}/fashion-mnist-{preset}"));
    let mut folders: Vec<String> = std::env::args().skip(1).collect();
    if folders.is_empty() {
        folders.extend(ours);
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
