//! `dpq data get`: downloads the files that `dataset.toml` names.

use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use dpq_data::{Source, SourceFile, sha256};
use serde::Serialize;

use crate::output;

/// Download the files of a data set
///
/// Downloads each file that has a URL in dataset.toml and compares it with the checksum there. Only
/// http and https URLs are accepted. The system's curl does the transfer. An interrupted download
/// resumes if the file has a checksum. Files that are already present are checked and kept. For
/// files and images that have no URL, the command prints the instructions of dataset.toml.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  dpq data get datasets/cifar-10")]
pub(crate) struct Args {
    /// Data set folder
    dir: PathBuf,
}

#[derive(Serialize)]
struct Report {
    name: String,
    instructions: Option<String>,
    files: Vec<FileReport>,
}

#[derive(Serialize)]
struct FileReport {
    path: PathBuf,
    downloaded: bool,
    sha256: String,
    /// True if dataset.toml has a checksum for the file.
    checked: bool,
}

impl Args {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        let source = Source::open(&self.dir)?;
        let missing: Vec<_> = source.files.iter().filter(|file| !file.path.exists()).collect();
        if let Some(file) = missing.iter().find(|file| file.url.is_none()) {
            match &source.instructions {
                Some(instructions) => bail!("{} cannot be downloaded: {instructions}", source.name),
                None => bail!(
                    "{} is missing and dataset.toml has no url for it, get it from the source",
                    file.path.display()
                ),
            }
        }
        if !missing.is_empty() {
            let stated = |text: &Option<String>| text.clone().unwrap_or_else(|| "not stated".to_owned());
            output::note(&format!("{}, source: {}", source.name, stated(&source.origin)));
            output::note(&format!("licence: {}", stated(&source.licence)));
        }
        let files = source.files.iter().map(|file| get(&self.dir, file)).collect::<Result<Vec<_>>>()?;
        if let Some(folder) = source.images.as_ref().filter(|folder| is_empty(folder)) {
            let instructions = source.instructions.as_deref().unwrap_or("get them from the source");
            bail!("{} has no images and they cannot be downloaded: {instructions}", folder.display());
        }
        let report = Report { name: source.name, instructions: source.instructions, files };
        output::print(json, &report, &report.text())
    }
}

