//! The blocks of commands in `docs/tutorials`, run as a reader would run them, on fewer epochs.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// Runs the blocks marked `sh` of a page, one after the other, in a folder that has the data sets
/// of the repository and the program that was built.
fn run(page: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let text = fs::read_to_string(root.join("docs/tutorials").join(page)).unwrap();
    let blocks: Vec<&str> =
        text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 4, "{page} has {} blocks", blocks.len());
    let dir = tempfile::tempdir().unwrap();
    symlink(root.join("datasets"), dir.path().join("datasets")).unwrap();
    let programs = Path::new(env!("CARGO_BIN_EXE_dpq")).parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    for block in blocks {
        // A reader waits a minute or two for the network. A test does not need a good one.
        let quick = block.replace("--preset quick", "--preset quick --set epochs=1");
        let output = Command::new("sh")
            .args(["-euc", &quick])
            .current_dir(dir.path())
            .env("PATH", &path)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{page}:\n{block}\n{errors}");
    }
}

#[test]
fn a_researcher_can_follow() {
    run("researcher.md");
}

#[test]
fn an_engineer_with_pictures_can_follow() {
    run("images.md");
}

#[test]
fn an_engineer_with_vectors_can_follow() {
    run("vectors.md");
}
