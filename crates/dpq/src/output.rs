//! What commands print: results on stdout, progress on stderr, and what a result always carries.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// A result that `--json` prints as one JSON object and that otherwise prints as the lines of `text`.
pub(crate) fn print(json: bool, result: &impl Serialize, text: &str) -> Result<()> {
    let line = if json { serde_json::to_string(result)? } else { text.trim_end().to_owned() };
    match writeln!(io::stdout().lock(), "{line}") {
        // A reader that has seen enough (`| head`) is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to stdout"),
    }
}

/// A line for people on stderr; a reader that has gone away must not end the work.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Refuses to write a file over what is read, over what is no file, or into a folder that is not there: before the work, not
/// after it.
pub(crate) fn check_out<'a>(out: &Path, inputs: impl IntoIterator<Item = &'a PathBuf>) -> Result<()> {
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    ensure!(
        folder.is_none_or(Path::is_dir),
        "there is no folder for {}, make it or give --out another name",
        out.display()
    );
    ensure!(
        !out.exists() || out.is_file(),
        "{} is there and is no file, give --out another name",
        out.display()
    );
    check_is_no_input(out, inputs)
}

/// Refuses to write over what is read.
pub(crate) fn check_is_no_input<'a>(out: &Path, inputs: impl IntoIterator<Item = &'a PathBuf>) -> Result<()> {
    // A file that does not exist is no input.
    let Ok(out) = out.canonicalize() else { return Ok(()) };
    let same = inputs.into_iter().any(|input| input.canonicalize().is_ok_and(|input| input == out));
    ensure!(!same, "{} is read by this command and would be written over, write elsewhere", out.display());
    Ok(())
}

/// A bar over `n` steps; hidden where stderr is no terminal.
pub(crate) fn progress(n: usize, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:>12} {wide_bar} {pos}/{len} {per_sec} eta {eta}")
        .expect("the template is fixed");
    ProgressBar::with_draw_target(Some(n as u64), ProgressDrawTarget::stderr())
        .with_style(style)
        .with_message(what)
}

/// The same with lines above it that a message changes; it stays when it is done.
pub(crate) fn live(n: usize, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg}\n{wide_bar} {pos}/{len} {prefix} eta {eta}")
        .expect("the template is fixed");
    ProgressBar::with_draw_target(Some(n as u64), ProgressDrawTarget::stderr())
        .with_style(style)
        .with_prefix(what)
}

/// A count of bytes that is not known beforehand; hidden where stderr is no terminal.
pub(crate) fn progress_bytes(what: &'static str) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{msg:>12} {bytes} {bytes_per_sec}").expect("the template is fixed");
    ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style).with_message(what)
}

/// The most memory this process has held, in bytes, where the system tells (Linux).
pub(crate) fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(1024 * line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?)
}

/// Seconds since `start`.
pub(crate) fn seconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64()
}

/// A folder for results. Folders that were made for it go with this value where nothing was written into them.
#[must_use]
pub(crate) struct ResultDir(Vec<PathBuf>);

impl ResultDir {
    /// Makes sure that the folder exists.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
        let made = path.ancestors().take_while(is_missing).map(Path::to_owned).collect();
        std::fs::create_dir_all(path).with_context(|| format!("cannot create folder {}", path.display()))?;
        Ok(Self(made))
    }
}

impl Drop for ResultDir {
    fn drop(&mut self) {
        // Fails, and is to, where something was written.
        self.0.iter().for_each(|folder| _ = std::fs::remove_dir(folder));
    }
}
