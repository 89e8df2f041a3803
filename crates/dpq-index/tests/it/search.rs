//! Search equals its definition: ids, order and score bits.

use dpq_codebook::{CodeLength, LookupTable};
use dpq_index::{Codes, Hit, Kernel, Metric, SearchOptions, score_block};
use proptest::prelude::*;

use crate::gallery::{Gallery, Random, Recipe, bits};

fn recipe() -> impl Strategy<Value = Recipe> {
    (
        any::<u64>(),
        prop_oneof![Just(Metric::InnerProduct), Just(Metric::Euclidean)],
        1..=8usize,
        prop_oneof![Just(1), Just(2), Just(5), Just(255), Just(256)],
        0..700usize,
        prop_oneof![Just(1), Just(7), Just(60), Just(400)],
        prop_oneof![Just(None), Just(Some(1)), Just(Some(1 << 20)), Just(Some(1 << 60))],
    )
        .prop_map(|(seed, metric, n_levels, n_codewords, n_items, n_distinct, id_limit)| Recipe {
            seed,
            metric,
            n_levels,
            n_codewords,
            n_items,
            n_distinct,
            id_limit,
        })
}

/// Returns tables that are hard in different ways.
fn tables(gallery: &Gallery, random: &mut Random) -> Vec<LookupTable> {
    let mut signs = random.clone();
    vec![
        gallery.table(|| random.fine()),
        gallery.table(|| random.coarse()),
        gallery.table(|| if signs.next().is_multiple_of(2) { 0.0 } else { -0.0 }),
        gallery.table(|| 1.0 + random.fine() * f32::EPSILON),
        gallery.table(|| random.fine() * f32::MAX),
    ]
}

fn search(gallery: &Gallery, index: &dpq_index::Index, table: &LookupTable, random: &mut Random) {
    let ids = gallery.ids();
    let some_ids: Vec<u64> =
        ids.iter().copied().filter(|_| random.next().is_multiple_of(3)).chain([u64::MAX]).collect();
    for levels in 1..=gallery.n_levels() {
        let length = CodeLength::from_levels(levels).unwrap();
        let all = gallery.ranking(table, levels, |_| true);
        let check = |options: SearchOptions, expected: &[Hit]| {
            for kernel in Kernel::available() {
                let found = index.search(table, &options.kernel(kernel)).unwrap();
                assert_eq!(bits(&found), bits(expected), "{kernel}");
            }
        };
        // A k in the middle often cuts a tie.
        for k in [1, 1 + random.below(all.len().max(1)), all.len().max(1), all.len() + 1, usize::MAX] {
            check(SearchOptions::new(k, length), &all[..k.min(all.len())]);
        }
        every_code_has_the_score_of_its_items(index, table, length, &all);
        let Some(middle) = (!all.is_empty()).then(|| all[random.below(all.len())]) else { continue };
        let above: Vec<Hit> = all.iter().copied().filter(|hit| hit.score >= middle.score).collect();
        check(SearchOptions::new(all.len(), length).min_score(middle.score), &above);
        check(SearchOptions::new(3, length).min_score(middle.score), &above[..above.len().min(3)]);
        let infinite: Vec<Hit> = all.iter().copied().filter(|hit| hit.score == f32::INFINITY).collect();
        check(SearchOptions::new(all.len(), length).min_score(f32::INFINITY), &infinite);

        let (allow, deny) = (index.allow(&some_ids), index.deny(&some_ids));
        let allowed: Vec<Hit> = all.iter().copied().filter(|hit| some_ids.contains(&hit.id)).collect();
        let rest: Vec<Hit> = all.iter().copied().filter(|hit| !some_ids.contains(&hit.id)).collect();
        assert_eq!((allow.len(), deny.len()), (allowed.len(), rest.len()));
        for k in [1, 1 + random.below(all.len()), all.len()] {
            check(SearchOptions::new(k, length).filter(&allow), &allowed[..k.min(allowed.len())]);
            check(SearchOptions::new(k, length).filter(&deny), &rest[..k.min(rest.len())]);
        }
        let both: Vec<Hit> = rest.iter().copied().filter(|hit| hit.score >= middle.score).collect();
        check(SearchOptions::new(all.len(), length).filter(&deny).min_score(middle.score), &both);
    }
}

