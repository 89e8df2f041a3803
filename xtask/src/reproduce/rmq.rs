//! `--system rmq`: prices on optimal grids, as the examples of `dpq-rmq` measure them.

use std::path::Path;

use anyhow::{Context, Result};
use dpq_report::grids::{Grids, NAME};
use dpq_report::results::Machine;
use serde::de::DeserializeOwned;

use super::FOLDER;
use crate::process::{cargo, commit, output};

/// Runs the examples and writes the report, with `write_docs` to `docs` as well.
pub(super) fn run(quick: bool, write_docs: bool) -> Result<()> {
    let grids = Grids {
        commit: commit(&["Cargo.toml", "Cargo.lock", "crates/dpq-rmq"]),
        machine: Machine::this(),
        gbm: example("gbm", quick)?,
        heston: example("heston", quick)?,
    };
    let files = grids.write(Path::new(FOLDER).join(NAME))?;
    files.iter().for_each(|file| println!("{}", file.display()));
    if write_docs {
        grids.write(Path::new("docs/results").join(NAME))?;
        dpq_report::docs::render("docs")?;
    }
    Ok(())
}

fn example<T: DeserializeOwned>(name: &str, quick: bool) -> Result<T> {
    let args = ["run", "--release", "--quiet", "--package=dpq-rmq", "--example", name, "--", "--json"];
    let text = output(cargo(&args).args(quick.then_some("--quick")))?;
    serde_json::from_str(&text).with_context(|| format!("cannot read the results of the example {name}"))
}
