//! Search equals its definition: ids, order and score bits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dpq_index::{CodeLength, Error, Form, Hit, Kernel, LookupTable, Metric, SearchOptions};
use proptest::prelude::*;

use crate::gallery::{Gallery, Random, Recipe, bits};

fn recipe() -> impl Strategy<Value = Recipe> {
    (
        any::<u64>(),
        prop_oneof![Just(Metric::InnerProduct), Just(Metric::Euclidean)],
        prop_oneof![6 => 1..=8usize, 1 => 9..=64usize],
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
    let has_terms = gallery.codebooks.form() == Form::Product && gallery.metric == Metric::Euclidean;
    vec![
        gallery.table(|| random.fine()),
        gallery.table(|| random.coarse()),
        gallery.table(|| if signs.next().is_multiple_of(2) { 0.0 } else { -0.0 }),
        gallery.table(|| 1.0 + random.fine() * f32::EPSILON),
        // Twice an entry is finite where a Euclidean product needs it.
        gallery.table(|| random.fine() * f32::MAX / if has_terms { 4.0 } else { 1.0 }),
    ]
}

fn search(gallery: &Gallery, index: &dpq_index::Index, table: &LookupTable, random: &mut Random) {
    let ids = gallery.ids();
    let some_ids: Vec<u64> =
        ids.iter().copied().filter(|_| random.next().is_multiple_of(3)).chain([u64::MAX]).collect();
    let mut skips = random.clone();
    for length in gallery.codebooks.lengths() {
        let levels = length.levels();
        // Long codes are searched at the greatest length and at some others.
        if levels < gallery.n_levels() && skips.below(levels) > 3 {
            continue;
        }
        let all = gallery.ranking(table, levels, |_| true);
        let check = |options: SearchOptions, expected: &[Hit]| {
            for kernel in Kernel::available() {
                let found = index.search_with(table, &options.kernel(kernel)).unwrap();
                assert_eq!(bits(&found), bits(expected), "{kernel}");
            }
        };
        // A k in the middle often cuts a tie.
        for k in [1, 1 + random.below(all.len().max(1)), all.len().max(1), all.len() + 1, usize::MAX] {
            check(SearchOptions::new(k).length(length), &all[..k.min(all.len())]);
        }
        every_code_has_the_score_of_its_items(index, table, length, &all);
        let Some(middle) = (!all.is_empty()).then(|| all[random.below(all.len())]) else { continue };
        let above: Vec<Hit> = all.iter().copied().filter(|hit| hit.score >= middle.score).collect();
        check(SearchOptions::new(all.len()).length(length).min_score(middle.score), &above);
        check(SearchOptions::new(3).length(length).min_score(middle.score), &above[..above.len().min(3)]);
        let infinite: Vec<Hit> = all.iter().copied().filter(|hit| hit.score == f32::INFINITY).collect();
        check(SearchOptions::new(all.len()).length(length).min_score(f32::INFINITY), &infinite);

        let (allow, deny) = (index.allow(&some_ids), index.deny(&some_ids));
        let allowed: Vec<Hit> = all.iter().copied().filter(|hit| some_ids.contains(&hit.id)).collect();
        let rest: Vec<Hit> = all.iter().copied().filter(|hit| !some_ids.contains(&hit.id)).collect();
        assert_eq!((allow.len(), deny.len()), (allowed.len(), rest.len()));
        for k in [1, 1 + random.below(all.len()), all.len()] {
            check(SearchOptions::new(k).length(length).filter(&allow), &allowed[..k.min(allowed.len())]);
            check(SearchOptions::new(k).length(length).filter(&deny), &rest[..k.min(rest.len())]);
        }
        let both: Vec<Hit> = rest.iter().copied().filter(|hit| hit.score >= middle.score).collect();
        check(SearchOptions::new(all.len()).length(length).filter(&deny).min_score(middle.score), &both);
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
        for gallery in [recipe.gallery(), recipe.product()] {
            let index = gallery.index();
            index.verify().unwrap();
            let mut random = Random(!recipe.seed);
            for table in tables(&gallery, &mut random) {
                search(&gallery, &index, &table, &mut random);
            }
        }
    }
}

#[test]
fn large_galleries_equal_the_definition() {
    // More positions than cells, and more runs than a small sort takes: both have routes of their
    // own.
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
        for gallery in [recipe.gallery(), recipe.product()] {
            let index = gallery.index();
            index.verify().unwrap();
            assert!(index.n_distinct() > 35_000, "positions are items");
            let mut random = Random(13);
            for table in tables(&gallery, &mut random) {
                for length in gallery.codebooks.lengths() {
                    let all = gallery.ranking(&table, length.levels(), |_| true);
                    for k in [1, 10, 1000, 20_000, 69_999, 70_000] {
                        for kernel in Kernel::available() {
                            let options = SearchOptions::new(k).length(length).kernel(kernel);
                            let found = index.search_with(&table, &options).unwrap();
                            let what = format!("{metric}, {length}, k = {k}, {kernel}");
                            assert!(bits(&found) == bits(&all[..k]), "{what}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn filters_of_large_galleries_equal_the_definition() {
    // Three of four items pass, too many to list; in the second gallery positions are codes that
    // several items share.
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
                    let options = SearchOptions::new(k).filter(&filter).kernel(kernel);
                    let found = index.search_with(&table, &options).unwrap();
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
            let options = SearchOptions::new(k).length(CodeLength::from_levels(3).unwrap());
            assert_eq!(bits(&index.search_with(&table, &options).unwrap()), bits(&all[..k]));
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
        let queries: Vec<f32> = (0..6 * 3).map(|_| random.fine()).collect();
        let some = index.deny(&(0..800_000).step_by(3).collect::<Vec<_>>());
        for k in [20_000, 800_000] {
            let options = SearchOptions::new(k);
            for options in [options, options.min_score(0.5), options.filter(&some)] {
                let batch = index.search_batch(&queries, &options).unwrap();
                assert_eq!(batch.len(), 6);
                for (query, hits) in queries.chunks(3).zip(batch) {
                    let expected = index.search_with(&index.lookup_table(query).unwrap(), &options).unwrap();
                    assert!(bits(&hits) == bits(&expected), "{metric}, k = {k}");
                }
            }
        }
    }
}

#[test]
fn the_greatest_length_is_the_default() {
    let recipe = Recipe {
        seed: 50,
        metric: Metric::Euclidean,
        n_levels: 3,
        n_codewords: 20,
        n_items: 400,
        n_distinct: 300,
        id_limit: None,
    };
    let index = recipe.gallery().index();
    let query = [0.25, -0.5, 1.0];
    let table = index.lookup_table(&query).unwrap();
    let at = |levels, table: &LookupTable| {
        let options = SearchOptions::new(40).length(CodeLength::from_levels(levels).unwrap());
        bits(&index.search_with(table, &options).unwrap())
    };
    let options = SearchOptions::new(40);
    assert_eq!(bits(&index.search(&query, 40).unwrap()), at(3, &table));
    assert_eq!(bits(&index.search_with(&table, &options).unwrap()), at(3, &table));
    assert_eq!(bits(&index.search_batch(&[query, query].concat(), &options).unwrap()[1]), at(3, &table));
    // A table with fewer levels serves their length and those below.
    let short = index.lookup_table_at(&query, CodeLength::from_levels(2).unwrap()).unwrap();
    assert_eq!(bits(&index.search_with(&short, &options).unwrap()), at(2, &table));
    assert_eq!(at(1, &short), at(1, &table));
    assert_ne!(at(2, &table), at(3, &table));
}

#[test]
fn a_table_of_other_codebooks_is_refused() {
    let recipe = |seed| Recipe {
        seed,
        metric: Metric::InnerProduct,
        n_levels: 2,
        n_codewords: 20,
        n_items: 100,
        n_distinct: 100,
        id_limit: None,
    };
    let (one, other) = (recipe(55).gallery().index(), recipe(56).gallery().index());
    let table = other.lookup_table(&[0.3, -0.7, 1.1]).unwrap();
    let options = SearchOptions::new(5);
    assert!(matches!(one.search_with(&table, &options), Err(Error::ForeignTable)));
    let distinct = one.distinct_codes(one.max_length()).unwrap();
    let error = distinct.score(&table, &mut vec![0.0; distinct.len()]).unwrap_err();
    assert!(matches!(error, Error::ForeignTable), "{error}");
    // Entries of any other origin are scores that add up, and may be searched.
    let own = LookupTable::new(table.values().to_vec(), 2, 20).unwrap();
    assert_eq!(one.search_with(&own, &options).unwrap().len(), 5);
}

#[test]
fn distances_are_those_of_reconstructions() {
    let mut recipe = Recipe {
        seed: 51,
        metric: Metric::Euclidean,
        n_levels: 3,
        n_codewords: 20,
        n_items: 200,
        n_distinct: 200,
        id_limit: None,
    };
    let gallery = recipe.gallery();
    let index = gallery.index();
    let decoded = gallery.codebooks.decode(&gallery.codes, index.max_length()).unwrap();
    // The second query is an item, at distance 0.
    for query in [vec![0.3, -0.7, 1.1], decoded[30..33].to_vec()] {
        let hits = index.search(&query, 200).unwrap();
        let distances = index.squared_distances(&query, &hits).unwrap();
        assert!(distances.is_sorted() && distances.iter().all(|&distance| distance >= 0.0));
        for (hit, distance) in hits.iter().zip(distances) {
            let item = &decoded[hit.id as usize * 3..][..3];
            let expected: f32 = query.iter().zip(item).map(|(q, x)| (q - x) * (q - x)).sum();
            assert!((distance - expected).abs() < 1e-3, "{distance} is not {expected}");
        }
    }
    let error = index.squared_distances(&[1.0], &[]).unwrap_err();
    assert_eq!(error.to_string(), "query has 1 values, expected 3");
    recipe.metric = Metric::InnerProduct;
    let error = recipe.gallery().index().squared_distances(&[1.0, 0.0, 0.0], &[]).unwrap_err();
    assert!(matches!(error, Error::NoDistance), "{error}");
}

#[test]
fn an_interrupt_ends_a_search() {
    // At one level, at more, by listed items, and as a whole ranking, alone and in a batch.
    for n_levels in [1, 2, 4] {
        let recipe = Recipe {
            seed: 52,
            metric: Metric::InnerProduct,
            n_levels,
            n_codewords: 256,
            n_items: 5000,
            n_distinct: 5000,
            id_limit: None,
        };
        let index = recipe.gallery().index();
        let (interrupt, query) = (AtomicBool::new(false), [0.3, -0.7, 1.1]);
        let filter = index.allow(&[1, 2, 3]);
        for k in [1, 3000, 5000] {
            let options = SearchOptions::new(k).interrupt(&interrupt);
            for options in [options, options.filter(&filter)] {
                let search = || index.search_with(&index.lookup_table(&query).unwrap(), &options);
                let batch = || index.search_batch(&query.repeat(20), &options);
                interrupt.store(true, Ordering::Relaxed);
                assert!(matches!(search(), Err(Error::Interrupted)), "{n_levels} levels, k = {k}");
                assert!(matches!(batch(), Err(Error::Interrupted)), "{n_levels} levels, k = {k}");
                interrupt.store(false, Ordering::Relaxed);
                let hits = search().unwrap();
                assert!(batch().unwrap().iter().all(|other| bits(other) == bits(&hits)));
            }
        }
    }
}

#[test]
fn an_interrupt_ends_a_search_that_has_begun() {
    let recipe = Recipe {
        seed: 53,
        metric: Metric::Euclidean,
        n_levels: 8,
        n_codewords: 256,
        n_items: 200_000,
        n_distinct: 200_000,
        id_limit: None,
    };
    let index = recipe.gallery().index();
    let interrupt = AtomicBool::new(false);
    // Far more work than ends by itself before the interrupt.
    let queries: Vec<f32> = [0.3, -0.7, 1.1].repeat(100_000);
    let found = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            interrupt.store(true, Ordering::Relaxed);
        });
        index.search_batch(&queries, &SearchOptions::new(1000).interrupt(&interrupt))
    });
    assert!(matches!(found, Err(Error::Interrupted)));
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
            for hit in index.search_with(&table, &SearchOptions::new(500).length(length)).unwrap() {
                let item = &decoded[hit.id as usize * 3..][..3];
                let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| a * b).sum::<f32>();
                let expected = if metric == Metric::Euclidean {
                    2.0 * dot(&query, item) - dot(item, item)
                } else {
                    dot(&query, item)
                };
                assert!((hit.score - expected).abs() < 1e-3, "{metric}: {} is not {expected}", hit.score);
            }
        }
    }
}
