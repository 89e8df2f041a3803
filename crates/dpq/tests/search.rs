//! Files of the Euclidean metric, and searches in several steps, through the command.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use dpq_file::{Dtype, Section};
use dpq_formats::npy;
use serde_json::{Value, json as value};
use tempfile::TempDir;

use common::{dpq, error, images, json};

/// The golden files of dpq-index, of the same items.
fn golden(version: u8) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dpq-index/tests/data");
    fs::read(folder.join(format!("v{version}-l2.dpq"))).unwrap()
}

/// Numbers whose products and sums are exact.
fn eighths(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * i * 7919) % 33) as f32 / 8.0 - 2.0).collect()
}

/// Writes the index a.dpq and the queries q.npy. Returns the queries, [Q, D], and D.
fn gallery(dir: &Path) -> (Vec<f32>, usize) {
    fs::write(dir.join("a.dpq"), golden(2)).unwrap();
    let dim = json(dir, "index info a.dpq")["dim"].as_u64().unwrap() as usize;
    let queries = eighths(5 * dim);
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
        assert_eq!(
            (&all["hits"], &all["shortlist"], &all["exact"]),
            (&expected["hits"], &"300@8".into(), &false.into())
        );
        let exact = search(&format!("{words} --shortlist 10@8 --exact"));
        assert_eq!((&exact["hits"], &exact["exact"]), (&expected["hits"], &true.into()));
        let printed = |words: &str| dpq(dir, &format!("search a.dpq --queries q.npy {words}")).stdout;
        assert_eq!(printed(&format!("{words} --shortlist 300@16")), printed(words));
    }
    assert_ne!(search("--shortlist 10@8")["hits"], search("")["hits"]);

    let error = |words: &str, code| error(dir, &format!("search a.dpq --queries q.npy {words}"), code);
    for wrong in ["10", "x@8", "10@", "-1@8"] {
        let message = error(&format!("--shortlist={wrong}"), 2);
        assert!(
            message.contains("expected items and the bits that they are found at, such as 1000@32"),
            "{message}"
        );
    }
    assert!(error("--shortlist 10@7", 2).contains("is 7, expected a multiple of 8"));
    assert!(error("--exact", 2).contains("--shortlist"));
    assert!(error("--shortlist 9@8", 1).contains("size of the shortlist is 9, expected at least 10"));
    let longer = error("--bits 16 --shortlist 10@24", 1);
    assert!(longer.contains("code length of the shortlist in bits is 24, expected at most 16"), "{longer}");
}

#[test]
fn hits_are_scored_again_by_vectors() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let (queries, dim) = gallery(dir);
    json(dir, "index export a.dpq --to npy --out a");
    json(dir, "index build --codes a/codes.npy --codebook a/codebook.safetensors --out rows.dpq");
    let vectors = eighths(301 * dim)[dim..].to_vec();
    npy::write(dir.join("x.npy"), &[300, dim], &vectors).unwrap();
    let bytes = |x: &[f32]| -> Vec<u8> { x.iter().flat_map(|x| x.to_le_bytes()).collect() };
    let row = |x: &[f32]| [(dim as i32).to_le_bytes().to_vec(), bytes(x)].concat();
    fs::write(dir.join("x.fvecs"), vectors.chunks(dim).flat_map(row).collect::<Vec<u8>>()).unwrap();
    let section = Section { dtype: Dtype::F32, shape: &[300, dim], bytes: &bytes(&vectors) };
    dpq_file::write(dir.join("x.safetensors"), &Default::default(), &[("x", section)]).unwrap();

    let ids: Vec<u64> = npy::read_vector(dir.join("a/ids.npy")).unwrap();
    let dot = |x: &[f32], y: &[f32]| -> f32 { x.iter().zip(y).map(|(x, y)| x * y).sum() };
    let expected = |ids: &dyn Fn(usize) -> u64| -> Value {
        let of_query = |query: &[f32]| {
            let rows = vectors.chunks(dim).map(|x| 2.0 * dot(query, x) - dot(x, x));
            let mut hits: Vec<(f32, u64)> = rows.enumerate().map(|(row, score)| (score, ids(row))).collect();
            hits.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            let hits = hits[..10].iter().map(|(score, id)| value!({"id": id, "score": score}));
            Value::Array(hits.collect())
        };
        Value::Array(queries.chunks(dim).map(of_query).collect())
    };
    let all = "--queries q.npy --rerank-depth 300 --rerank";
    for file in ["x.npy", "x.fvecs", "x.safetensors"] {
        let found = json(dir, &format!("search rows.dpq {all} {file}"));
        assert_eq!((&found["hits"], &found["rerank_depth"]), (&expected(&|row| row as u64), &300.into()));
    }
    let found =
        json(dir, &format!("search a.dpq {all} x.npy --rerank-ids a/ids.npy --shortlist 300@8 --threads 2"));
    assert_eq!(found["hits"], expected(&|row| ids[row]));
    // The shortlist is less than the default depth.
    let found = json(dir, "search rows.dpq --queries q.npy --rerank x.npy --shortlist 40@16");
    assert_eq!(found["rerank_depth"], 40);
    assert_ne!(found["hits"], expected(&|row| row as u64));
    let printed = |words: &str| dpq(dir, &format!("search rows.dpq {all} x.npy {words}")).stdout;
    assert_eq!(printed("").iter().filter(|&&byte| byte == b'\n').count(), 51);

    let error = |words: &str| error(dir, &format!("search {words} --queries q.npy"), 1);
    assert!(error("a.dpq --rerank x.npy").contains("x.npy has no vector for id"));
    assert!(error("a.dpq --rerank q.npy --rerank-ids a/ids.npy").contains("has 5 rows, 300 ids were given"));
    assert!(
        error("rows.dpq --rerank x.npy --rerank-depth 9")
            .contains("--rerank-depth is 9, expected at least the 10")
    );
    npy::write(dir.join("wide.npy"), &[1, dim + 1], &eighths(dim + 1)).unwrap();
    assert!(error("rows.dpq --rerank wide.npy").contains("wide.npy has vectors of"));
    npy::write(dir.join("nan.npy"), &[300, dim], &vec![f32::NAN; 300 * dim]).unwrap();
    assert!(error("rows.dpq --rerank nan.npy").contains("is NaN, expected finite numbers"));
}

