//! Indexes of faiss, out and in. `crates/dpq/tests/faiss.rs` reads files that faiss wrote.

use std::fs;

use dpq_codebook::{Assignment, Codebooks, Form};
use dpq_formats::FaissIndex;
use tempfile::TempDir;

fn codebooks(n_codewords: usize) -> Codebooks {
    let values = (0..3 * n_codewords * 2).map(|i| (i as f32 * 0.37).sin()).collect();
    Codebooks::new(values, 3, n_codewords, 2, Assignment::Euclidean).unwrap()
}

fn index(is_euclidean: bool, ids: Option<Vec<u64>>) -> FaissIndex {
    FaissIndex { is_euclidean, codebooks: codebooks(256), codes: vec![0, 1, 2, 255, 0, 7, 3, 3, 3], ids }
}

#[test]
fn indexes_survive_the_round_trip() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.index");
    for is_euclidean in [false, true] {
        for (ids, kind) in [(None, b"IxRq"), (Some(vec![9, 0, i64::MAX as u64]), b"IxMp")] {
            let index = index(is_euclidean, ids);
            index.save(&path).unwrap();
            assert_eq!(&fs::read(&path).unwrap()[..4], kind);
            // The first kind keeps norms behind the codes, which are skipped.
            assert_eq!(FaissIndex::open(&path).unwrap(), index);
        }
        index(is_euclidean, Some(vec![0, 1, 2])).save(&path).unwrap();
        assert_eq!(FaissIndex::open(&path).unwrap(), index(is_euclidean, None), "row numbers need no map");
    }
}

#[test]
fn product_codebooks_become_an_index_pq() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.index");
    let values: Vec<f32> = (0..3 * 256 * 2).map(|i| (i as f32 * 0.37).sin()).collect();
    let make = |values: Vec<f32>, n_codewords| {
        Codebooks::with_form(Form::Product, values, 3, n_codewords, 6, Assignment::Euclidean).unwrap()
    };
    for is_euclidean in [false, true] {
        for (ids, kind) in [(None, b"IxPq"), (Some(vec![9, 0, i64::MAX as u64]), b"IxMp")] {
            let product = FaissIndex { codebooks: make(values.clone(), 256), ..index(is_euclidean, ids) };
            product.save(&path).unwrap();
            assert_eq!(&fs::read(&path).unwrap()[..4], kind);
            assert_eq!(FaissIndex::open(&path).unwrap(), product);
        }
    }
    // Missing codewords are zeros.
    let few = make(values[..3 * 5 * 2].to_vec(), 5);
    let product = FaissIndex { codebooks: few.clone(), codes: vec![0, 1, 2], ..index(true, None) };
    product.save(&path).unwrap();
    let read = FaissIndex::open(&path).unwrap().codebooks;
    for level in 0..3 {
        assert_eq!(&read.level(level)[..10], few.level(level));
        assert!(read.level(level)[10..].iter().all(|&value| value == 0.0));
    }
}

/// The advice is followed by taking the map away, as the Python code of the message does.
#[test]
fn repeated_ids_are_refused_with_advice_that_works() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.index");
    index(false, Some(vec![7, 3, 7])).save(&path).unwrap();
    let error = FaissIndex::open(&path).unwrap_err().to_string();
    assert!(error.contains("x.index: gives the id 7 to several items, expected distinct ids"), "{error}");
    assert!(error.contains("faiss.write_index(faiss.read_index(file).index, new_file)"), "{error}");
    let bytes = fs::read(&path).unwrap();
    // A map is its letters and header of 37 bytes, and the ids behind the index.
    fs::write(&path, &bytes[37..bytes.len() - 8 - 3 * 8]).unwrap();
    assert_eq!(FaissIndex::open(&path).unwrap(), index(false, None));
}

#[test]
fn contents_that_faiss_cannot_hold_are_not_written() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.index");
    let error = |change: &dyn Fn(&mut FaissIndex)| {
        let mut index = index(true, Some(vec![1, 2, 3]));
        change(&mut index);
        let error = index.save(&path).unwrap_err().to_string();
        assert!(!path.exists());
        error
    };
    assert!(
        error(&|index| index.ids = Some(vec![1, 2, 1 << 63])).starts_with("has 9223372036854775808 as an id")
    );
    assert_eq!(error(&|index| index.ids = Some(vec![1])), "has 1 values for its shape, expected 3");
    assert_eq!(error(&|index| index.codes = vec![1; 4]), "has 4 values for its shape, expected 3");
    assert!(error(&|index| index.codebooks = codebooks(128)).contains("expected 1 to 128"));
}
