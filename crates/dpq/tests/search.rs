//! Files of the Euclidean metric, and searches in several steps, through the command.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod common;

use std::fs;
use std::path::Path;

use serde_json::json as value;
use tempfile::TempDir;

use common::{dpq, error, json};

/// The golden files of dpq-index, of the same items.
fn golden(version: u8) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dpq-index/tests/data");
    fs::read(folder.join(format!("v{version}-l2.dpq"))).unwrap()
}

#[test]
fn an_old_index_is_upgraded_and_a_new_one_left_alone() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    fs::write(dir.join("a.dpq"), golden(1)).unwrap();
    let info = json(dir, "index upgrade a.dpq --out b.dpq");
    assert_eq!((&info["version"], &info["norms"]), (&2.into(), &value!([24, 32])));
    assert!(fs::read(dir.join("b.dpq")).unwrap() == golden(2));
    assert!(fs::read(dir.join("a.dpq")).unwrap() == golden(1));

    json(dir, "index upgrade a.dpq");
    assert!(fs::read(dir.join("a.dpq")).unwrap() == golden(2));
    let output = dpq(dir, "index upgrade a.dpq --out c.dpq");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "a.dpq: version 2 is current, nothing to write\n");
    assert!(!dir.join("c.dpq").exists());

    let mut damaged = golden(1);
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(dir.join("a.dpq"), &damaged).unwrap();
    assert!(error(dir, "index upgrade a.dpq", 1).contains("is damaged"));
    assert!(fs::read(dir.join("a.dpq")).unwrap() == damaged);
}

#[test]
fn norms_are_kept_for_the_lengths_named() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    fs::write(dir.join("a.dpq"), golden(2)).unwrap();
    json(dir, "index export a.dpq --to npy --out a");
    let build =
        "index build --codes a/codes.npy --codebook a/codebook.safetensors --ids a/ids.npy --out b.dpq";
    assert_eq!(json(dir, &format!("{build} --norms 8,24"))["norms"], value!([24]));
    let info = String::from_utf8(dpq(dir, "index info a.dpq").stdout).unwrap();
    assert!(info.contains("version      2, norms at 24, 32 bits\n"), "{info}");
    assert!(
        error(dir, &format!("{build} --norms 40"), 1).contains("length in bits is 40, expected at most 32")
    );
    let message = error(dir, &format!("{build} --metric ip --norms 24"), 1);
    assert!(message.contains("--norms is for Euclidean distance, give --metric l2 too"), "{message}");
}
