//! Running cargo, git, Python and `dpq`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Makes the repository the current folder. Paths in tasks and reports are relative to it.
pub(crate) fn enter_repository() -> Result<()> {
    let xtask = env::var_os("CARGO_MANIFEST_DIR").context("run this as `cargo xtask`, through cargo")?;
    let root = PathBuf::from(xtask).join("..");
    env::set_current_dir(&root).with_context(|| format!("cannot enter {}", root.display()))
}

/// Removes a folder if it exists.
pub(crate) fn remove(folder: impl AsRef<Path>) -> Result<()> {
    let folder = folder.as_ref();
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

/// Returns the paths in a folder in the order of their names.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Returns a command of the cargo that runs this task.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args);
    command
}

/// Runs a command. It inherits stdout and stderr.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    output(command.stdout(Stdio::inherit())).map(drop)
}

/// Runs a command and returns its stdout. It inherits stderr for progress and errors.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let line = describe(command);
    let output =
        command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot start `{line}`"))?;
    ensure!(output.status.success(), "`{line}` failed ({}), its messages are above", output.status);
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed something that is not UTF-8"))
}

/// Returns the command line with the name of the program instead of its path.
fn describe(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    let program = program.file_name().unwrap_or(command.get_program());
    let words = [program].into_iter().chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Creates a virtual environment in `folder` unless it exists, installs the packages of the file
/// `requirements`, and returns the path of its Python.
pub(crate) fn python(folder: &str, requirements: &str) -> Result<String> {
    let (system, inside) =
        if cfg!(windows) { ("python", "Scripts/python.exe") } else { ("python3", "bin/python") };
    let python = format!("{folder}/{inside}");
    if !Path::new(&python).exists() {
        run(Command::new(system).args(["-m", "venv", folder]))?;
    }
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--requirement", requirements]))?;
    Ok(python)
}

/// Builds the `dpq` command for a device and returns the path of the executable.
pub(crate) fn build_dpq(device: &str) -> Result<PathBuf> {
    let features: &[&str] = if device.starts_with("cuda") { &["--features=dpq/cuda"] } else { &[] };
    executable(cargo(&["build", "--workspace", "--bin=dpq"]).args(features), "bin", "dpq")
}

/// Builds a benchmark of `package` and returns the path of the executable.
pub(crate) fn build_bench(package: &str, name: &str) -> Result<PathBuf> {
    executable(&mut cargo(&["build", "--package", package, "--bench", name]), "bench", name)
}

/// Returns the packages that `cargo metadata` lists with further arguments.
pub(crate) fn packages(args: &[&str]) -> Result<Vec<Value>> {
    let text = output(cargo(&["metadata", "--locked", "--format-version=1"]).args(args))?;
    let mut metadata: Value = serde_json::from_str(&text)?;
    Ok(serde_json::from_value(metadata["packages"].take())?)
}

/// Runs a cargo command that builds, and returns the path of the executable of this kind and name.
pub(crate) fn executable(cargo: &mut Command, kind: &str, name: &str) -> Result<PathBuf> {
    let flags = ["--release", "--locked", "--message-format=json-render-diagnostics"];
    let messages = output(cargo.args(flags))?;
    let executable = messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_named = message["target"]["name"] == name && message["target"]["kind"][0] == kind;
        // `cargo test` also builds a binary with its unit tests inside. Benchmarks exist only in
        // that form.
        let is_right = message["profile"]["test"] == (kind == "bench");
        (is_named && is_right).then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    executable.with_context(|| format!("cargo built {name} but named no executable"))
}

/// Returns the commit of the repository, with `-dirty` if a file under `paths` differs from it.
pub(crate) fn commit(paths: &[&str]) -> String {
    let git = |args: &[&str]| output(Command::new("git").args(args));
    let status = git(&[&["status", "--porcelain", "--"], paths].concat());
    match (git(&["rev-parse", "HEAD"]), status) {
        (Ok(commit), Ok(changes)) if changes.is_empty() => commit.trim().to_owned(),
        (Ok(commit), _) => format!("{}-dirty", commit.trim()),
        // The sources are here without their history.
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_name_the_command_line() {
        let error = output(Command::new("sh").args(["-c", "exit 3"])).unwrap_err().to_string();
        assert!(error.contains("`sh -c exit 3` failed") && error.contains('3'), "{error}");
        let error = run(&mut Command::new("no-such-program")).unwrap_err().to_string();
        assert_eq!(error, "cannot start `no-such-program`");
    }

    #[test]
    fn stdout_is_returned() {
        assert_eq!(output(Command::new("sh").args(["-c", "echo found"])).unwrap(), "found\n");
    }
}
