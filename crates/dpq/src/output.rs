//! Output of the commands: results on stdout, progress on stderr, checks of the files to write.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use signal_hook::consts::SIGINT;
use signal_hook::flag;

/// Prints a result on stdout: as one JSON object with `--json`, else as the lines of `text`.
pub(crate) fn print(json: bool, result: &impl Serialize, text: &str) -> Result<()> {
    let line = if json { serde_json::to_string(result)? } else { text.trim_end().to_owned() };
    match writeln!(io::stdout().lock(), "{line}") {
        // A reader that closes the pipe (`| head`) is not a failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to stdout"),
    }
}

/// Prints a line on stderr. A closed stderr does not end the work.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Refuses to overwrite an input or anything but a file, and to write into a folder that does not
/// exist. Called before the work, not after it.
pub(crate) fn check_out<'a>(out: &Path, inputs: impl IntoIterator<Item = &'a PathBuf>) -> Result<()> {
    let (folder, file) = (out.parent().filter(|folder| !folder.as_os_str().is_empty()), out.display());
    ensure!(
        folder.is_none_or(Path::is_dir),
        "there is no folder for {file}, create it or give --out another name"
    );
    ensure!(!out.exists() || out.is_file(), "{file} exists and is not a file, give --out another name");
    check_is_no_input(out, inputs)
}

pub(crate) fn check_is_no_input<'a>(out: &Path, inputs: impl IntoIterator<Item = &'a PathBuf>) -> Result<()> {
    // A file that does not exist is not an input.
    let Ok(out) = out.canonicalize() else { return Ok(()) };
    let same = inputs.into_iter().any(|input| input.canonicalize().is_ok_and(|input| input == out));
    ensure!(!same, "{} is an input of this command and would be overwritten, write elsewhere", out.display());
    Ok(())
}

/// Returns a progress bar over `n` steps; hidden unless stderr is a terminal, like those below.
pub(crate) fn progress(n: usize, what: &'static str) -> ProgressBar {
    bar(Some(n), "{msg:>12} {wide_bar} {pos}/{len} {per_sec} eta {eta}").with_message(what)
}

/// Returns a progress bar below lines of text, which its message replaces. It stays on the terminal
/// when it is done.
pub(crate) fn live(n: usize, what: &'static str) -> ProgressBar {
    bar(Some(n), "{msg}\n{wide_bar} {pos}/{len} {prefix} eta {eta}").with_prefix(what)
}

/// Returns a counter of items whose total is unknown.
pub(crate) fn counter(what: &'static str) -> ProgressBar {
    bar(None, "{msg:>12} {pos} {per_sec}").with_message(what)
}

/// Returns a counter of bytes whose total is unknown.
pub(crate) fn progress_bytes(what: &'static str) -> ProgressBar {
    bar(None, "{msg:>12} {bytes} {bytes_per_sec}").with_message(what)
}

fn bar(n: Option<usize>, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).expect("the template is fixed");
    ProgressBar::with_draw_target(n.map(|n| n as u64), ProgressDrawTarget::stderr()).with_style(style)
}

/// Returns a flag that Ctrl-C sets. The second Ctrl-C ends the program at once.
pub(crate) fn stop_flag() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    flag::register_conditional_shutdown(SIGINT, 130, Arc::clone(&stop)).context("cannot handle Ctrl-C")?;
    flag::register(SIGINT, Arc::clone(&stop)).context("cannot handle Ctrl-C")?;
    Ok(stop)
}

/// Returns the peak resident memory of this process in bytes, on Linux.
pub(crate) fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(1024 * line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?)
}

pub(crate) fn seconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64()
}

/// A folder for results. Dropping this value removes the folders that it created and that are
/// empty.
#[must_use]
pub(crate) struct ResultDir(Vec<PathBuf>);

impl ResultDir {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
        let created = path.ancestors().take_while(is_missing).map(Path::to_owned).collect();
        std::fs::create_dir_all(path).with_context(|| format!("cannot create folder {}", path.display()))?;
        Ok(Self(created))
    }
}

impl Drop for ResultDir {
    fn drop(&mut self) {
        // Fails for a folder with files in it, which stays.
        self.0.iter().for_each(|folder| _ = std::fs::remove_dir(folder));
    }
}
