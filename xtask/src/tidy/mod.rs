//! `cargo xtask tidy`: conventions of this repository that no compiler checks.
//!
//! - `crates`: who may depend on whom, and how much a library pulls in
//! - `files`: how source files begin and end, what they must not hold, links that lead somewhere
//!
//! And the report in `docs` is what its JSON file renders to.

mod crates;
mod files;

use std::path::Path;

use anyhow::{Result, ensure};

use crate::reproduce;

/// Checks everything and fails with all that is wrong.
pub(crate) fn run() -> Result<()> {
    let complaints = [crates::check()?, files::check()?, reproduce::check_docs(Path::new("docs"))?].concat();
    ensure!(complaints.is_empty(), "the repository is not tidy:\n  {}", complaints.join("\n  "));
    Ok(())
}