impl Report {
    fn text(&self) -> String {
        if self.files.is_empty() {
            let instructions = self.instructions.iter().map(|text| format!(": {text}"));
            return format!("{} names no file to download{}", self.name, instructions.collect::<String>());
        }
        let line = |file: &FileReport| {
            let state = match (file.downloaded, file.checked) {
                (true, true) => "downloaded, checksum matches",
                (true, false) => "downloaded, dataset.toml has no checksum for it",
                (false, true) => "already present, checksum matches",
                (false, false) => "already present, dataset.toml has no checksum for it",
            };
            format!("{}: {state}, sha256 {}", file.path.display(), file.sha256)
        };
        self.files.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

fn get(dir: &Path, file: &SourceFile) -> Result<FileReport> {
    let path = &file.path;
    let report = |bytes: &[u8], downloaded| FileReport {
        path: path.clone(),
        downloaded,
        sha256: sha256(bytes),
        checked: file.has_checksum(),
    };
    if path.exists() {
        let bytes = file.read()?;
        file.check(&bytes).context("an existing file is not replaced, move it away first")?;
        return Ok(report(&bytes, false));
    }
    let url = file.url.as_ref().context("a missing file has a url")?;
    check_url(url)?;
    check_inside(dir, path)?;
    let _dir = path.parent().map(output::ResultDir::create).transpose()?;
    let partial = path.with_added_extension("partial");
    // curl would write through a link, and block on a pipe.
    let is_usable = match fs::symlink_metadata(&partial) {
        Ok(metadata) => metadata.is_file(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    ensure!(is_usable, "{} is not a regular file, remove it", partial.display());
    let sum = match (&file.sha256, &file.md5) {
        (Some(sha256), _) => format!("sha256 {sha256}"),
        (None, Some(md5)) => format!("md5 {md5}"),
        (None, None) => "no checksum stated".to_owned(),
    };
    if !file.has_checksum() && partial.exists() {
        output::note("the partial download has no checksum to verify it by, starting again");
        remove(&partial)?;
    }
    output::note(&format!("downloading {url} ({sum})"));
    if !download(url, &partial)? {
        output::note("the server cannot resume the download, starting again");
        remove(&partial)?;
        ensure!(download(url, &partial)?, "cannot download {url}: the server refuses to start again");
    }
    let bytes = SourceFile { path: partial.clone(), ..file.clone() }.read()?;
    if let Err(error) = file.check(&bytes) {
        // A resumed download would keep the wrong first part, so the file is not kept.
        remove(&partial)?;
        return Err(error).context("the download does not match dataset.toml and was removed");
    }
    dpq_file::rename(&partial, path)?;
    Ok(report(&bytes, true))
}

/// Refuses URLs other than plain http and https ones: a `dataset.toml` may come from anybody, and
/// curl reads local files (`file:`) and speaks to mail and file servers too.
fn check_url(url: &str) -> Result<()> {
    let lower = url.to_ascii_lowercase();
    let address = ["http://", "https://"].iter().find_map(|scheme| lower.strip_prefix(scheme));
    let host = address.and_then(|address| address.split(['/', '?', '#']).next());
    ensure!(
        host.is_some_and(|host| !host.is_empty() && !host.contains(['@', '\\']))
            && url.chars().all(|c| c.is_ascii_graphic()),
        "the url {url:?} of dataset.toml is not accepted, expected http:// or https:// and a host, without a user name, \
         spaces or control characters"
    );
    Ok(())
}

/// Refuses paths outside of the data set's folder, links followed: a `dataset.toml` from elsewhere
/// must not choose where files are written.
fn check_inside(dir: &Path, path: &Path) -> Result<()> {
    let is_below = path
        .strip_prefix(dir)
        .is_ok_and(|path| path.components().all(|part| matches!(part, Component::Normal(_))));
    let existing = path.ancestors().skip(1).find_map(|folder| folder.canonicalize().ok());
    // The folder itself may be given as an empty path.
    let dir = dir.join(".").canonicalize().with_context(|| format!("cannot open {}", dir.display()))?;
    ensure!(
        is_below && existing.is_none_or(|folder| folder.starts_with(&dir)),
        "{} is outside of the data set's folder, expected a file inside",
        path.display()
    );
    Ok(())
}

/// Downloads `url` with curl and resumes where `partial` ends. Returns false if the server cannot
/// resume.
fn download(url: &str, partial: &Path) -> Result<bool> {
    let options = "--fail --location --proto =http,https --proto-redir =http,https --globoff --silent --show-error \
        --connect-timeout 30 --speed-limit 1 --speed-time 60 --continue-at - --url";
    let mut curl = Command::new("curl")
        .args(options.split_whitespace())
        .arg(url)
        .arg("--output")
        .arg(partial)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => anyhow!("cannot download {url}: curl is not installed, install it"),
            _ => anyhow!("cannot start curl ({error})"),
        })?;
    let bar = output::progress_bytes("downloading");
    let status = loop {
        if let Some(status) = curl.try_wait().context("cannot wait for curl")? {
            break status;
        }
        bar.set_position(fs::metadata(partial).map_or(0, |metadata| metadata.len()));
        std::thread::sleep(Duration::from_millis(50));
    };
    bar.finish_and_clear();
    if status.success() {
        return Ok(true);
    }
    // curl(1): 33 is a server without ranges, 36 an offset beyond the end of the file.
    if matches!(status.code(), Some(33 | 36)) && partial.exists() {
        return Ok(false);
    }
    let mut reason = String::new();
    if let Some(mut stderr) = curl.stderr {
        stderr.read_to_string(&mut reason).context("cannot read the messages of curl")?;
    }
    let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    let resume = if partial.exists() { ", run this command again to resume" } else { "" };
    bail!("cannot download {url}: {reason}{resume}");
}

/// Returns true if a folder is missing or has no entries.
fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
}

fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))
}
