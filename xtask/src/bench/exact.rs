//! Numbers that a busy machine does not move: instructions of the kernels, and what a small reproduction found.
//!
//! Instructions are counted by valgrind's callgrind, called here over a small executable: `gungraun` would bring a
//! dependency, a runner to install in the same version and reports of its own for the same tool.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process::{build_bench, output};

/// Of `cargo xtask reproduce-paper --quick`.
const QUICK: &str = "target/reproduce/fashion-mnist-quick/results.json";

/// Counts the instructions of each kernel of `crates/dpq-index/benches/instructions.rs`.
pub(super) fn instructions() -> Result<BTreeMap<String, u64>> {
    let executable = build_bench("dpq-index", "instructions")?;
    let kernels = output(Command::new(&executable).arg("list"))?;
    let folder = Path::new("target/callgrind");
    fs::create_dir_all(folder)?;
    let mut counts = BTreeMap::new();
    for kernel in kernels.lines() {
        let out = folder.join("out");
        let mut valgrind = Command::new("valgrind");
        valgrind.args([
            "--quiet",
            "--tool=callgrind",
            "--collect-atstart=no",
            "--toggle-collect=*counted_instructions*",
        ]);
        valgrind.arg(format!("--callgrind-out-file={}", out.display())).arg(&executable).arg(kernel);
        // One worker: all that is counted happens on it.
        output(valgrind.env("RAYON_NUM_THREADS", "1"))
            .context("counting instructions needs valgrind (apt-get install valgrind)")?;
        let text = fs::read_to_string(&out).with_context(|| format!("cannot read {}", out.display()))?;
        let count = total(&text).with_context(|| format!("callgrind counted nothing in {kernel}"))?;
        counts.insert(kernel.to_owned(), count);
    }
    Ok(counts)
}

/// The number of instructions that a file of callgrind sums up to.
fn total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("totals: "))?;
    line.trim().parse().ok().filter(|&count| count > 0)
}

/// mAP by length and bytes a vector of the quick reproduction, where one was run.
pub(super) fn quick() -> Result<Option<Quick>> {
    if !fs::exists(QUICK)? {
        return Ok(None);
    }
    let results: Value = serde_json::from_slice(&fs::read(QUICK)?).with_context(|| QUICK.to_owned())?;
    read_quick(&results).map(Some).with_context(|| format!("{QUICK} has no mAP or no bytes_per_item"))
}

/// What a quick reproduction found.
#[derive(Debug, PartialEq)]
pub(super) struct Quick {
    pub(super) map: BTreeMap<u32, f64>,
    pub(super) bytes_per_item: f64,
}

fn read_quick(results: &Value) -> Option<Quick> {
    let map = results["map_all"].as_object()?.iter();
    // A mean and a standard deviation.
    let map =
        map.map(|(bits, value)| Some((bits.parse().ok()?, value[0].as_f64()?))).collect::<Option<_>>()?;
    Some(Quick { map, bytes_per_item: results["bytes_per_item"].as_f64()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_read() {
        assert_eq!(total("# callgrind format\nevents: Ir\ntotals: 12345\n"), Some(12345));
        assert_eq!([total("totals: 0\n"), total("events: Ir\n")], [None, None]);
    }

    #[test]
    fn quick_results_are_read() {
        let results = serde_json::json!({"map_all": {"8": [0.5, 0.0]}, "bytes_per_item": 34.5});
        let expected = Quick { map: [(8, 0.5)].into(), bytes_per_item: 34.5 };
        assert_eq!(read_quick(&results), Some(expected));
        assert_eq!(read_quick(&serde_json::json!({"map_all": {"8": 0.5}, "bytes_per_item": 1})), None);
    }
}
