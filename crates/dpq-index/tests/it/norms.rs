//! Norms in a file of version 2.

use dpq_index::{CodeLength, Metric, SearchOptions};

use crate::gallery::{Random, Recipe, bits};

/// A search finds the same at lengths that the file has norms for and at those that it lacks.
#[test]
fn norms_in_the_file_and_norms_made_later_are_the_same() {
    let recipe = Recipe {
        seed: 21,
        metric: Metric::Euclidean,
        n_levels: 12,
        n_codewords: 9,
        n_items: 900,
        n_distinct: 700,
        id_limit: None,
    };
    let gallery = recipe.gallery();
    let lengths: Vec<CodeLength> = [5, 1, 12, 5].map(|n| CodeLength::from_levels(n).unwrap()).to_vec();
    let [all, some, none] = [None, Some(&lengths[..]), Some(&[])].map(|lengths| {
        let builder = gallery.builder();
        let index = lengths.map_or(builder, |lengths| builder.norm_lengths(lengths)).build().unwrap();
        index.verify().unwrap();
        index
    });
    assert!(all.n_bytes() > some.n_bytes() && some.n_bytes() > none.n_bytes());
    let table = gallery.table(|| Random(22).fine());
    for levels in 1..=12 {
        let options = SearchOptions::new(50).length(CodeLength::from_levels(levels).unwrap());
        let expected = bits(&gallery.ranking(&table, levels, |_| true)[..50]);
        for index in [&all, &some, &none] {
            assert_eq!(bits(&index.search_with(&table, &options).unwrap()), expected);
        }
    }
}

/// A Euclidean file has the codebook, and per item its code, 4 bytes per length whose norm is kept,
/// and 4 bytes for everything else.
#[test]
fn long_codes_take_little_more_than_their_bytes() {
    let (n_levels, n_items) = (32, 64_000);
    let recipe = Recipe {
        seed: 23,
        metric: Metric::Euclidean,
        n_levels,
        n_codewords: 256,
        n_items,
        n_distinct: n_items,
        id_limit: None,
    };
    let gallery = recipe.gallery();
    let codebook = gallery.codebooks.values().len() * 4;
    let n_kept = 8 + [12, 16, 24, 32].len();
    let limit = codebook + n_items * (n_levels + 4 * n_kept + 4);
    let found = gallery.builder().build().unwrap().n_bytes();
    assert!(found <= limit, "{found} bytes, expected at most {limit}");
}
