//! `cargo xtask cuda-check`: builds and tests the program for NVIDIA GPUs on a machine without one.
//!
//! Everything is kept under `target/cuda-check/`, apart from other builds.

mod toolkit;

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::{build_dpq, executable, output, remove, run as run_command};
use toolkit::Toolkit;

const FOLDER: &str = "target/cuda-check";
const KERNELS: &str = "crates/dpq-model/src/ops/cuda/kernels.cu";
const DATA: &str = "datasets/fashion-mnist";

/// The same selection in each command, so that cargo compiles candle once and checks it once.
const BUILD: [&str; 3] = ["--package=dpq", "--package=dpq-model", "--features=dpq/cuda"];

pub(crate) fn run() -> Result<()> {
    let toolkit = Toolkit::set_up(FOLDER)?;

    eprintln!("==> kernels: nvcc and ptxas compile without warnings and without spilling registers");
    let mut nvcc = toolkit.nvcc();
    nvcc.args(["--cubin", "-Werror", "all-warnings", "-Xptxas", "--warn-on-spills,--warning-as-error", "-o"]);
    run_command(nvcc.arg(format!("{FOLDER}/kernels.cubin")).arg(KERNELS))?;

    eprintln!("==> clippy: no warning with the feature cuda");
    let clippy =
        [&["clippy", "--release", "--locked", "--all-targets"], &BUILD[..], &["--", "-D", "warnings"]];
    run_command(&mut toolkit.cargo(&clippy.concat())?)?;

    eprintln!("==> test: NVRTC compiles the kernels; tests that need a GPU print SKIPPED");
    let tests = ["--", "--nocapture", "cuda::", "device::"];
    let test = [&["test", "--release", "--locked", "--tests"], &BUILD[..], &tests];
    run_command(&mut toolkit.cargo(&test.concat())?)?;

    eprintln!("==> dpq: starts, reports that it finds no GPU, and trains as the program without CUDA");
    let mut build = toolkit.cargo(&[&["test", "--no-run", "--tests"], &BUILD[..]].concat())?;
    let dpq = executable(&mut build, "bin", "dpq")?;
    let with_cuda = |args: &[&str]| {
        let mut command = toolkit.load(Command::new(&dpq));
        command.args(args);
        command
    };
    println!("{}", output(&mut with_cuda(&["--version"]))?.trim());
    let out = ["no-gpu", "with-cuda", "without-cuda"].map(|name| format!("{FOLDER}/{name}"));
    let train =
        |i: usize| ["train", "--data", DATA, "--preset", "quick", "--set", "epochs=1", "--out", &out[i]];
    out.iter().try_for_each(remove)?;
    refuses_a_gpu(&mut with_cuda(&[&train(0)[..], &["--device=cuda:0"]].concat()))?;
    run_command(&mut with_cuda(&train(1)))?;
    run_command(Command::new(build_dpq("cpu")?).args(train(2)))?;
    let model =
        |i: usize| fs::read(format!("{}/model.safetensors", out[i])).context("a training left no model");
    let [_, with, without] = &out;
    ensure!(model(1)? == model(2)?, "the feature cuda changes what the CPU trains: {with} and {without}");
    println!("one epoch on the CPU gives the same model.safetensors with the feature cuda and without it");
    Ok(())
}

/// Runs a command that must fail with a one-line error because it finds no GPU.
fn refuses_a_gpu(command: &mut Command) -> Result<()> {
    let found = command.output()?;
    let message = String::from_utf8_lossy(&found.stderr);
    println!("{}", message.trim());
    ensure!(
        found.status.code() == Some(1)
            && message.starts_with("error: device: cuda:0 cannot be used: ")
            && message.lines().count() == 1,
        "expected a one-line error about cuda:0, found the message above ({})",
        found.status
    );
    Ok(())
}
