//! Searches for queries scan long codes by approximate entries; their hits are exact.

use dpq_index::{Assignment, CodeLength, Codebooks, Hit, Metric, SearchOptions};

use crate::gallery::{Gallery, Random, bits};

/// So many, and so long, that an index prepares approximate entries from three levels on.
const QUERIES: usize = 17;
const DIM: usize = 700;
const N: usize = 2500;

/// Codes of codewords that shrink from level to level by a factor.
fn gallery(metric: Metric, n_levels: usize, n_distinct: usize, factor: f32) -> Gallery {
    let mut random = Random(n_levels as u64);
    let value = |i: usize| {
        // Large values make rounding coarse.
        let outlier = if i % 1009 == 7 { 8.0 } else { 1.0 };
        factor.powi((i / (256 * DIM)) as i32) * outlier
    };
    let values = (0..n_levels * 256 * DIM).map(|i| value(i) * random.fine()).collect();
    with_codes(values, metric, n_levels, n_distinct)
}

fn with_codes(values: Vec<f32>, metric: Metric, n_levels: usize, n_distinct: usize) -> Gallery {
    let mut random = Random(n_distinct as u64);
    let codebooks = Codebooks::new(values, n_levels, 256, DIM, Assignment::Euclidean).unwrap();
    let pool: Vec<u8> = (0..n_distinct * n_levels).map(|_| random.next() as u8).collect();
    let mut code = |item: usize| if n_distinct == N { item } else { random.below(n_distinct) };
    let codes = (0..N).flat_map(|item| pool[code(item) * n_levels..][..n_levels].to_vec()).collect();
    Gallery { codebooks, metric, codes, ids: None }
}

/// Rounding changes all values of a codeword in one direction, and queries are positive: no entries
/// have larger errors.
fn with_large_errors(metric: Metric, n_levels: usize, error: f32) -> Gallery {
    let mut random = Random(5);
    let values = (0..n_levels * 256).flat_map(|_| {
        let error = if random.next().is_multiple_of(2) { error } else { -error };
        // The largest value makes the scale 1, and queries do not see it.
        let mut codeword = vec![127.0];
        codeword.extend((1..DIM).map(|_| random.below(41) as f32 - 20.0 + error));
        codeword
    });
    with_codes(values.collect(), metric, n_levels, N)
}

/// Compares searches for queries, alone and in batches, with the definition.
fn check(gallery: &Gallery, queries: &[f32]) {
    let (index, n_levels) = (gallery.index(), gallery.n_levels());
    let filter = index.filter(|id| id % 3 > 0);
    for levels in [3, 4, n_levels].into_iter().filter(|&levels| levels <= n_levels) {
        let length = CodeLength::from_levels(levels).unwrap();
        let tables = queries.chunks(DIM).map(|query| index.lookup_table(query).unwrap());
        let rankings: Vec<Vec<Hit>> = tables.map(|table| gallery.ranking(&table, levels, |_| true)).collect();
        let check = |options: SearchOptions, expected: &dyn Fn(&[Hit]) -> Vec<Hit>| {
            for (query, ranking) in queries.chunks(DIM).zip(&rankings) {
                let found = index.search_batch(query, &options).unwrap().remove(0);
                assert_eq!(bits(&found), bits(&expected(ranking)), "{levels} {options:?}");
            }
            let batch = index.search_batch(queries, &options).unwrap();
            for (found, ranking) in batch.iter().zip(&rankings) {
                assert_eq!(bits(found), bits(&expected(ranking)), "{levels} {options:?}");
            }
        };
        for k in [1, 10, 64] {
            let options = SearchOptions::new(k).length(length);
            check(options, &|all| all[..k].to_vec());
            let best = |all: &[Hit], passes: &dyn Fn(&Hit) -> bool| {
                all.iter().copied().filter(passes).take(k).collect()
            };
            check(options.filter(&filter), &|all| best(all, &|hit| hit.id % 3 > 0));
            let min_score = rankings[0][20].score;
            check(options.min_score(min_score), &|all| best(all, &|hit| hit.score >= min_score));
            let short = CodeLength::from_levels(levels - 1).unwrap();
            check(options.shortlist(64, short).exact(), &|all| all[..k].to_vec());
        }
    }
}

