//! `dpq report`: a page on trainings, whose numbers are those of the single commands.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod common;

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use common::{dpq, error, images, json};

/// Trains on the bands with a seed, into the folder `run-SEED`.
fn train(dir: &Path, seed: u64) {
    let options = "--preset quick --set epochs=2 --set quantizer.levels=3 --set quantizer.codewords=8";
    json(dir, &format!("train --data set --out run-{seed} {options} --seed {seed}"));
}

#[test]
fn a_page_has_the_numbers_of_encode_and_eval() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    images(dir);
    train(dir, 1);
    let results = json(dir, "report run-1 --out page");
    for split in ["query", "gallery"] {
        json(
            dir,
            &format!("encode --model run-1/model.safetensors --data set --split {split} --out-dir {split}"),
        );
    }
    let encoded =
        json(dir, "encode --model run-1/model.safetensors --data set --split gallery --out-dir gallery");
    let build =
        "index build --codes gallery/codes.npy --codebook run-1/model.safetensors --ids gallery/ids.npy";
    let index = json(dir, &format!("{build} --out g.dpq"));
    let judged = "--queries query/features.npy --query-labels query/labels.npy --gallery-labels gallery/labels.npy \
        --gallery-ids gallery/ids.npy --at 5000";
    let codes = json(dir, &format!("eval --index g.dpq {judged}"));
    let features = json(dir, &format!("eval --gallery-features gallery/features.npy {judged}"));

    for bits in ["8", "16", "24"] {
        let expected = &codes["by_bits"][bits];
        assert_eq!(results["map_all"][bits][0], expected["map"], "{bits} bits");
        assert_eq!(results["map_at_5000"][bits][0], expected["map_at"]["5000"]);
        assert_eq!(results["ties"][bits]["worst"], expected["map_min"]);
        assert_eq!(results["precision_at"][bits], expected["precision_at"]);
    }
    assert_eq!(results["map_all"].as_object().unwrap().len(), 3);
    assert_eq!(results["feature_map_all"][0], features["features"]["map"]);
    assert_eq!(results["map_rule"], codes["map_rule"]);
    assert_eq!(results["distortion"], encoded["relative_distortion"]);
    assert_eq!(results["usage"][2]["used"].as_f64(), encoded["usage"][2]["used"].as_f64());
    assert_eq!(results["accuracy"][0], encoded["accuracy"]);
    assert_eq!(results["bytes_per_item"], index["bytes_per_item"]);
    let items = [&results["items"]["train"], &results["items"]["query"], &results["items"]["gallery"]];
    assert_eq!(items, [&Value::from(24), &Value::from(6), &Value::from(30)]);

    let page = fs::read_to_string(dir.join("page/report.html")).unwrap();
    let rule = results["map_rule"]["text"].as_str().unwrap();
    for part in [rule, "preset quick changed by epochs=2", "<svg", "data:image/png;base64,", "middle"] {
        assert!(page.contains(part), "{part} is missing from {page}");
    }
    for reference in ["<script", "src=", "<link"] {
        assert!(!page.contains(reference), "the page needs nothing else");
    }
    // Too few items for t-SNE.
    assert!(!dir.join("page/tsne.svg").exists() && dir.join("page/queries.svg").exists());
    let written: Value = serde_json::from_slice(&fs::read(dir.join("page/results.json")).unwrap()).unwrap();
    assert_eq!(written, results);
}

#[test]
fn other_codes_of_the_same_features_are_those_of_eval() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    images(dir);
    train(dir, 1);
    let results = json(dir, "report run-1 --baselines --out page");
    let model = "encode --model run-1/model.safetensors --data set --posteriors";
    for split in ["train", "query", "gallery"] {
        json(dir, &format!("{model} --split {split} --out-dir {split}"));
    }
    let build =
        "index build --codes gallery/codes.npy --codebook run-1/model.safetensors --ids gallery/ids.npy";
    json(dir, &format!("{build} --out g.dpq"));
    let eval = |ranked: &str, vectors: &str| {
        let of = |split: &str| format!("{split}/{vectors}.npy");
        let judged = "--query-labels query/labels.npy --gallery-labels gallery/labels.npy --gallery-ids gallery/ids.npy";
        let (query, train, gallery) = (of("query"), of("train"), of("gallery"));
        let ranked = format!("{ranked} --gallery-features {gallery} --train-features {train}");
        json(dir, &format!("eval {ranked} --queries {query} {judged} --bits 8,16,24"))
    };
    let features = eval("--index g.dpq", "features");
    let rows = results["baselines"].as_array().unwrap();
    let names: Vec<_> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    let expected =
        ["residual k-means", "product quantization", "optimized product quantization", "class posterior"];
    assert_eq!(names, expected);
    for (row, name) in rows.iter().zip(names).take(3) {
        for bits in ["8", "16", "24"] {
            assert_eq!(row["map_all"][bits][0], features["baselines"][name][bits]["map"], "{name}, {bits}");
        }
        assert_eq!(row["feature_map_all"][0], features["features"]["map"]);
    }
    let posteriors = eval("", "posteriors");
    assert_eq!(rows[3]["feature_map_all"][0], posteriors["features"]["map"]);
    assert_eq!(posteriors["baselines"]["residual k-means"].as_object().unwrap().len(), 3);
    let page = fs::read_to_string(dir.join("page/results.md")).unwrap();
    assert!(
        page.contains("## Other codes of the same features") && page.contains("| class posterior"),
        "{page}"
    );
}

