//! `cargo xtask tidy`: conventions of this repository that no compiler checks.
//!
//! - `crates`: who may depend on whom, and how much a library pulls in
//! - `files`: how source files begin and end, what they must not hold, links that lead somewhere
//!
//! And reports in `docs` are what their JSON files render to.

mod crates;
mod files;

use std::path::Path;

use anyhow::{Result, ensure};

use crate::{bench, reproduce};

/// Checks everything and fails with all that is wrong.
pub(crate) fn run() -> Result<()> {
    let docs = [reproduce::check_docs(Path::new("docs"))?, bench::check_docs()?].concat();
    let complaints = [crates::check()?, files::check()?, docs].concat();
    ensure!(complaints.is_empty(), "the repository is not tidy:\n  {}", complaints.join("\n  "));
    Ok(())
}
