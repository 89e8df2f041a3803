//! `cargo xtask python`, also a step of `cargo xtask ci`: builds, installs and tests the wheel.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::process::{list, python, remove, run as run_command};

const CRATE: &str = "crates/dpq-python";
const ENVIRONMENT: &str = "target/python-venv";
const WHEELS: &str = "target/wheels";

/// Leaves one wheel in `target/wheels` and removes the others.
pub(crate) fn run() -> Result<()> {
    let python = python(ENVIRONMENT, &format!("{CRATE}/requirements.txt"))?;
    remove(WHEELS)?;
    let mut build = Command::new(&python);
    build.args([
        "-m",
        "maturin",
        "build",
        "--release",
        "--locked",
        "--interpreter",
        &python,
        "--out",
        WHEELS,
    ]);
    run_command(build.args(["--manifest-path", &format!("{CRATE}/Cargo.toml")]))?;

    let wheels = list(Path::new(WHEELS))?;
    ensure!(wheels.len() == 1, "maturin left {} files in {WHEELS}, expected one wheel", wheels.len());
    let pip = ["-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps"];
    run_command(Command::new(&python).args(pip).args(&wheels))?;
    let mut test = Command::new(&python);
    test.args(["-m", "pytest", "-p", "no:cacheprovider", CRATE]);
    run_command(&mut test)?;
    println!("{}", wheels[0].display());
    Ok(())
}
