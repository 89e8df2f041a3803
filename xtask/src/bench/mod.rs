//! `cargo xtask bench`: the speed of `dpq-index`, alone or against another library.
//!
//! - `results`: what the comparison measured, as its script prints it
//! - `report`: docs/benchmarks.md, from that and nothing else

mod report;
mod results;

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{build_bench, cargo, commit, output, python, run};
use results::Results;

/// What a comparison is with.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Library {
    /// faiss-cpu, from PyPI
    Faiss,
}

/// The script that compares, and what it needs.
const FOLDER: &str = "crates/dpq-index/benches/faiss";
pub(crate) const REQUIREMENTS: &str = "crates/dpq-index/benches/faiss/requirements.txt";
pub(crate) const ENVIRONMENT: &str = "target/bench-venv";
const REPORT: &str = "docs/benchmarks.md";

/// Runs criterion's benches, which print what they measure.
pub(crate) fn criterion(items: &[u32]) -> Result<()> {
    for n_items in items {
        let args = ["bench", "--locked", "--package", "dpq-index", "--bench", "index"];
        run(cargo(&args).env("DPQ_BENCH_ITEMS", n_items.to_string()))?;
    }
    Ok(())
}

/// Compares with faiss and writes the report.
pub(crate) fn faiss(items: &[u32], queries: u16) -> Result<()> {
    let python = python(ENVIRONMENT, REQUIREMENTS)?;
    let peer = build_bench("dpq-index", "peer")?;
    let mut script = Command::new(python);
    script.arg(format!("{FOLDER}/compare.py")).arg(peer).arg(queries.to_string());
    script.args(items.iter().map(u32::to_string));
    let json = output(&mut script)?;
    let results: Results =
        serde_json::from_str(&json).context("compare.py printed something else than results")?;

    let items: Vec<String> = items.iter().map(u32::to_string).collect();
    let command =
        format!("cargo xtask bench --against faiss --items {} --queries {queries}", items.join(","));
    let commit = commit(&["Cargo.toml", "Cargo.lock", "crates", "xtask"]);
    let compiler = output(Command::new("rustc").arg("--version"))?;
    let report = report::markdown(&results, &command, &commit, compiler.trim());
    fs::write(REPORT, report).with_context(|| format!("cannot write {REPORT}"))?;
    println!("{REPORT}");
    Ok(())
}
