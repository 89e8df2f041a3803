//! `dpq attack`: changed queries of a small data set.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod common;

use std::fs;
use std::path::Path;

use common::{dpq, error, images, json};
use image::ImageReader;
use serde_json::Value;
use tempfile::TempDir;

/// A data set and two models of it, whose networks differ in their seeds.
fn models() -> TempDir {
    let dir = TempDir::new().unwrap();
    images(dir.path());
    for seed in [1, 2] {
        let options = "--preset quick --set epochs=6 --set batch_size=8 --set quantizer.codewords=6";
        json(dir.path(), &format!("train --data set {options} --seed {seed} --out run-{seed}"));
    }
    dir
}

fn map(result: &Value, queries: &str, bits: &str) -> f64 {
    result["ranked"][queries]["map"][bits].as_f64().unwrap()
}

fn pixels(path: &Path) -> Vec<u8> {
    ImageReader::open(path).unwrap().decode().unwrap().into_luma8().into_raw()
}

#[test]
fn queries_change_by_epsilon_and_find_something_else() {
    let dir = models();
    let model = "--model run-1/model.safetensors --data set";
    let clean = json(dir.path(), &format!("attack {model} --epsilon 0 --out zero"));
    json(dir.path(), "encode --model run-1/model.safetensors --data set --split query --out-dir query");
    let file = |name: &str| fs::read(dir.path().join(name)).unwrap();
    for name in ["features.npy", "ids.npy", "labels.npy"] {
        assert!(file(&format!("zero/{name}")) == file(&format!("query/{name}")), "{name}");
    }
    for set in ["noise", "attacked"] {
        assert_eq!(clean["ranked"][set], clean["ranked"]["clean"]);
    }

    let options = "--loss aod --epsilon 0.25 --transfer run-2/model.safetensors";
    let found = json(dir.path(), &format!("attack {model} {options} --out aod"));
    assert_eq!((found["epsilon"].as_u64(), found["queries"].as_u64()), (Some(63), Some(6)));
    assert_eq!(found["ranked"]["clean"], clean["ranked"]["clean"]);
    // The images on the disk are those that were ranked, and keep to epsilon.
    let ids: Vec<String> = fs::read_dir(dir.path().join("aod/images"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(ids.len(), 6);
    for id in &ids {
        let of = |folder: &str| pixels(&dir.path().join(format!("{folder}/images/{id}.png")));
        let (before, after) = (of("zero"), of("aod"));
        let largest = before.iter().zip(&after).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!((32..=63).contains(&largest), "{largest}");
        assert_ne!(of("aod/transfer"), after);
    }
    json(dir.path(), "encode --model run-1/model.safetensors --images aod/images --out-dir again");
    let rows = |name: &str| {
        let bytes = file(name);
        let mut rows: Vec<Vec<u8>> =
            bytes[128..].chunks((bytes.len() - 128) / 6).map(<[u8]>::to_vec).collect();
        rows.sort();
        rows
    };
    assert_eq!(rows("again/features.npy"), rows("aod/features.npy"));
    let page = String::from_utf8(file("aod/results.md")).unwrap();
    assert!(page.contains("| aod, ε 63/255, by the other model |"), "{page}");
    assert!(String::from_utf8(file("aod/queries.svg")).unwrap().contains("attacked"));
}

#[test]
fn an_index_serves_instead_of_the_gallery_and_levels_are_attacked_alone() {
    let dir = models();
    let model = "--model run-1/model.safetensors";
    json(dir.path(), &format!("encode {model} --data set --split gallery --out-dir g"));
    json(
        dir.path(),
        "index build --codes g/codes.npy --ids g/ids.npy --codebook run-1/model.safetensors --out g.dpq",
    );
    let attack = |options: &str, out: &str| {
        json(dir.path(), &format!("attack {model} --data set {options} --queries 4 --out {out}"))
    };
    let (by_index, encoded) = (attack("--index g.dpq", "a"), attack("", "b"));
    assert_eq!(by_index["ranked"], encoded["ranked"]);
    assert_eq!(by_index["queries"], 4);
    let level = attack("--index g.dpq --target-level 2", "c");
    assert_eq!(level["level"], 2);
    let features = |out: &str| fs::read(dir.path().join(out).join("features.npy")).unwrap();
    assert!(features("a") == features("b") && features("a") != features("c"));

    let refused = |options: &str, expected: &str| {
        let message = error(dir.path(), &format!("attack {model} --data set {options} --out d"), 1);
        assert!(message.contains(expected), "{message}");
        assert!(!dir.path().join("d").exists());
    };
    refused("--target-level 5", "--target-level is 5, the model has levels 1 to 4");
    refused("--loss basic --target-level 1", "--loss basic knows no codewords");
    refused("--transfer g.dpq", "g.dpq");
    json(dir.path(), "encode --model run-2/model.safetensors --data set --split gallery --out-dir h");
    json(dir.path(), "index build --codes h/codes.npy --codebook run-2/model.safetensors --out other.dpq");
    refused("--index other.dpq", "the index was built with");
    assert!(error(dir.path(), &format!("attack {model} --data set --out a"), 1).contains("a/images exists"));
    let output = dpq(dir.path(), &format!("attack {model} --data set --epsilon 8 --out e"));
    assert_eq!(output.status.code(), Some(2));
}

/// A small network that trains for seconds on Fashion-MNIST. Noise of the size of an attack does
/// little. An attack on the first level alone moves the rankings of all lengths, and no less than
/// one on all levels.
#[test]
fn attacks_mislead_searches_at_every_length_and_noise_does_not() {
    let dir = TempDir::new().unwrap();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets/fashion-mnist");
    let data = data.to_str().unwrap();
    let small = "--set network.body.small.channels=[8,16,16] --set network.body.small.hidden=64";
    let options = format!("--preset quick --set epochs=2 --set network.dropout=0.0 {small}");
    json(dir.path(), &format!("train --data {data} {options} --out run"));
    let model = "run/model.safetensors";
    json(dir.path(), &format!("encode --model {model} --data {data} --split gallery --out-dir g"));
    json(
        dir.path(),
        &format!("index build --codes g/codes.npy --ids g/ids.npy --codebook {model} --out g.dpq"),
    );
    let attack = |options: &str| {
        let out = options.replace(|c: char| !c.is_alphanumeric(), "");
        let common = format!("attack --model {model} --data {data} --index g.dpq --queries 60");
        json(dir.path(), &format!("{common} --epsilon 32/255 {options} --out {out}"))
    };
    let attacks = ["--loss basic", "--loss aod", "--loss apd", "--loss aod --target-level 1"];
    let [basic, aod, apd, first] = attacks.map(attack);
    for bits in ["8", "16", "24", "32"] {
        let [clean, noise] = ["clean", "noise"].map(|queries| map(&aod, queries, bits));
        let [basic, aod, apd, first] = [&basic, &aod, &apd, &first].map(|found| map(found, "attacked", bits));
        assert!(clean > 0.4 && noise > 0.9 * clean, "{clean} {noise}");
        assert!(basic < aod && aod < apd && apd < 0.92 * noise, "{basic} {aod} {apd} {noise}");
        assert!(first < aod && first < 0.7 * noise, "{first} {aod} {noise}");
    }
}
