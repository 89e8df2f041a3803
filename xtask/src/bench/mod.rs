//! `cargo xtask bench`: the speed of all crates, or of dpq beside other libraries.

mod against;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use dpq_report::Report;
use dpq_report::benchmarks::{Measured, Time, criterion};
use dpq_report::results::Machine;

use crate::process::{build_bench, cargo, commit, output, remove, run};
pub(crate) use against::Library;

/// The folder of the measurements.
const FOLDER: &str = "target/bench";

/// The benches, and the folder of criterion's measurements.
const BENCHES: [&str; 5] = ["codebook", "index", "live", "network", "query"];
const CRITERION: &str = "target/criterion";

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
    /// Count instructions, too; needs valgrind
    #[arg(long)]
    instructions: bool,
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
    #[arg(conflicts_with_all = ["instructions", "baseline", "gate"])]
    against: Vec<Library>,
    /// Number of single queries in the comparison of search with faiss
    #[arg(long, default_value_t = 30, value_name = "N", requires = "against")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=900))]
    queries: u16,
}

impl Args {
    pub(crate) fn run(self) -> Result<()> {
        if !self.against.is_empty() {
            return against::compare(&self.against, &self.items, self.queries);
        }
        let baseline = self.baseline.as_ref().map(Measured::read).transpose()?;
        let times = times(&self.items)?;
        let instructions = if self.instructions { instructions()? } else { BTreeMap::new() };
        let quick = fs::exists(format!("{QUICK}/results.json"))?.then(|| Report::read(QUICK)).transpose()?;
        let quick = quick.map(|report| report.results);
        let measured = Measured {
            commit: commit(SOURCES),
            cpu: Machine::this().cpu,
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

/// Runs criterion's benches and returns their times by name.
fn times(items: &[u32]) -> Result<BTreeMap<String, Time>> {
    // Removes the measurements of other runs.
    remove(CRITERION)?;
    for bench in BENCHES {
        // Builds the whole workspace, so that dependencies have the same features as in its tests.
        let args = ["bench", "--workspace", "--locked", "--bench", bench, "--", "--noplot"];
        for n_items in if bench == "index" { items } else { &items[..1] } {
            run(cargo(&args).env("DPQ_BENCH_ITEMS", n_items.to_string()))?;
        }
    }
    Ok(criterion(CRITERION)?)
}

/// Counts the instructions of each kernel by callgrind. A busy machine does not change them.
fn instructions() -> Result<BTreeMap<String, u64>> {
    let executable = build_bench("dpq-index", "instructions")?;
    let kernels = output(Command::new(&executable).arg("list"))?;
    let out = "target/callgrind.out";
    let mut counts = BTreeMap::new();
    for kernel in kernels.lines() {
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["--quiet", "--tool=callgrind", "--collect-atstart=no"]);
        valgrind.arg("--toggle-collect=*counted_instructions*");
        valgrind.arg(format!("--callgrind-out-file={out}")).arg(&executable).arg(kernel);
        // With one worker, everything that is counted runs on it.
        output(valgrind.env("RAYON_NUM_THREADS", "1"))
            .context("counting instructions needs valgrind (apt-get install valgrind)")?;
        let text = fs::read_to_string(out).with_context(|| format!("cannot read {out}"))?;
        let count = total(&text).with_context(|| format!("callgrind counted no instructions in {kernel}"))?;
        counts.insert(kernel.to_owned(), count);
    }
    Ok(counts)
}

/// Returns the total number of instructions in a file of callgrind.
fn total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("totals: "))?;
    line.trim().parse().ok().filter(|&count| count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_read() {
        assert_eq!(total("# callgrind format\nevents: Ir\ntotals: 12345\n"), Some(12345));
        assert_eq!([total("totals: 0\n"), total("events: Ir\n")], [None, None]);
    }
}
