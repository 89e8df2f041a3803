//! Running cargo, git, Python and `dpq`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Makes the repository the current folder, so that all paths in tasks and reports are relative to it.
pub(crate) fn enter_repository() -> Result<()> {
    let xtask = env::var_os("CARGO_MANIFEST_DIR").context("run this as `cargo xtask`, through cargo")?;
    let root = PathBuf::from(xtask).join("..");
    env::set_current_dir(&root).with_context(|| format!("cannot enter {}", root.display()))
}

/// The cargo that runs this task.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args);
    command
}

/// Runs a command whose output goes where ours goes.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = describe(command);
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    ensure!(status.success(), "`{line}` failed ({status}), its messages are above");
    Ok(())
}

/// Runs a command and returns its stdout; its stderr, where progress and errors are, goes where ours goes.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let line = describe(command);
    let output =
        command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot start `{line}`"))?;
    ensure!(output.status.success(), "`{line}` failed ({}), its messages are above", output.status);
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed something that is not UTF-8"))
}

/// The command line, with the program's name in place of its path.
fn describe(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    let program = program.file_name().unwrap_or(command.get_program());
    let words = [program].into_iter().chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Makes a virtual environment of Python's in `folder` unless it is there, with what the file `requirements` lists; returns its
/// Python.
pub(crate) fn python(folder: &str, requirements: &str) -> Result<String> {
    let python = format!("{folder}/bin/python");
    if !Path::new(&python).exists() {
        run(Command::new("python3").args(["-m", "venv", folder]))?;
    }
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--requirement", requirements]))?;
    Ok(python)
}

/// Builds the `dpq` command for a device and returns the path of the executable.
pub(crate) fn build_dpq(device: &str) -> Result<PathBuf> {
    let features: &[&str] = if device.starts_with("cuda") { &["--features=dpq/cuda"] } else { &[] };
    executable(cargo(&["build", "--workspace", "--bin=dpq"]).args(features), "bin", "dpq")
}

/// Builds an example of any package and returns the path of the executable.
pub(crate) fn build_example(name: &str) -> Result<PathBuf> {
    executable(&mut cargo(&["build", "--workspace", "--example", name]), "example", name)
}

/// Builds a benchmark of `package` and returns the path of the executable.
pub(crate) fn build_bench(package: &str, name: &str) -> Result<PathBuf> {
    executable(&mut cargo(&["build", "--package", package, "--bench", name]), "bench", name)
}

/// Runs a cargo command that builds, and returns the path of the executable of this kind and name.
pub(crate) fn executable(cargo: &mut Command, kind: &str, name: &str) -> Result<PathBuf> {
    let flags = ["--release", "--locked", "--message-format=json-render-diagnostics"];
    let messages = output(cargo.args(flags))?;
    let executable = messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_named = message["target"]["name"] == name && message["target"]["kind"][0] == kind;
        // `cargo test` also builds a binary with its unit tests inside. Benchmarks exist only in that form.
        let is_right = message["profile"]["test"] == (kind == "bench");
        (is_named && is_right).then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    executable.with_context(|| format!("cargo built {name} but named no executable"))
}

/// The commit of the repository, `-dirty` if a file under `paths` is not as committed.
pub(crate) fn commit(paths: &[&str]) -> String {
    let git = |args: &[&str]| output(Command::new("git").args(args));
    let status = git(&[&["status", "--porcelain", "--"], paths].concat());
    match (git(&["rev-parse", "HEAD"]), status) {
        (Ok(commit), Ok(changes)) if changes.is_empty() => commit.trim().to_owned(),
        (Ok(commit), _) => format!("{}-dirty", commit.trim()),
        // A copy of the sources without their history.
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
