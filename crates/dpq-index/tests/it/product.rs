//! Indexes of product codebooks.

use dpq_codebook::Error as CodebookError;
use dpq_index::{CodeLength, Error, Index, Metric, SearchOptions};

use crate::gallery::{Gallery, Random, Recipe, bits};

fn gallery(metric: Metric, n_levels: usize) -> Gallery {
    Recipe { seed: 31, metric, n_levels, n_codewords: 20, n_items: 3000, n_distinct: 2500, id_limit: None }
        .product()
}

fn queries(gallery: &Gallery, n: usize) -> Vec<f32> {
    let mut random = Random(32);
    (0..n * gallery.codebooks.dim()).map(|_| random.fine()).collect()
}

#[test]
fn hits_are_the_nearest_reconstructions() {
    for metric in [Metric::InnerProduct, Metric::Euclidean] {
        for n_levels in [1, 2, 3, 8] {
            let gallery = gallery(metric, n_levels);
            let (index, dim) = (gallery.index(), gallery.codebooks.dim());
            assert_eq!((index.version(), index.norm_lengths().len()), (3, 0));
            let decoded = gallery.codebooks.decode(&gallery.codes, index.max_length()).unwrap();
            let queries = queries(&gallery, 40);
            let batch = index.search_batch(&queries, &SearchOptions::new(50)).unwrap();
            for (query, hits) in queries.chunks_exact(dim).zip(batch) {
                assert_eq!(bits(&index.search(query, 50).unwrap()), bits(&hits));
                let score = |x: &[f32]| -> f64 {
                    let pairs = query.iter().zip(x).map(|(&q, &x)| (f64::from(q), f64::from(x)));
                    match metric {
                        Metric::Euclidean => -pairs.map(|(q, x)| (q - x) * (q - x)).sum::<f64>(),
                        _ => pairs.map(|(q, x)| q * x).sum(),
                    }
                };
                let norm: f64 = query.iter().map(|&q| f64::from(q).powi(2)).sum();
                let surplus = if metric == Metric::Euclidean { norm } else { 0.0 };
                let mut scores: Vec<f64> = decoded.chunks_exact(dim).map(score).collect();
                for hit in &hits {
                    let expected = scores[hit.id as usize] + surplus;
                    assert!((f64::from(hit.score) - expected).abs() < 1e-4, "{metric} {n_levels}");
                }
                scores.sort_by(|a, b| b.total_cmp(a));
                assert!((f64::from(hits[49].score) - scores[49] - surplus).abs() < 1e-4);
            }
        }
    }
}

#[test]
fn euclidean_indexes_store_no_norms() {
    let files = [Metric::InnerProduct, Metric::Euclidean].map(|metric| gallery(metric, 4).bytes());
    assert!(files[0].len().abs_diff(files[1].len()) <= 8, "they differ in the name of the metric");
}

#[test]
fn only_the_full_length_is_searched() {
    let gallery = gallery(Metric::Euclidean, 4);
    let (index, query) = (gallery.index(), queries(&gallery, 1));
    let [short, full] = [2, 4].map(|levels| CodeLength::from_levels(levels).unwrap());
    let refused = |result: Result<(), Error>| {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Codebook(CodebookError::Length { .. })), "{error}");
    };
    let options = SearchOptions::new(3);
    refused(index.search_batch(&query, &options.length(short)).map(drop));
    refused(index.search_batch(&query, &options.shortlist(10, short)).map(drop));
    let table = index.lookup_table(&query).unwrap();
    refused(index.search_with(&table, &options.length(short)).map(drop));
    refused(Index::search_parts(&[(&index, None); 2], &query, &options.length(short)).map(drop));
    refused(index.lookup_table_at(&query, short).map(drop));
    refused(index.distinct_codes(short).map(drop));
    refused(gallery.builder().norm_lengths(&[short]).build().map(drop));
    let hits = index.search_batch(&query, &options.length(full)).unwrap();
    assert_eq!(bits(&hits[0]), bits(&index.search_with(&table, &options).unwrap()));
}