#[test]
fn several_runs_are_a_mean_and_a_deviation() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    images(dir);
    train(dir, 1);
    train(dir, 7);
    let results = json(dir, "report run-1 run-7");
    let of = |seed: usize| results["per_seed"][seed]["map_all"]["8"].as_f64().unwrap();
    let single = json(dir, "report run-7");
    assert_eq!(Some(of(1)), single["map_all"]["8"][0].as_f64());
    let [mean, deviation] = [0, 1].map(|i| results["map_all"]["8"][i].as_f64().unwrap());
    assert!((mean - (of(0) + of(1)) / 2.0).abs() < 1e-12);
    assert!((deviation - (of(0) - of(1)).abs() / 2f64.sqrt()).abs() < 1e-12);

    let text = String::from_utf8(dpq(dir, "report run-1 run-7").stdout).unwrap();
    assert!(
        text.starts_with("Results on set, preset quick changed by ") && text.contains("seeds 1, 7"),
        "{text}"
    );
    assert!(text.contains(" ± "), "{text}");
    // A data set that has moved is named by --data.
    fs::rename(dir.join("set"), dir.join("moved")).unwrap();
    assert!(error(dir, "report run-1", 1).contains("give --data if the data set has moved"));
    assert_eq!(json(dir, "report run-7 --data moved")["map_all"], single["map_all"]);
}

#[test]
fn splits_that_were_drawn_anew_are_refused() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    images(dir);
    train(dir, 1);
    json(dir, "report run-1");
    let new = dir.join("set/images/end/00a.png");
    fs::copy(dir.join("set/images/end/00.png"), &new).unwrap();
    let encode = "encode --model run-1/model.safetensors --data set --split query --out-dir q";
    let features = "features --model run-1/model.safetensors --data set --split query --out-dir q";
    let refused = "set has other training images than this training had, which may be among its queries now, restore \
                   the images or train again";
    for command in ["report run-1", "report run-1 --data set", encode, features] {
        let message = error(dir, command, 1);
        assert!(message.contains(refused), "{command}: {message}");
    }
    assert!(!dir.join("q").exists());
    // Images without a split are no matter of the training.
    json(dir, "encode --model run-1/model.safetensors --images set/images --out-dir all");
    fs::remove_file(new).unwrap();
    json(dir, "report run-1");
    json(dir, encode);
}

#[test]
fn runs_that_cannot_be_reported_on_are_refused() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    images(dir);
    train(dir, 1);
    let message = error(dir, "report set", 1);
    assert!(message.contains("set/train.json, give a folder in which `dpq train` has finished"), "{message}");

    fs::create_dir(dir.join("other")).unwrap();
    let record = fs::read_to_string(dir.join("run-1/train.json")).unwrap();
    fs::copy(dir.join("run-1/model.safetensors"), dir.join("other/model.safetensors")).unwrap();
    let of_other = |from: &str, to: &str| {
        assert!(record.contains(from), "{record}");
        fs::write(dir.join("other/train.json"), record.replace(from, to)).unwrap();
        error(dir, "report run-1 other", 1)
    };
    let message = of_other("/set\"", "/sets\"");
    assert!(message.contains("run-1 and other were trained on different data sets"), "{message}");
    let message = of_other("\"fingerprint\": \"", "\"fingerprint\": \"0");
    assert!(message.contains("train.json beside it describes 0"), "{message}");
    let data = record.lines().find(|line| line.contains("\"data\"")).unwrap();
    let message = of_other(data, "  \"data\": null,");
    assert!(message.contains("other was trained on features"), "{message}");
}
