//! Converts faiss's indexes to dpq's and back. `faiss/fixtures.py` wrote the files, and
//! `faiss/interchange.py` checks both ways against faiss itself (`cargo xtask ci --step faiss`).

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use common::{dpq, error, images, json};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faiss").join(name)
}

fn index(name: &str) -> String {
    fixture(&format!("{name}.index")).display().to_string()
}

/// Returns the hits of faiss, and writes queries.fvecs to `dir`.
fn expected(dir: &Path) -> Value {
    let expected: Value = serde_json::from_slice(&fs::read(fixture("expected.json")).unwrap()).unwrap();
    let mut bytes = Vec::new();
    for query in expected["queries"].as_array().unwrap() {
        let query: Vec<f32> = query.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect();
        bytes.extend((query.len() as i32).to_le_bytes());
        bytes.extend(query.iter().flat_map(|x| x.to_le_bytes()));
    }
    fs::write(dir.join("queries.fvecs"), bytes).unwrap();
    expected
}

/// Ids and scores of each query, in order.
fn found(dir: &Path, index: &str) -> Vec<(u64, f64)> {
    let found = json(dir, &format!("search {index} --queries queries.fvecs -k 5"));
    let hits = found["hits"].as_array().unwrap().iter().flat_map(|hits| hits.as_array().unwrap());
    hits.map(|hit| (hit["id"].as_u64().unwrap(), hit["score"].as_f64().unwrap())).collect()
}

#[test]
fn indexes_of_faiss_give_the_same_hits() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let expected = expected(dir);
    for (name, hits) in expected["found"].as_object().unwrap() {
        let info = json(dir, &format!("index import --from faiss {} --out {name}.dpq", index(name)));
        assert_eq!((&info["items"], &info["metric"]), (&40.into(), &hits["metric"]), "{name}");
        json(dir, &format!("index verify {name}.dpq"));
        let flat = |key: &str| -> Vec<Value> {
            hits[key].as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap().clone()).collect()
        };
        let found = found(dir, &format!("{name}.dpq"));
        assert_eq!(found.len(), 20);
        for ((id, score), (faiss_id, faiss_score)) in found.iter().zip(flat("ids").iter().zip(flat("scores")))
        {
            assert!((score - faiss_score.as_f64().unwrap()).abs() < 1e-5, "{name}: {score} {faiss_score}");
            assert_eq!(id, &faiss_id.as_u64().unwrap(), "{name}");
        }
    }
}

#[test]
fn an_index_survives_the_way_out_and_back() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    expected(dir);
    for name in ["residual-l2", "product-ip", "product-l2-idmap", "residual-ip-idmap2"] {
        json(dir, &format!("index import --from faiss {} --out a.dpq", index(name)));
        let exported = json(dir, "index export a.dpq --to faiss --out a.index");
        assert_eq!(exported["items"], 40);
        let kind = if name.starts_with("product") { "IxPq" } else { "IxRq" };
        let bytes = fs::read(dir.join("a.index")).unwrap();
        // A map is its letters and header of 37 bytes.
        let at = if name.contains("idmap") { 37 } else { 0 };
        assert_eq!(&bytes[..4], if at == 0 { kind } else { "IxMp" }.as_bytes());
        assert_eq!(&bytes[at..at + 4], kind.as_bytes());
        let back = json(dir, "index import --from faiss a.index --out b.dpq");
        // Now with eight bits per level; the further codewords are zero.
        assert_eq!(back["codewords"], 256);
        assert_eq!(found(dir, "a.dpq"), found(dir, "b.dpq"));

        json(dir, "index export a.dpq --to npy --out a");
        let metric = exported["metric"].as_str().unwrap();
        json(
            dir,
            &format!(
                "index build --codes a/codes.npy --codebook a/codebook.safetensors --ids a/ids.npy --metric {metric} \
                 --out c.dpq"
            ),
        );
        assert!(fs::read(dir.join("a.dpq")).unwrap() == fs::read(dir.join("c.dpq")).unwrap());
    }
}

