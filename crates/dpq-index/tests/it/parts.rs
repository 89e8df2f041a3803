//! Several indexes searched as one.

use dpq_index::{CodeLength, Error, Filter, Form, Index, Metric, SearchOptions};

use crate::gallery::{Gallery, Random, Recipe, bits};

/// Splits a gallery at random into indexes; some may be empty.
fn split(gallery: &Gallery, n_parts: usize) -> Vec<Index> {
    let mut random = Random(5);
    let mut parts = vec![(Vec::new(), Vec::new()); n_parts];
    for (code, id) in gallery.codes.chunks_exact(gallery.n_levels()).zip(gallery.ids()) {
        // Later parts get more items.
        let part = random.below(n_parts).max(random.below(n_parts));
        parts[part].0.extend_from_slice(code);
        parts[part].1.push(id);
    }
    let build = |(codes, ids): &(Vec<u8>, Vec<u64>)| {
        Index::builder(&gallery.codebooks, codes).metric(gallery.metric).ids(ids).build().unwrap()
    };
    parts.iter().map(build).collect()
}

/// Hits, order and bits of scores are those of one index, at every length, with filters, minimum
/// scores, shortlists and any k.
#[test]
fn parts_are_searched_as_one_index() {
    for (metric, n_items, n_distinct) in [
        (Metric::InnerProduct, 10_000, 8000),
        (Metric::Euclidean, 10_000, 8000),
        (Metric::InnerProduct, 900, 40),
        (Metric::Euclidean, 900, 700),
        (Metric::Euclidean, 5, 5),
    ] {
        let recipe = Recipe {
            seed: 11,
            metric,
            n_levels: 4,
            n_codewords: 40,
            n_items,
            n_distinct,
            id_limit: Some(1 << 60),
        };
        for gallery in [recipe.gallery(), recipe.product()] {
            let whole = gallery.index();
            let passes = |id: u64| !id.is_multiple_of(3);
            let whole_filter = whole.filter(passes);
            for n_parts in [1, 3, 8] {
                let indexes = split(&gallery, n_parts);
                let filters: Vec<Filter> = indexes.iter().map(|index| index.filter(passes)).collect();
                let all: Vec<_> = indexes.iter().map(|index| (index, None)).collect();
                let filtered: Vec<_> = indexes.iter().zip(filters.iter().map(Some)).collect();
                let dim = gallery.codebooks.dim();
                let queries = [0.3, -0.7, 1.1, -0.2, 0.5, 0.4, 1.0, 1.0, -2.0].repeat(dim / 3);
                for length in gallery.codebooks.lengths() {
                    // Whole rankings of small galleries only, because debug builds take long.
                    let most = [n_items, usize::MAX].into_iter().filter(|_| n_items < 1000);
                    for k in [1, 10, 500].into_iter().chain(most) {
                        let options = SearchOptions::new(k).length(length);
                        let short = CodeLength::from_levels(length.levels().div_ceil(2)).unwrap();
                        let short = if gallery.codebooks.form() == Form::Product { length } else { short };
                        for options in [
                            options,
                            options.min_score(0.25),
                            options.shortlist(k, short),
                            options.shortlist(k.saturating_mul(5), short).exact(),
                        ] {
                            for (parts, filter) in [(&all, None), (&filtered, Some(&whole_filter))] {
                                let expected = filter.map_or(options, |filter| options.filter(filter));
                                let expected = whole.search_batch(&queries, &expected).unwrap();
                                let found = Index::search_parts(parts, &queries, &options).unwrap();
                                let single = Index::search_parts(parts, &queries[..dim], &options).unwrap();
                                assert_eq!(found.len(), 3);
                                for (found, expected) in found.iter().chain(&single).zip(
                                    // The single query is the first of the three.
                                    expected.iter().chain(&expected[..1]),
                                ) {
                                    assert_eq!(bits(found), bits(expected), "{n_parts} parts, {options:?}");
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let recipe = |seed, metric| {
        let recipe =
            Recipe { seed, metric, n_levels: 2, n_codewords: 3, n_items: 30, n_distinct: 9, id_limit: None };
        recipe.gallery().index()
    };
    let index = recipe(7, Metric::InnerProduct);
    let options = SearchOptions::new(1);
    for other in [recipe(8, Metric::InnerProduct), recipe(7, Metric::Euclidean)] {
        let error = Index::search_parts(&[(&index, None), (&other, None)], &[0.0; 3], &options).unwrap_err();
        assert!(matches!(error, Error::ForeignPart { .. }), "{error}");
        let filter = other.allow(&[1]);
        let error = Index::search_parts(&[(&index, Some(&filter))], &[0.0; 3], &options).unwrap_err();
        assert!(matches!(error, Error::ForeignFilter), "{error}");
    }
    let filter = index.allow(&[1]);
    let error = Index::search_parts(&[(&index, None)], &[0.0; 3], &options.filter(&filter)).unwrap_err();
    assert!(matches!(error, Error::ForeignFilter), "{error}");
    assert!(matches!(Index::search_parts(&[], &[0.0; 3], &options), Err(Error::Codebook(_))));
    let two = [(&index, None), (&index, None)];
    assert!(matches!(Index::search_parts(&two, &[0.0; 4], &options), Err(Error::Codebook(_))));
    let too_long = options.length(CodeLength::from_levels(3).unwrap());
    assert!(matches!(Index::search_parts(&two, &[0.0; 3], &too_long), Err(Error::Codebook(_))));
}

#[test]
fn codes_come_in_the_order_of_ids() {
    for n_distinct in [900, 50] {
        let metric = Metric::InnerProduct;
        let recipe = Recipe {
            seed: 3,
            metric,
            n_levels: 3,
            n_codewords: 30,
            n_items: 901,
            n_distinct,
            id_limit: Some(1 << 12),
        };
        let index = recipe.gallery().index();
        let codes = index.codes();
        let mut items: Vec<_> = index.ids().zip(codes.chunks_exact(3)).collect();
        items.sort_unstable();
        let (ids, codes) = index.ids_and_codes();
        assert_eq!(items, ids.into_iter().zip(codes.chunks_exact(3)).collect::<Vec<_>>());
    }
}
