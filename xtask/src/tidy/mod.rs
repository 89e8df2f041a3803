//! `cargo xtask tidy`: conventions of this repository that no compiler checks.
//!
//! - `crates`: dependencies between our crates, their number, and their features in each build
//! - `circles`: modules of a crate that use each other
//! - `files`: first line and length of sources, words that they must not contain, broken links
//! - `prose`: width and wording of comments and documents
//!
//! Reports in `docs` must also equal what their JSON files render to.

mod circles;
mod crates;
mod files;
mod prose;

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::process::output;
pub(crate) use files::links;

/// Checks everything and fails with all complaints.
pub(crate) fn run() -> Result<()> {
    let names = output(Command::new("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]))?;
    // Data and files that were removed but not yet committed are skipped.
    let files = names.lines().filter_map(|name| Some((name, fs::read_to_string(name).ok()?)));
    let files: Vec<(&str, String)> = files.collect();
    let root = std::env::current_dir()?;
    let mut complaints = crates::check()?;
    complaints.extend(circles::check(&files));
    for (name, text) in &files {
        let named = |complaint| format!("{name}: {complaint}");
        complaints.extend(files::check(name, text, &root.to_string_lossy()).into_iter().map(named));
        complaints.extend(prose::check(name, text).into_iter().map(named));
    }
    let stale = dpq_report::docs::stale("docs")?.into_iter();
    complaints.extend(stale.map(|path| format!("{}: stale, run `cargo xtask render-docs`", path.display())));
    ensure!(complaints.is_empty(), "the repository is not tidy:\n  {}", complaints.join("\n  "));
    Ok(())
}