#[test]
fn the_fastest_options_for_a_recall_are_found() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    images(dir);
    for split in ["query", "gallery"] {
        json(dir, &format!("data export --data set --split {split} --out-dir {split}"));
    }
    let features = "--features gallery/features.npy";
    json(dir, &format!("codebook train {features} --levels 4 --codewords 3 --out cb.safetensors"));
    json(dir, &format!("encode --codebook cb.safetensors {features} --out-dir gallery"));
    json(
        dir,
        "index build --codes gallery/codes.npy --codebook cb.safetensors --ids gallery/ids.npy --out a.dpq",
    );
    let tune = |words: &str| json(dir, &format!("tune a.dpq --queries query/features.npy -k 1 {words}"));
    let options = |measured: &Value| measured["options"].as_str().unwrap().to_owned();

    let found = tune("--recall 1");
    assert_eq!(
        (&found["queries"], &found["reference"]),
        (&6.into(), &"the index's own codes of 32 bits, not vectors".into())
    );
    let measured = found["measured"].as_array().unwrap();
    assert!(measured.iter().any(|measured| options(measured) == "--bits 32" && measured["recall"] == 1.0));
    assert!(measured.iter().any(|measured| options(measured) == "--bits 32 --shortlist 10@16"));
    assert_eq!(found["wanted"]["recall"], 1.0);
    // Those that nothing beats have ascending recall and time.
    let best: Vec<_> = measured.iter().filter(|measured| measured["is_best"] == true).collect();
    assert!(best.is_sorted_by_key(|measured| measured["recall"].as_f64()));
    assert!(best.is_sorted_by_key(|measured| measured["ns_per_query_median"].as_u64()));

    let vectors = "--vectors gallery/features.npy --vector-ids gallery/ids.npy";
    let found = tune(&format!("{vectors} --sample 3 --svg tune.svg"));
    assert_eq!((&found["queries"], &found["wanted"]), (&3.into(), &Value::Null));
    let svg = fs::read_to_string(dir.join("tune.svg")).unwrap();
    assert!(svg.contains("codes alone") && svg.contains("scored again by vectors"));

    // The truth of a file is what it says: that of an exact search gives the same recall.
    let all = "search a.dpq --queries query/features.npy -k 1 --rerank gallery/features.npy --rerank-ids gallery/ids.npy --rerank-depth 30";
    let hits = json(dir, all)["hits"].clone();
    let hits = hits.as_array().unwrap().iter().flat_map(|hits| hits.as_array().unwrap());
    let ids: Vec<u64> = hits.map(|hit| hit["id"].as_u64().unwrap()).collect();
    npy::write(dir.join("t.npy"), &[6, 1], &ids).unwrap();
    let recalls = |found: Value| {
        let measured = found["measured"].as_array().unwrap().clone();
        measured
            .iter()
            .map(|measured| (options(measured), measured["recall"].to_string()))
            .collect::<BTreeMap<_, _>>()
    };
    assert_eq!(recalls(tune(&format!("{vectors} --truth t.npy"))), recalls(tune(vectors)));

    // The truth of a file whose ids no search finds.
    npy::write(dir.join("none.npy"), &[6, 10], &[u64::MAX; 60]).unwrap();
    let none = "tune a.dpq --queries query/features.npy --truth none.npy --recall .5";
    let text = String::from_utf8(dpq(dir, none).stdout).unwrap();
    assert!(text.starts_with("recall@10 of 6 queries, by none.npy\n"), "{text}");
    assert!(
        text.ends_with("no options reach a recall of 0.5: longer codes or --vectors raise it\n"),
        "{text}"
    );
    assert!(
        error(dir, "tune a.dpq --queries query/features.npy --truth t.npy", 1)
            .contains("6 rows of 1 ids, expected 6 of at least 10")
    );
}
