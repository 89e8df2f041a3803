//! `cargo xtask bench`: the speed of all crates, or of dpq beside other libraries.
//!
//! - `criterion`: wall time
//! - `exact`: instructions, mAP, bytes a vector
//! - `measured`: both as JSON and as tables, beside a baseline
//! - `against`: other libraries

mod against;
mod criterion;
mod exact;
mod measured;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::{commit, output};
pub(crate) use against::{Library, check_docs, compare, faiss_python, render_docs};
use measured::Measured;

/// Where a run leaves what it measured.
const FOLDER_MEASURED: &str = "target/bench";
/// What decides the numbers.
const SOURCES: &[&str] = &["Cargo.toml", "Cargo.lock", "crates", "xtask"];

/// The crates that have benches.
pub(crate) fn crates() -> Vec<&'static str> {
    criterion::BENCHES.iter().map(|(package, _)| *package).collect()
}

/// What one run measures.
pub(crate) struct Settings {
    /// Items of each index that is benched.
    pub(crate) items: Vec<u32>,
    /// The crates whose benches run; all, if none is named.
    pub(crate) crates: Vec<String>,
    /// Only benches with this in their names.
    pub(crate) filter: String,
    /// Whether instructions are counted, and whether time is taken.
    pub(crate) instructions: bool,
    pub(crate) time: bool,
    /// `bench.json` of an earlier run, and whether to fail where this one is worse.
    pub(crate) baseline: Option<PathBuf>,
    pub(crate) gate: bool,
}

/// Measures all crates and writes `bench.json` and `bench.md`.
pub(crate) fn measure(settings: &Settings) -> Result<()> {
    let baseline = settings.baseline.as_deref().map(read_measured).transpose()?;
    let times = if settings.time {
        criterion::measure(&settings.items, &settings.crates, &settings.filter)?
    } else {
        BTreeMap::new()
    };
    let instructions = if settings.instructions { exact::instructions()? } else { BTreeMap::new() };
    let quick = exact::quick()?;
    let (map, bytes_per_item) =
        quick.map_or((BTreeMap::new(), None), |quick| (quick.map, Some(quick.bytes_per_item)));
    let measured = Measured {
        commit: commit(SOURCES),
        cpu: cpu(),
        kernel: output(Command::new("uname").arg("-r"))?.trim().to_owned(),
        compiler: output(Command::new("rustc").arg("--version"))?.trim().to_owned(),
        times,
        instructions,
        map,
        bytes_per_item,
    };
    let text = measured.markdown(baseline.as_ref());
    fs::create_dir_all(FOLDER_MEASURED)?;
    fs::write(format!("{FOLDER_MEASURED}/bench.json"), serde_json::to_vec_pretty(&measured)?)?;
    fs::write(format!("{FOLDER_MEASURED}/bench.md"), &text)?;
    println!("{text}{FOLDER_MEASURED}/bench.json\n{FOLDER_MEASURED}/bench.md");
    if let Some(baseline) = baseline.filter(|_| settings.gate) {
        let lacks = measured.nothing_to_compare(&baseline);
        ensure!(lacks.is_empty(), "nothing to compare:\n  {}", lacks.join("\n  "));
        let worse = measured.worse_than(&baseline);
        ensure!(worse.is_empty(), "worse than the baseline:\n  {}", worse.join("\n  "));
    }
    Ok(())
}

fn read_measured(path: &Path) -> Result<Measured> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| {
        format!("{} is no bench.json of this program, measure the baseline again", path.display())
    })
}

/// The name of the CPU where the system tells it, else its architecture.
fn cpu() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name =
        info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    name.unwrap_or(std::env::consts::ARCH).to_owned()
}
