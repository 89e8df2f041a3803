//! Wall time by criterion's benches, with confidence intervals.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use dpq_report::benchmarks::Time;
use serde_json::Value;

use crate::process::{cargo, run};

/// The folder of criterion's measurements.
const FOLDER: &str = "target/criterion";

/// Crates and the names of their benches.
pub(super) const BENCHES: [(&str, &str); 4] =
    [("dpq-codebook", "codebook"), ("dpq-index", "index"), ("dpq-model", "network"), ("dpq-eval", "query")];

/// Runs the benches of `crates` (all if empty) whose names contain `filter`, and returns times by
/// name.
pub(super) fn measure(items: &[u32], crates: &[String], filter: &str) -> Result<BTreeMap<String, Time>> {
    // Removes the measurements of other runs.
    if fs::exists(FOLDER)? {
        fs::remove_dir_all(FOLDER).with_context(|| format!("cannot empty {FOLDER}"))?;
    }
    for (package, bench) in
        BENCHES.iter().filter(|(package, _)| crates.is_empty() || crates.iter().any(|name| name == package))
    {
        // Builds the whole workspace, so that dependencies have the same features as in its tests.
        let args = ["bench", "--workspace", "--locked", "--bench", bench, "--", "--noplot", filter];
        if *package == "dpq-index" {
            for n_items in items {
                run(cargo(&args).env("DPQ_BENCH_ITEMS", n_items.to_string()))?;
            }
        } else {
            run(&mut cargo(&args))?;
        }
    }
    let mut times = BTreeMap::new();
    collect(Path::new(FOLDER), &mut times)?;
    Ok(times)
}

/// Adds all measurements in `folder` and below.
fn collect(folder: &Path, times: &mut BTreeMap<String, Time>) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let estimates = folder.join("new/estimates.json");
    if estimates.exists() {
        let read = |path: &Path| -> Result<Value> {
            let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            serde_json::from_slice(&text).with_context(|| path.display().to_string())
        };
        let name = read(&folder.join("new/benchmark.json"))?["full_id"].as_str().map(str::to_owned);
        let name = name.with_context(|| format!("{} has a bench without a name", folder.display()))?;
        let time = time(&read(&estimates)?).with_context(|| format!("{name} has no estimate"))?;
        times.insert(name, time);
        return Ok(());
    }
    let mut entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    entries.sort();
    entries.iter().filter(|path| path.is_dir()).try_for_each(|path| collect(path, times))
}

fn time(estimates: &Value) -> Option<Time> {
    let estimate = Some(&estimates["slope"]).filter(|slope| !slope.is_null()).unwrap_or(&estimates["mean"]);
    let interval = &estimate["confidence_interval"];
    Some(Time {
        ns: estimate["point_estimate"].as_f64()?,
        low: interval["lower_bound"].as_f64()?,
        high: interval["upper_bound"].as_f64()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_found_at_any_depth() {
        let dir = tempfile::tempdir().unwrap();
        let write = |bench: &str, estimates: &str| {
            let folder = dir.path().join(bench).join("new");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("benchmark.json"), format!("{{\"full_id\": \"{bench}\"}}")).unwrap();
            fs::write(folder.join("estimates.json"), estimates).unwrap();
        };
        let estimate = |x: f64| {
            format!(
                "{{\"confidence_interval\": {{\"lower_bound\": {}, \"upper_bound\": {}}}, \"point_estimate\": {x}}}",
                x - 1.0,
                x + 1.0
            )
        };
        write("a/b", &format!("{{\"mean\": {}, \"slope\": {}}}", estimate(5.0), estimate(6.0)));
        write("c", &format!("{{\"mean\": {}, \"slope\": null}}", estimate(7.0)));
        let mut times = BTreeMap::new();
        collect(dir.path(), &mut times).unwrap();
        let time = |ns: f64| Time { ns, low: ns - 1.0, high: ns + 1.0 };
        assert_eq!(times, [("a/b".to_owned(), time(6.0)), ("c".to_owned(), time(7.0))].into());
        write("d", "{}");
        assert!(collect(dir.path(), &mut times).unwrap_err().to_string().contains("d has no estimate"));
    }
}