/// Tells the score of every item by its code.
fn every_code_has_the_score_of_its_items(
    index: &dpq_index::Index,
    table: &LookupTable,
    length: CodeLength,
    all: &[Hit],
) {
    let codes = index.distinct_codes(length).unwrap();
    let mut scores = vec![0.0; codes.len()];
    codes.score(table, &mut scores).unwrap();
    let mut hits = Vec::new();
    for (&score, run) in scores.iter().zip(codes.starts().windows(2)) {
        let ids = &codes.ids()[run[0] as usize..run[1] as usize];
        assert!(!ids.is_empty() && ids.is_sorted());
        hits.extend(ids.iter().map(|&id| Hit { id, score }));
    }
    hits.sort_by(|a, b| b.score.partial_cmp(&a.score).unwrap().then(a.id.cmp(&b.id)));
    assert_eq!(bits(&hits), bits(all));
    assert_eq!(codes.is_empty(), all.is_empty());
    assert!(length < index.max_length() || codes.len() == index.n_distinct());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn search_equals_the_definition(recipe in recipe()) {
        let gallery = recipe.gallery();
        let index = gallery.index();
        index.verify().unwrap();
        let mut random = Random(!recipe.seed);
        for table in tables(&gallery, &mut random) {
            search(&gallery, &index, &table, &mut random);
        }
    }
}