#[test]
fn searches_for_queries_equal_the_definition() {
    let mut random = Random(7);
    let queries: Vec<f32> = (0..QUERIES * DIM).map(|_| random.fine()).collect();
    for (metric, n_levels, n_distinct, factor) in [
        (Metric::InnerProduct, 5, N, 0.7),
        (Metric::Euclidean, 5, N, 0.7),
        (Metric::Euclidean, 8, 60, 0.7),
        (Metric::InnerProduct, 16, N, 1.0),
        (Metric::Euclidean, 64, N, 0.9),
    ] {
        check(&gallery(metric, n_levels, n_distinct, factor), &queries);
    }
    let mut value = |i: usize| if i.is_multiple_of(DIM) { 0.0 } else { 1.0 + 0.05 * random.fine() };
    let positive: Vec<f32> = (0..QUERIES * DIM).map(&mut value).collect();
    for metric in [Metric::InnerProduct, Metric::Euclidean] {
        check(&with_large_errors(metric, 3, 0.1), &positive);
        // The bounds of the first two levels take the remainders into account.
        check(&with_large_errors(metric, 16, 0.1), &positive);
    }
}

#[test]
fn queries_too_long_for_bounds_are_searched_exactly() {
    let gallery = gallery(Metric::InnerProduct, 5, N, 0.7);
    let values = gallery.codebooks.values().iter().map(|value| value * 1e-5).collect();
    let index = with_codes(values, Metric::InnerProduct, 5, N).index();
    let queries = [1e38; QUERIES * DIM];
    let expected = index.search_with(&index.lookup_table(&queries[..DIM]).unwrap(), &SearchOptions::new(3));
    let expected = expected.unwrap();
    for _ in 0..2 {
        for found in index.search_batch(&queries, &SearchOptions::new(3)).unwrap() {
            assert_eq!(bits(&found), bits(&expected));
        }
    }
}

#[test]
fn shortlists_for_queries_are_those_for_tables() {
    for metric in [Metric::InnerProduct, Metric::Euclidean] {
        let index = gallery(metric, 16, N, 0.8).index();
        let mut random = Random(8);
        let queries: Vec<f32> = (0..QUERIES * DIM).map(|_| random.fine()).collect();
        for (n, short, levels) in [(64, 3, 16), (30, 4, 8), (20, 2, 5), (N, 6, 16)] {
            let [short, length] = [short, levels].map(|levels| CodeLength::from_levels(levels).unwrap());
            let options = SearchOptions::new(10).length(length).shortlist(n, short);
            let found = index.search_batch(&queries, &options).unwrap();
            for (query, found) in queries.chunks(DIM).zip(found) {
                let expected = index.search_with(&index.lookup_table(query).unwrap(), &options).unwrap();
                assert_eq!(bits(&found), bits(&expected), "{metric} {n} {short} {length}");
            }
        }
    }
}

#[test]
fn queries_whose_entries_overflow_are_refused() {
    let index = gallery(Metric::InnerProduct, 5, N, 0.7).index();
    let queries = [1e38; QUERIES * DIM];
    let error = index.search_batch(&queries, &SearchOptions::new(3)).unwrap_err().to_string();
    assert!(error.contains("lookup table"), "{error}");
    let small = [1e-40; QUERIES * DIM];
    let table = index.lookup_table(&small[..DIM]).unwrap();
    let expected = index.search_with(&table, &SearchOptions::new(3)).unwrap();
    for found in index.search_batch(&small, &SearchOptions::new(3)).unwrap() {
        assert_eq!(bits(&found), bits(&expected));
    }
}

#[test]
fn a_crowd_of_codes_within_the_error_is_searched_exactly() {
    let mut random = Random(11);
    let queries: Vec<f32> =
        (0..QUERIES * DIM).map(|i| if i % DIM == 0 { 0.0 } else { 1.0 + 0.05 * random.fine() }).collect();
    for metric in [Metric::InnerProduct, Metric::Euclidean] {
        let mut gallery = with_large_errors(metric, 3, 0.45);
        gallery.codes = (0..3 * 200_000).map(|_| random.next() as u8).collect();
        let index = gallery.index();
        let short = CodeLength::from_levels(2).unwrap();
        let options = SearchOptions::new(64);
        for options in [options, options.shortlist(64, short).exact()] {
            let found = index.search_batch(&queries, &options).unwrap();
            for (query, found) in queries.chunks(DIM).zip(found) {
                let expected = index.search_with(&index.lookup_table(query).unwrap(), &options).unwrap();
                assert_eq!(bits(&found), bits(&expected), "{metric} {options:?}");
            }
        }
    }
}
