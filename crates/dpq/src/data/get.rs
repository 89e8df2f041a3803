//! `dpq data get`: downloads what `dataset.toml` names.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use dpq_data::{Source, SourceFile, sha256};
use serde::Serialize;

use crate::output;

/// Download what a data set needs
///
/// Downloads the files that dataset.toml gives a URL for, with the system's curl, and checks them against the checksums
/// there. A download that was cut off is gone on with where there is a checksum. Files that are there and right stay as they are.
/// What cannot be downloaded is said in one sentence, images that are files of their own too.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  dpq data get datasets/cifar-10")]
pub(crate) struct Args {
    /// A data set folder
    dir: PathBuf,
}

#[derive(Serialize)]
struct Got {
    name: String,
    instructions: Option<String>,
    files: Vec<GotFile>,
}

#[derive(Serialize)]
struct GotFile {
    path: PathBuf,
    downloaded: bool,
    sha256: String,
    /// Whether dataset.toml has a checksum of it.
    checked: bool,
}

impl Args {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        let source = Source::open(&self.dir)?;
        let missing: Vec<_> = source.files.iter().filter(|file| !file.path.exists()).collect();
        if let Some(file) = missing.iter().find(|file| file.url.is_none()) {
            match &source.instructions {
                Some(what_to_do) => bail!("{} cannot be downloaded: {what_to_do}", source.name),
                None => bail!(
                    "{} is not there and dataset.toml has no url for it, get it from the source",
                    file.path.display()
                ),
            }
        }
        if !missing.is_empty() {
            let said = |what: &Option<String>| what.clone().unwrap_or_else(|| "not stated".to_owned());
            output::note(&format!("{}, source: {}", source.name, said(&source.origin)));
            output::note(&format!("licence: {}", said(&source.licence)));
        }
        let files = source.files.iter().map(|file| get(&self.dir, file)).collect::<Result<Vec<_>>>()?;
        if let Some(folder) = source.images.as_ref().filter(|folder| is_empty(folder)) {
            let what_to_do = source.instructions.as_deref().unwrap_or("get them from the source");
            bail!("{}: no images there, they cannot be downloaded: {what_to_do}", folder.display());
        }
        let got = Got { name: source.name, instructions: source.instructions, files };
        output::print(json, &got, &got.text())
    }
}

impl Got {
    fn text(&self) -> String {
        if self.files.is_empty() {
            let instructions = self.instructions.iter().map(|what| format!(": {what}"));
            return format!("{} names no file to download{}", self.name, instructions.collect::<String>());
        }
        let line = |file: &GotFile| {
            let what = match (file.downloaded, file.checked) {
                (true, true) => "downloaded and right",
                (true, false) => "downloaded, dataset.toml has no checksum to compare it with",
                (false, true) => "already there and right",
                (false, false) => "already there, dataset.toml has no checksum to compare it with",
            };
            format!("{}: {what}, sha256 {}", file.path.display(), file.sha256)
        };
        self.files.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

fn get(dir: &Path, file: &SourceFile) -> Result<GotFile> {
    let path = &file.path;
    let got = |bytes: &[u8], downloaded| GotFile {
        path: path.clone(),
        downloaded,
        sha256: sha256(bytes),
        checked: file.has_checksum(),
    };
    if path.exists() {
        let bytes = read(path)?;
        file.check(&bytes).context("a file that is there is not replaced, move it away first")?;
        return Ok(got(&bytes, false));
    }
    let url = file.url.as_ref().context("a file without a url is there")?;
    // A dataset.toml from elsewhere must not write where it likes.
    let inside = path
        .strip_prefix(dir)
        .is_ok_and(|path| path.components().all(|part| matches!(part, Component::Normal(_))));
    ensure!(inside, "{} is outside of the data set's folder, expected a file in it", path.display());
    let _dir = path.parent().map(output::ResultDir::create).transpose()?;
    let mut partial = path.clone().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let sum = match (&file.sha256, &file.md5) {
        (Some(sha256), _) => format!("sha256 {sha256}"),
        (None, Some(md5)) => format!("md5 {md5}"),
        (None, None) => "no checksum stated".to_owned(),
    };
    if !file.has_checksum() && partial.exists() {
        output::note("nothing tells whether the part that is there is of the same file, starting again");
        remove(&partial)?;
    }
    output::note(&format!("downloading {url} ({sum})"));
    if !download(url, &partial)? {
        output::note("the server cannot go on where the last download ended, starting again");
        remove(&partial)?;
        ensure!(download(url, &partial)?, "cannot download {url}: the server refuses a new start");
    }
    let bytes = read(&partial)?;
    if let Err(error) = file.check(&bytes) {
        // What begins wrong would stay wrong however often it is gone on with.
        remove(&partial)?;
        return Err(error).context("what was downloaded is not what dataset.toml means and was removed");
    }
    let done =
        File::open(&partial).and_then(|file| file.sync_all()).and_then(|()| fs::rename(&partial, path));
    done.with_context(|| format!("cannot move {} to its place", partial.display()))?;
    Ok(got(&bytes, true))
}

/// Downloads `url` with curl, going on where `partial` ends. False if that cannot be done with what is there.
fn download(url: &str, partial: &Path) -> Result<bool> {
    let options = "--fail --location --globoff --silent --show-error --connect-timeout 30 --speed-limit 1 --speed-time 60 \
        --continue-at - --url";
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
            io::ErrorKind::NotFound => anyhow!("curl is not there to download {url}, install it"),
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
    // curl(1): 33 is a server that sends no ranges, 36 an offset that cannot be.
    if matches!(status.code(), Some(33 | 36)) && partial.exists() {
        return Ok(false);
    }
    let mut reason = String::new();
    if let Some(mut stderr) = curl.stderr {
        stderr.read_to_string(&mut reason).context("cannot read what curl says")?;
    }
    let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    let again = if partial.exists() { ", run this again to go on where it ended" } else { "" };
    bail!("cannot download {url}: {reason}{again}");
}

/// Whether a folder is missing or has nothing in it.
fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))
}
