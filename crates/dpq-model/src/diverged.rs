//! The file that a diverged run leaves.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::Error;
use crate::checkpoint::State;
use crate::report::Tally;

/// The name of the file, which stands beside the checkpoint.
pub(crate) const DUMP: &str = "diverged.json";

/// Writes the state of a diverged run, and returns [`Error::Diverged`], or the error of writing.
/// `losses` has the losses of the last step.
pub(crate) fn diverged(
    state: &State,
    (epoch, step): (usize, usize),
    losses: &Tally,
    checkpoint: &Path,
) -> Error {
    let write = || -> Result<Error, Error> {
        let (parameter, losses) = (state.first_not_finite()?, losses.last());
        let loss = losses.iter().find(|(_, value)| !value.is_finite());
        let (what, value) = match (loss, &parameter) {
            (Some((name, &value)), _) => (format!("loss `{name}`"), value),
            (None, Some((name, value))) => (format!("parameter `{name}`"), f64::from(*value)),
            (None, None) => unreachable!("the caller found a loss or a parameter"),
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

/// Returns a JSON number, or a string for values that JSON has no number for.
fn number(value: f64) -> Value {
    if value.is_finite() { value.into() } else { value.to_string().into() }
}
