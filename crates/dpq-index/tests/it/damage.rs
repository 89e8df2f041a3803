//! Damaged files: never a panic, and `verify` names every changed byte.

use dpq_index::{CodeLength, Error, Form, Index, LookupTable, Metric, SearchOptions};
use proptest::prelude::*;

use crate::gallery::{Gallery, Random, Recipe};

fn gallery(metric: Metric, n_levels: usize, n_distinct: usize) -> Gallery {
    Recipe { seed: 5, metric, n_levels, n_codewords: 4, n_items: 60, n_distinct, id_limit: Some(1 << 40) }
        .gallery()
}

fn product(n_levels: usize, n_distinct: usize) -> Gallery {
    let metric = Metric::Euclidean;
    Recipe { seed: 5, metric, n_levels, n_codewords: 4, n_items: 60, n_distinct, id_limit: Some(1 << 40) }
        .product()
}

/// Uses an index in every way, whatever it returns.
fn use_it(index: &Index) {
    let (n_levels, n_codewords) = (index.codebooks().n_levels(), index.codebooks().n_codewords());
    let mut random = Random(6);
    let values = (0..n_levels * n_codewords).map(|_| random.coarse()).collect();
    let table = LookupTable::new(values, n_levels, n_codewords).unwrap();
    let filter = index.deny(&[3]);
    assert!(index.prefix_counts(&vec![0; n_levels], Some(&filter)).unwrap()[0] <= filter.len());
    for length in index.codebooks().lengths() {
        if let Ok(codes) = index.distinct_codes(length) {
            assert_eq!(codes.ids().len(), index.len());
            codes.score(&table, &mut vec![0.0; codes.len()]).unwrap();
        }
        for k in [1, 5, usize::MAX] {
            let hits = index.search_with(&table, &SearchOptions::new(k).length(length)).unwrap();
            assert!(hits.len() <= k.min(index.len()));
            let hits =
                index.search_with(&table, &SearchOptions::new(k).length(length).filter(&filter)).unwrap();
            assert!(hits.len() <= k.min(filter.len()));
            let short = CodeLength::from_levels(1.max(length.levels() / 2)).unwrap();
            let short = if index.codebooks().form() == Form::Product { length } else { short };
            let options = SearchOptions::new(k).length(length).shortlist(k, short).exact();
            assert!(index.search_with(&table, &options).unwrap().len() <= k.min(index.len()));
        }
    }
}

/// Opens, uses and verifies bytes of which some were changed; opening or `verify` must find it.
fn check(bytes: Vec<u8>, what: &str) {
    if let Ok(index) = Index::from_bytes(bytes) {
        use_it(&index);
        assert!(index.verify().is_err(), "{what}");
    }
}

/// Flips each byte, but only some of the long directory, whose bytes are all alike.
fn flip_every_byte(gallery: &Gallery) {
    let bytes = gallery.bytes();
    let directory = if gallery.n_levels() == 1 { 0..0 } else { cells(&bytes) };
    for at in 0..bytes.len() {
        if directory.contains(&at) && !(at - directory.start).is_multiple_of(1021) {
            continue;
        }
        let mut damaged = bytes.clone();
        // Low bits make near misses, such as `items` 60 and 61, and all bits make nonsense.
        damaged[at] ^= if at % 2 == 0 { 0xff } else { 1 };
        check(damaged, &format!("byte {at} of {}", bytes.len()));
    }
}

/// Returns where the section `cells` lies.
fn cells(bytes: &[u8]) -> std::ops::Range<usize> {
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    // Sections lie in the order of their names, and no name comes before it.
    let file = dpq_file::Container::from_bytes(bytes.to_vec()).unwrap();
    data..data + file.section("cells").unwrap().bytes.len()
}

#[test]
fn every_flipped_byte_is_named() {
    flip_every_byte(&gallery(Metric::InnerProduct, 1, 4));
    flip_every_byte(&gallery(Metric::Euclidean, 1, 60));
    flip_every_byte(&gallery(Metric::InnerProduct, 3, 60));
    flip_every_byte(&gallery(Metric::Euclidean, 4, 10));
    flip_every_byte(&product(3, 60));
}

