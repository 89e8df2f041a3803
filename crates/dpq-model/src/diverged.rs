//! What a run leaves behind whose numbers are no longer finite.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::Error;
use crate::checkpoint::State;

/// The file, beside the checkpoint.
pub(crate) const DUMP: &str = "diverged.json";

/// Writes down where a run stands, and returns the error that says so: [`Error::Diverged`], or what kept it from
/// writing. `losses` are those of the last step, by name.
pub(crate) fn diverged(
    state: &State,
    (epoch, step): (usize, usize),
    losses: &BTreeMap<&'static str, f64>,
    checkpoint: &Path,
) -> Error {
    let write = || -> Result<Error, Error> {
        let parameter = state.first_not_finite()?;
        let loss = losses.iter().find(|(_, value)| !value.is_finite());
        let (what, value) = match (loss, &parameter) {
            (Some((name, &value)), _) => (format!("loss `{name}`"), value),
            (None, Some((name, value))) => (format!("parameter `{name}`"), f64::from(*value)),
            (None, None) => unreachable!("the caller found one of them"),
        };
        let text = json!({
            "epoch": epoch,
            "step": step,
            "losses": losses.iter().map(|(name, &value)| (*name, number(value))).collect::<BTreeMap<_, _>>(),
            "parameter": parameter.map(|(name, _)| name),
            "checkpoint": checkpoint.exists().then(|| checkpoint.to_string_lossy()),
        });
        let dump = checkpoint.with_file_name(DUMP);
        dpq_file::write_atomic(&dump, |out| writeln!(out, "{text:#}"))?;
        Ok(Error::Diverged { epoch, step, what, value, dump })
    };
    write().unwrap_or_else(|error| error)
}

/// A number of JSON, or the name of what JSON has no number for.
fn number(value: f64) -> Value {
    if value.is_finite() { value.into() } else { value.to_string().into() }
}
