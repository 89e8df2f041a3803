//! `cargo xtask bench`: the speed of all crates, or of dpq beside other libraries.
//!
//! - `criterion`: wall time
//! - `exact`: instructions
//! - `against`: other libraries

mod against;
mod criterion;
mod exact;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use dpq_report::Report;
use dpq_report::benchmarks::Measured;

use crate::process::{commit, output};
pub(crate) use against::{Library, faiss_python};

/// The folder of the measurements.
const FOLDER: &str = "target/bench";

/// The report of `cargo xtask reproduce-paper --quick`.
const QUICK: &str = "target/reproduce/fashion-mnist-quick";

/// The files that decide the numbers.
const SOURCES: &[&str] = &["Cargo.toml", "Cargo.lock", "crates", "xtask"];

/// Measure all crates, or compare with other libraries
///
/// Writes `bench.json` and `bench.md` into `target/bench/`: times of criterion's benches with
/// confidence intervals, instructions of the kernels, and mAP and bytes per vector if
/// `reproduce-paper --quick` was run. Codes, codebooks and queries are made once and kept under
/// `target/bench-data/`. Comparisons write docs/benchmarks.md and docs/codes.md and need an idle
/// machine.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Items of an index, or several numbers separated by commas
    #[arg(long, default_value = "1000000", value_name = "N", value_delimiter = ',')]
    items: Vec<u32>,
    /// Run only the benches of this crate; may be repeated
    #[arg(long = "crate", value_name = "NAME")]
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(criterion::BENCHES.map(|(package, _)| package)))]
    crates: Vec<String>,
    /// Run only benches with this text in their names
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    filter: String,
    /// Count instructions, too; needs valgrind
    #[arg(long)]
    instructions: bool,
    /// Do not measure times
    #[arg(long)]
    no_time: bool,
    /// Show changes since the bench.json of an earlier run
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Fail if instructions (by 5 %), bytes per vector (by 1 %) or mAP (by 0.005) are worse than
    /// the baseline, or are missing on either side
    #[arg(long, requires = "baseline")]
    gate: bool,
    /// Compare with these libraries, separated by commas; on Linux, needs python3 and once the
    /// network
    #[arg(long, value_name = "LIBRARY", value_delimiter = ',')]
    #[arg(conflicts_with_all = ["crates", "filter", "instructions", "no_time", "baseline", "gate"])]
    against: Vec<Library>,
    /// Number of single queries in the comparison of search with faiss
    #[arg(long, default_value_t = 30, value_name = "N", requires = "against")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=900))]
    queries: u16,
}

impl Args {
    pub(crate) fn run(self) -> Result<()> {
        match self.against[..] {
            [] => self.measure(),
            _ => against::compare(&self.against, &self.items, self.queries),
        }
    }

    fn measure(self) -> Result<()> {
        let baseline = self.baseline.as_deref().map(read_measured).transpose()?;
        let times = match self.no_time {
            false => criterion::measure(&self.items, &self.crates, &self.filter)?,
            true => BTreeMap::new(),
        };
        let instructions = if self.instructions { exact::instructions()? } else { BTreeMap::new() };
        let quick = fs::exists(format!("{QUICK}/results.json"))?
            .then(|| Report::read(QUICK))
            .transpose()?
            .map(|report| report.results);
        let measured = Measured {
            commit: commit(SOURCES),
            cpu: cpu(),
            kernel: output(Command::new("uname").arg("-r"))?.trim().to_owned(),
            compiler: output(Command::new("rustc").arg("--version"))?.trim().to_owned(),
            times,
            instructions,
            map: quick.iter().flat_map(|quick| &quick.map_all).map(|(&bits, map)| (bits, map[0])).collect(),
            bytes_per_item: quick.as_ref().map(|quick| quick.bytes_per_item),
        };
        let text = measured.markdown(baseline.as_ref());
        fs::create_dir_all(FOLDER)?;
        fs::write(format!("{FOLDER}/bench.json"), serde_json::to_vec_pretty(&measured)?)?;
        fs::write(format!("{FOLDER}/bench.md"), &text)?;
        println!("{text}{FOLDER}/bench.json\n{FOLDER}/bench.md");
        if let Some(baseline) = baseline.filter(|_| self.gate) {
            let missing = measured.missing(&baseline);
            ensure!(missing.is_empty(), "nothing to compare:\n  {}", missing.join("\n  "));
            let worse = measured.worse_than(&baseline);
            ensure!(worse.is_empty(), "worse than the baseline:\n  {}", worse.join("\n  "));
        }
        Ok(())
    }
}

fn read_measured(path: &Path) -> Result<Measured> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| {
        format!("{} is not a bench.json of this program, measure the baseline again", path.display())
    })
}

/// Returns the name of the CPU where the system tells it, or its architecture.
fn cpu() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name =
        info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    name.unwrap_or(std::env::consts::ARCH).to_owned()
}