#[test]
fn every_truncation_is_named() {
    let bytes = gallery(Metric::Euclidean, 1, 60).bytes();
    for len in 0..bytes.len() {
        let error = Index::from_bytes(bytes[..len].to_vec()).expect_err("a truncated file does not open");
        assert!(matches!(error, Error::File(_)), "{len}: {error}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(Index::from_bytes(longer).is_err());
}

/// Rewrites the file with a section changed and its checksum right: only the meaning of the bytes
/// is wrong.
fn with_section(gallery: &Gallery, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Index {
    let file = dpq_file::Container::from_bytes(gallery.bytes()).unwrap();
    let mut sections: Vec<(&str, dpq_file::Section, Vec<u8>)> = file
        .names()
        .map(|name| (name, file.section(name).unwrap(), file.section(name).unwrap().bytes.to_vec()))
        .collect();
    let (_, _, bytes) = sections.iter_mut().find(|(found, ..)| *found == name).unwrap();
    change(bytes);
    let sections: Vec<_> = sections
        .iter()
        .map(|(name, section, bytes)| (*name, dpq_file::Section { bytes, ..*section }))
        .collect();
    let keys = ["format", "version", "metric", "items", "distinct", "fingerprint", "assignment", "form"]
        .map(str::to_owned)
        .into_iter()
        .chain(["norms".to_owned()]);
    let metadata = keys
        .filter_map(|key| file.metadata(&key).ok().map(|value| (key.clone(), value.to_owned())))
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("changed.dpq");
    dpq_file::write(&path, &metadata, &sections).unwrap();
    Index::from_bytes(std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn wrong_contents_are_named_by_section() {
    let euclidean = gallery(Metric::Euclidean, 4, 10);
    let inner_product = gallery(Metric::InnerProduct, 4, 10);
    let sections = [
        "cells",
        "plane.1",
        "plane.2",
        "starts",
        "ids",
        "id_min",
        "norms.pairs",
        "norms.3.high",
        "norms.3.low",
        "norms.4.rows",
    ];
    let sections = sections.map(|name| (&euclidean, name)).into_iter().chain([(&inner_product, "sample")]);
    for (gallery, name) in sections {
        let index =
            with_section(gallery, name, |bytes| bytes[..8].iter_mut().for_each(|byte| *byte = !*byte));
        use_it(&index);
        let message = index.verify().expect_err(name).to_string();
        assert!(message.contains(&format!("section `{name}`")), "{name}: {message}");
    }
}

#[test]
fn a_duplicate_id_inside_is_named() {
    let gallery = gallery(Metric::InnerProduct, 1, 60);
    // The first items of the second code get the id of the first item of all, and `id_min` stays
    // right.
    let index = with_section(&gallery, "ids", |bytes| {
        let n_first = gallery.codes.iter().filter(|&&code| code == 0).count();
        let least = bytes.chunks_exact(8).min_by_key(|id| u64::from_le_bytes((*id).try_into().unwrap()));
        let least = least.unwrap().to_vec();
        bytes[..8].copy_from_slice(&least);
        bytes[n_first * 8..][..8].copy_from_slice(&least);
    });
    let message = index.verify().unwrap_err().to_string();
    assert!(message.contains("more than once"), "{message}");
}

/// Overwrites parts of the sections with noise, and uses what is left.
fn survives_noise(mut bytes: Vec<u8>, seed: u64) {
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut random = Random(seed);
    for _ in 0..20 {
        let start = data + random.below(bytes.len() - data);
        let end = bytes.len().min(start + random.below(5000));
        bytes[start..end].iter_mut().for_each(|byte| *byte = random.next() as u8);
    }
    check(bytes, "noise");
}

#[test]
fn noise_in_a_large_file_is_survived() {
    // More positions than cells: two levels are then searched by the directory alone, and norms
    // have a model.
    for metric in [Metric::InnerProduct, Metric::Euclidean] {
        let recipe = Recipe {
            seed: 14,
            metric,
            n_levels: 3,
            n_codewords: 256,
            n_items: 70_000,
            n_distinct: 70_000,
            id_limit: None,
        };
        let bytes = recipe.gallery().bytes();
        (0..8).for_each(|seed| survives_noise(bytes.clone(), seed));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn noise_inside_sections_is_survived(
        seed in any::<u64>(), n_distinct in prop_oneof![Just(4usize), Just(60)], n_levels in 1..5usize
    ) {
        survives_noise(gallery(Metric::Euclidean, n_levels, n_distinct).bytes(), seed);
        survives_noise(product(n_levels, n_distinct).bytes(), seed);
    }
}
