//! Files of the Euclidean metric, and searches in several steps, through the command.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod common;

use std::fs;
use std::path::Path;

use dpq_formats::npy;
use serde_json::json as value;
use tempfile::TempDir;

use common::{dpq, error, json};

/// The golden files of dpq-index, of the same items.
fn golden(version: u8) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dpq-index/tests/data");
    fs::read(folder.join(format!("v{version}-l2.dpq"))).unwrap()
}

/// Writes the index a.dpq and the queries q.npy. Returns the queries, [Q, D], and D.
fn gallery(dir: &Path) -> (Vec<f32>, usize) {
    fs::write(dir.join("a.dpq"), golden(2)).unwrap();
    let dim = json(dir, "index info a.dpq")["dim"].as_u64().unwrap() as usize;
    let queries: Vec<f32> = (0..5 * dim).map(|i| ((i * 7919) % 1013) as f32 / 506.0 - 1.0).collect();
    npy::write(dir.join("q.npy"), &[5, dim], &queries).unwrap();
    (queries, dim)
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

#[test]
fn a_shortlist_is_scored_again() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    gallery(dir);
    npy::write(dir.join("ids.npy"), &[100], &(0..100).map(|i| i * 10_001).collect::<Vec<u64>>()).unwrap();
    let search = |words: &str| json(dir, &format!("search a.dpq --queries q.npy {words}"));
    for words in ["", "--bits 24 -k 5 --threads 2", "--allow ids.npy"] {
        let expected = search(words);
        let all = search(&format!("{words} --shortlist 300@8"));
        assert_eq!((&all["hits"], &all["shortlist"], &all["exact"]), (&expected["hits"], &"300@8".into(), &false.into()));
        let exact = search(&format!("{words} --shortlist 10@8 --exact"));
        assert_eq!((&exact["hits"], &exact["exact"]), (&expected["hits"], &true.into()));
        let printed = |words: &str| dpq(dir, &format!("search a.dpq --queries q.npy {words}")).stdout;
        assert_eq!(printed(&format!("{words} --shortlist 300@16")), printed(words));
    }
    assert_ne!(search("--shortlist 10@8")["hits"], search("")["hits"]);

    let error = |words: &str, code| error(dir, &format!("search a.dpq --queries q.npy {words}"), code);
    for wrong in ["10", "x@8", "10@", "-1@8"] {
        let message = error(&format!("--shortlist={wrong}"), 2);
        assert!(message.contains("expected items and the bits that they are found at, such as 1000@32"), "{message}");
    }
    assert!(error("--shortlist 10@7", 2).contains("is 7, expected a multiple of 8"));
    assert!(error("--exact", 2).contains("--shortlist"));
    assert!(error("--shortlist 9@8", 1).contains("size of the shortlist is 9, expected at least 10"));
    let longer = error("--bits 16 --shortlist 10@24", 1);
    assert!(longer.contains("code length of the shortlist in bits is 24, expected at most 16"), "{longer}");
}
