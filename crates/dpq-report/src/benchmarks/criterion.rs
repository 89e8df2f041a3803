//! The times that criterion leaves in a folder.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::Time;
use crate::Error;
use crate::files::{list, read};

/// Returns the times in criterion's folder and below it by the names of their benches.
///
/// # Errors
/// [`Error::Io`] and [`Error::Json`] name the file.
pub fn criterion(folder: impl AsRef<Path>) -> Result<BTreeMap<String, Time>, Error> {
    let mut times = BTreeMap::new();
    if folder.as_ref().exists() {
        collect(folder.as_ref(), &mut times)?;
    }
    Ok(times)
}

fn collect(folder: &Path, times: &mut BTreeMap<String, Time>) -> Result<(), Error> {
    let path = folder.join("new/estimates.json");
    if path.exists() {
        let (benchmark, estimates): (Value, Value) =
            (read(&folder.join("new/benchmark.json"))?, read(&path)?);
        // The slope is null if all samples have one length.
        let estimate = if estimates["slope"].is_null() { &estimates["mean"] } else { &estimates["slope"] };
        let interval = &estimate["confidence_interval"];
        let values = [&estimate["point_estimate"], &interval["lower_bound"], &interval["upper_bound"]];
        let number =
            |value| f64::deserialize(value).map_err(|source| Error::Json { path: path.clone(), source });
        let [ns, low, high] = values.map(number);
        let name = benchmark["full_id"].as_str().unwrap_or_default().to_owned();
        times.insert(name, Time { ns: ns?, low: low?, high: high? });
        return Ok(());
    }
    list(folder)?.iter().filter(|path| path.is_dir()).try_for_each(|path| collect(path, times))
}

#[cfg(test)]
mod tests {
    use std::fs;

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
            let interval = format!("{{\"lower_bound\": {}, \"upper_bound\": {}}}", x - 1.0, x + 1.0);
            format!("{{\"confidence_interval\": {interval}, \"point_estimate\": {x}}}")
        };
        write("a/b", &format!("{{\"mean\": {}, \"slope\": {}}}", estimate(5.0), estimate(6.0)));
        write("c", &format!("{{\"mean\": {}, \"slope\": null}}", estimate(7.0)));
        let time = |ns: f64| Time { ns, low: ns - 1.0, high: ns + 1.0 };
        let times = criterion(dir.path()).unwrap();
        assert_eq!(times, [("a/b".to_owned(), time(6.0)), ("c".to_owned(), time(7.0))].into());
        assert!(criterion(dir.path().join("nothing")).unwrap().is_empty());
        write("d", "{}");
        assert!(criterion(dir.path()).unwrap_err().to_string().contains("d/new/estimates.json"));
    }
}