#[test]
fn vectors_of_public_collections_are_read() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    images(dir);
    for split in ["train", "query", "gallery"] {
        json(dir, &format!("data export --data set --split {split} --out-dir {split}"));
        let npy = fs::read(dir.join(split).join("features.npy")).unwrap();
        // Nine by nine pixels, behind a header of 128 bytes.
        let rows = npy[128..].chunks(81 * 4);
        let vecs: Vec<u8> = rows.flat_map(|row| [&81i32.to_le_bytes(), row].concat()).collect();
        fs::write(dir.join(split).join("features.fvecs"), vecs).unwrap();
    }
    let train = "codebook train --levels 2 --codewords 4";
    for form in ["npy", "fvecs"] {
        json(dir, &format!("{train} --features train/features.{form} --out {form}.safetensors"));
        let features = format!("--features gallery/features.{form}");
        json(dir, &format!("encode --codebook {form}.safetensors {features} --out-dir {form}"));
    }
    for file in [".safetensors", "/codes.npy"] {
        assert!(
            fs::read(dir.join(format!("npy{file}"))).unwrap()
                == fs::read(dir.join(format!("fvecs{file}"))).unwrap()
        );
    }
    let sample =
        json(dir, &format!("{train} --features train/features.fvecs --sample 10 --out s.safetensors"));
    assert_eq!(sample["items"], 10);
    let ids: Vec<u8> = [[1i32, 7].map(i32::to_le_bytes), [1i32, 3].map(i32::to_le_bytes)].concat().concat();
    fs::write(dir.join("allow.ivecs"), ids).unwrap();
    json(dir, "index build --codes npy/codes.npy --codebook npy.safetensors --out g.dpq");
    let found = json(dir, "search g.dpq --queries query/features.fvecs --allow allow.ivecs");
    for hits in found["hits"].as_array().unwrap() {
        let mut ids: Vec<u64> =
            hits.as_array().unwrap().iter().map(|hit| hit["id"].as_u64().unwrap()).collect();
        ids.sort_unstable();
        assert_eq!(ids, [3, 7]);
    }
}

#[test]
fn what_is_not_read_is_one_sentence() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let says = |bytes: &[u8], text: &str| {
        fs::write(dir.join("x.index"), bytes).unwrap();
        let error = error(dir, "index import --from faiss x.index --out x.dpq", 1);
        assert!(error.starts_with("error: x.index: ") && error.contains(text), "{error}");
        assert!(!dir.join("x.dpq").exists());
    };
    let read = |name: &str| fs::read(fixture(&format!("{name}.index"))).unwrap();
    says(&read("flat"), "is an IndexFlatL2, expected faiss's IndexResidualQuantizer or IndexPQ");
    says(b"IxZZ and so on", "begins with `IxZZ`");
    says(b"", "needs 4 more bytes where 0 are left");
    says(&[read("product-ip"), vec![0]].concat(), "has 1 more bytes after its contents");
    let change = |name: &str, at: usize, byte: u8| {
        let mut bytes = read(name);
        bytes[at] = byte;
        bytes
    };
    // Letters, dimensions, items, two numbers and `trained` take 33 bytes; then comes the metric.
    says(&change("product-ip", 33, 7), "metric 7");
    says(&change("product-ip", 4, 0), "has 0 dimensions");
    says(&change("product-ip", 4, 12), "has 6 dimensions in its quantizer, expected 12");
    says(&change("product-ip", 8, 41), "expected 82");
    says(&change("product-ip", 53, 9), "has 9 bits per level");
    says(&change("product-ip", 45, 4), "cuts 6 dimensions into 4 parts");
    // The numbers of bits come behind their count.
    says(&change("residual-ip", 61, 4), "levels of [4, 3, 3] bits");
    says(&change("residual-ip", 85, 0), "is not trained");
    // The last id.
    let mapped = read("product-l2-idmap");
    says(&change("product-l2-idmap", mapped.len() - 1, 0x80), "has -9223372036854774840 as an id");
    says(&change("product-l2-idmap", 8, 41), "has 41 items in its map of ids, expected 40");
    says(&change("residual-ip-idmap2", 37 + 2, b'F'), "begins with `IxFq`");
}

#[test]
fn damaged_indexes_are_refused_or_read() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let whole = fs::read(fixture("product-l2-idmap.index")).unwrap();
    for end in (0..whole.len()).step_by(37).chain([whole.len() - 1]) {
        fs::write(dir.join("x.index"), &whole[..end]).unwrap();
        error(dir, "index import --from faiss x.index --out x.dpq", 1);
    }
    for at in (0..whole.len()).step_by(11) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        fs::write(dir.join("x.index"), bytes).unwrap();
        let code = dpq(dir, "index import --from faiss x.index --out x.dpq").status.code();
        assert!([Some(0), Some(1)].contains(&code), "byte {at} changed: {code:?}");
    }
}
