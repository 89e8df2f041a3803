//! Files of versions 1 to 3, kept for ever: they must open and give these answers whatever this
//! crate becomes.

use std::path::PathBuf;

use dpq_index::{Index, Metric, SearchOptions};

use crate::gallery::{Gallery, Random, Recipe, bits};

fn golden(metric: Metric) -> Recipe {
    // Euclidean with codes that repeat and inner product with codes that do not: together all
    // sections there are.
    let n_distinct = if metric == Metric::Euclidean { 40 } else { 2000 };
    Recipe {
        seed: 10,
        metric,
        n_levels: 4,
        n_codewords: 7,
        n_items: 300,
        n_distinct,
        id_limit: Some(1 << 20),
    }
}

/// Checks the golden file of a gallery, and if it `is_current` that today's builder writes the same
/// bytes.
fn check(file: &str, gallery: &Gallery, is_current: bool) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(file);
    let index = Index::open(&path).unwrap();
    index.verify().unwrap();
    assert_eq!((index.len(), index.metric(), index.n_distinct()), (300, gallery.metric, n_distinct(gallery)));
    assert_eq!(index.codebooks().values(), gallery.codebooks.values());
    assert_eq!(index.fingerprint(), gallery.codebooks.fingerprint());
    let mut items: Vec<(u64, &[u8])> = gallery.ids().into_iter().zip(gallery.codes.chunks(4)).collect();
    items.sort_unstable();
    assert!(items.iter().all(|&(id, code)| index.code_of(id).as_deref() == Some(code)));
    let (ids, codes): (Vec<u64>, Vec<&[u8]>) = items.into_iter().unzip();
    assert_eq!(index.code_of(ids[299].wrapping_add(1)), None);
    assert_eq!(index.ids_and_codes(), (ids, codes.concat()));
    let mut random = Random(11);
    let table = gallery.table(|| random.coarse());
    for length in gallery.codebooks.lengths() {
        let options = SearchOptions::new(50).length(length);
        let expected = gallery.ranking(&table, length.levels(), |_| true);
        assert_eq!(bits(&index.search_with(&table, &options).unwrap()), bits(&expected[..50]));
    }
    let expected = std::fs::read(&path).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy.dpq");
    index.save(&copy).unwrap();
    assert!(std::fs::read(&copy).unwrap() == expected, "the bytes of a copy of {file} differ");
    if !is_current {
        return;
    }
    // The format has one way to write an index, so today's builder writes the same file.
    assert!(gallery.bytes() == expected, "the bytes of a new {file} differ");
    // In memory too.
    gallery.builder().build().unwrap().save(&copy).unwrap();
    assert!(std::fs::read(&copy).unwrap() == expected, "the bytes of {file} made in memory differ");
}

fn n_distinct(gallery: &Gallery) -> usize {
    let mut codes: Vec<&[u8]> = gallery.codes.chunks(4).collect();
    codes.sort_unstable();
    codes.dedup();
    codes.len()
}

#[test]
fn version_1_inner_product() {
    check("v1.dpq", &golden(Metric::InnerProduct).gallery(), true);
}

#[test]
fn version_1_euclidean() {
    check("v1-l2.dpq", &golden(Metric::Euclidean).gallery(), false);
}

#[test]
fn version_2_euclidean() {
    check("v2-l2.dpq", &golden(Metric::Euclidean).gallery(), true);
}

#[test]
fn version_3_euclidean() {
    check("v3-l2.dpq", &golden(Metric::Euclidean).product(), true);
}
