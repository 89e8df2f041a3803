//! `cargo xtask fuzz`: each target of `fuzz/` for a short time.

use std::process::Command;

use anyhow::Result;

use crate::process::{output, run as run_command};

pub(crate) fn run(seconds: u32) -> Result<()> {
    // The cargo that runs this task cannot switch toolchains; the one of rustup can.
    let fuzz = |args: &[&str]| {
        let mut command = Command::new("cargo");
        command.args(["+nightly", "fuzz"]).args(args);
        command
    };
    for target in output(&mut fuzz(&["list"]))?.lines() {
        run_command(&mut fuzz(&["run", target, "--", &format!("-max_total_time={seconds}")]))?;
    }
    Ok(())
}