#[test]
fn large_galleries_equal_the_definition() {
    // More positions than cells, and more runs than a small sort takes: both have routes of their own.
    let n_levels = 3;
    for (metric, id_limit) in [(Metric::InnerProduct, None), (Metric::Euclidean, Some(1 << 60))] {
        let recipe = Recipe {
            seed: 12,
            metric,
            n_levels,
            n_codewords: 256,
            n_items: 70_000,
            n_distinct: 70_000,
            id_limit,
        };
        let gallery = recipe.gallery();
        let index = gallery.index();
        index.verify().unwrap();
        assert!(index.n_distinct() > 35_000, "positions are items");
        let mut random = Random(13);
        for table in tables(&gallery, &mut random) {
            for levels in 1..=n_levels {
                let all = gallery.ranking(&table, levels, |_| true);
                let length = CodeLength::from_levels(levels).unwrap();
                for k in [1, 10, 1000, 20_000, 69_999, 70_000] {
                    for kernel in Kernel::available() {
                        let options = SearchOptions::new(k, length).kernel(kernel);
                        let found = index.search(&table, &options).unwrap();
                        let what = format!("{metric}, {levels} levels, k = {k}, {kernel}");
                        assert!(bits(&found) == bits(&all[..k]), "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn filters_of_large_galleries_equal_the_definition() {
    // Three of four items pass, too many to list; in the second gallery positions are codes that several items share.
    for (metric, n_items) in [(Metric::InnerProduct, 30_000), (Metric::Euclidean, 120_000)] {
        let recipe = Recipe {
            seed: 15,
            metric,
            n_levels: 4,
            n_codewords: 256,
            n_items,
            n_distinct: 30_000,
            id_limit: None,
        };
        let gallery = recipe.gallery();
        let index = gallery.index();
        let denied: Vec<u64> = (0..n_items as u64).filter(|id| id % 4 == 0).collect();
        let filter = index.deny(&denied);
        let mut random = Random(16);
        for table in tables(&gallery, &mut random) {
            let all = gallery.ranking(&table, 4, |hit| hit.id % 4 != 0);
            for k in [1, 10, 300, 3000] {
                for kernel in Kernel::available() {
                    let options = SearchOptions::new(k, index.max_length()).filter(&filter).kernel(kernel);
                    let found = index.search(&table, &options).unwrap();
                    assert!(bits(&found) == bits(&all[..k]), "{metric}, k = {k}, {kernel}");
                }
            }
        }
    }
}

#[test]
fn long_ties_give_the_least_ids() {
    // 9,000 items share three codes, so that ids come through many blocks of `id_min`.
    for n_distinct in [3, 9000] {
        let recipe = Recipe {
            seed: 1,
            metric: Metric::InnerProduct,
            n_levels: 3,
            n_codewords: 20,
            n_items: 9000,
            n_distinct,
            id_limit: Some(1 << 40),
        };
        let gallery = recipe.gallery();
        let index = gallery.index();
        let table = gallery.table(|| 0.5);
        let all = gallery.ranking(&table, 3, |_| true);
        for k in [1, 10, 255, 256, 257, 3000, 8999, 9000] {
            let options = SearchOptions::new(k, CodeLength::from_levels(3).unwrap());
            assert_eq!(bits(&index.search(&table, &options).unwrap()), bits(&all[..k]));
        }
    }
}

#[test]
fn a_batch_that_reads_most_codes_gives_what_single_searches_give() {
    // Only planes longer than the caches are read for several queries at once.
    for metric in [Metric::InnerProduct, Metric::Euclidean] {
        let recipe = Recipe {
            seed: 21,
            metric,
            n_levels: 4,
            n_codewords: 256,
            n_items: 800_000,
            n_distinct: 800_000,
            id_limit: None,
        };
        let gallery = recipe.gallery();
        let index = gallery.index();
        let mut random = Random(22);
        let tables: Vec<LookupTable> = (0..6).map(|_| gallery.table(|| random.fine())).collect();
        let some = index.deny(&(0..800_000).step_by(3).collect::<Vec<_>>());
        for k in [20_000, 800_000] {
            let options = SearchOptions::new(k, index.max_length());
            for options in [options, options.min_score(0.5), options.filter(&some)] {
                let batch = index.search_batch(&tables, &options).unwrap();
                for (table, hits) in tables.iter().zip(batch) {
                    assert!(
                        bits(&hits) == bits(&index.search(table, &options).unwrap()),
                        "{metric}, k = {k}"
                    );
                }
            }
        }
    }
}

#[test]
fn blocks_have_the_scores_of_searches() {
    for n_levels in [1, 2, 4, 7] {
        let recipe = Recipe {
            seed: 31,
            metric: Metric::InnerProduct,
            n_levels,
            n_codewords: 40,
            n_items: 333,
            n_distinct: 300,
            id_limit: None,
        };
        let gallery = recipe.gallery();
        let mut random = Random(5);
        let table = gallery.table(|| random.fine());
        let planes: Vec<Vec<u8>> = (0..n_levels)
            .map(|level| gallery.codes.iter().skip(level).step_by(n_levels).copied().collect())
            .collect();
        let planes: Vec<&[u8]> = planes.iter().map(Vec::as_slice).collect();
        for levels in 1..=n_levels {
            let length = CodeLength::from_levels(levels).unwrap();
            for codes in [Codes::Rows(&gallery.codes), Codes::Planes(&planes)] {
                let mut scores = vec![0.0; 333];
                score_block(&table, codes, length, &mut scores).unwrap();
                for hit in gallery.index().search(&table, &SearchOptions::new(333, length)).unwrap() {
                    assert_eq!(scores[hit.id as usize].to_bits(), hit.score.to_bits());
                }
            }
        }
    }
}

#[test]
fn blocks_of_the_wrong_shape_are_refused() {
    let table = LookupTable::new(vec![1.0; 6], 2, 3).unwrap();
    let says = |codes: Codes, levels: usize, expected: &str| {
        let length = CodeLength::from_levels(levels).unwrap();
        let error = score_block(&table, codes, length, &mut [0.0; 2]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    says(Codes::Rows(&[0; 3]), 2, "3 bytes of codes, expected 2 rows of 2");
    says(Codes::Rows(&[0; 4]), 3, "the length is 24 bits, but the lookup table has 2 levels");
    says(
        Codes::Rows(&[0, 0, 0, 3]),
        2,
        "code 1 has a byte that is no codeword, the lookup table has 3 codewords",
    );
    says(Codes::Planes(&[&[0, 0]]), 2, "planes of [2] codes, expected 2 of 2");
    says(Codes::Planes(&[&[0, 0], &[0]]), 2, "planes of [2, 1] codes, expected 2 of 2");
    score_block(&table, Codes::Rows(&[]), CodeLength::from_levels(2).unwrap(), &mut []).unwrap();
}

#[test]
fn scores_are_what_the_metric_says() {
    for metric in [Metric::InnerProduct, Metric::Euclidean] {
        let recipe = Recipe {
            seed: 4,
            metric,
            n_levels: 4,
            n_codewords: 30,
            n_items: 500,
            n_distinct: 500,
            id_limit: None,
        };
        let gallery = recipe.gallery();
        let index = gallery.index();
        let query = [0.3, -0.7, 1.1];
        let table = index.lookup_table(&query).unwrap();
        for levels in 1..=4 {
            let length = CodeLength::from_levels(levels).unwrap();
            let decoded = gallery.codebooks.decode(&gallery.codes, length).unwrap();
            for hit in index.search(&table, &SearchOptions::new(500, length)).unwrap() {
                let item = &decoded[hit.id as usize * 3..][..3];
                let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| a * b).sum::<f32>();
                let expected = match metric {
                    Metric::InnerProduct => dot(&query, item),
                    Metric::Euclidean => 2.0 * dot(&query, item) - dot(item, item),
                };
                assert!((hit.score - expected).abs() < 1e-3, "{metric}: {} is not {expected}", hit.score);
            }
        }
    }
}
