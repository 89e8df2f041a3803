//! Instructions of the kernels, which do not depend on the load of the machine.
//!
//! valgrind's callgrind counts them in a small executable. `gungraun` would add a dependency, a
//! runner of the same version to install, and reports of its own for the same tool.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{build_bench, output};

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
        // With one worker, everything that is counted runs on it.
        output(valgrind.env("RAYON_NUM_THREADS", "1"))
            .context("counting instructions needs valgrind (apt-get install valgrind)")?;
        let text = fs::read_to_string(&out).with_context(|| format!("cannot read {}", out.display()))?;
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
