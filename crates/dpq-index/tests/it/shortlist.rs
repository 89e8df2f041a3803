//! Coarse-to-fine search.

use dpq_index::{CodeLength, Hit, Metric, SearchOptions};

use crate::gallery::{Recipe, bits};

/// A shortlist is the definition at the short length, ties included; its scores are the definition
/// at the full length.
#[test]
fn a_shortlist_holds_the_best_at_a_short_length() {
    for (metric, n_distinct) in
        [(Metric::InnerProduct, 700), (Metric::Euclidean, 700), (Metric::Euclidean, 90)]
    {
        let recipe = Recipe {
            seed: 24,
            metric,
            n_levels: 9,
            n_codewords: 8,
            n_items: 900,
            n_distinct,
            id_limit: Some(1 << 20),
        };
        let gallery = recipe.gallery();
        let index = gallery.index();
        let query = [0.3, -0.7, 1.1];
        let table = index.lookup_table(&query).unwrap();
        let [short, full] = [3, 8].map(|levels| CodeLength::from_levels(levels).unwrap());
        let at_short = gallery.ranking(&table, 3, |_| true);
        let at_full = gallery.ranking(&table, 8, |_| true);
        let filter = index.filter(|id| id % 3 > 0);
        for (n, k) in [(10, 10), (40, 10), (200, 7), (900, 20), (5000, 900)] {
            let last = at_short[n.min(900) - 1].score;
            let listed: Vec<u64> =
                at_short.iter().take_while(|hit| hit.score >= last).map(|hit| hit.id).collect();
            let expected: Vec<Hit> =
                at_full.iter().copied().filter(|hit| listed.contains(&hit.id)).take(k).collect();
            let options = SearchOptions::new(k).length(full).shortlist(n, short);
            // By the entries of a table, and by entries that are computed for the codes listed.
            assert_eq!(bits(&index.search_with(&table, &options).unwrap()), bits(&expected), "{metric} {n}");
            let [of_batch] = &index.search_batch(&query, &options).unwrap()[..] else { panic!("one query") };
            assert_eq!(bits(of_batch), bits(&expected), "{metric} {n} {k}");

            let exact = options.exact();
            assert_eq!(bits(&index.search_with(&table, &exact).unwrap()), bits(&at_full[..k.min(900)]));
            let exact = exact.filter(&filter).min_score(at_full[60].score);
            let expected: Vec<Hit> = at_full
                .iter()
                .copied()
                .filter(|hit| hit.id % 3 > 0 && hit.score >= at_full[60].score)
                .take(k)
                .collect();
            let two = [query, query].concat();
            for hits in index.search_batch(&two, &exact).unwrap() {
                assert_eq!(bits(&hits), bits(&expected), "{metric} {n} {k}");
            }
        }
        // At any two lengths, one level and equal lengths included.
        for (short, full) in [(1, 1), (1, 2), (2, 2), (1, 9), (9, 9)] {
            let [short, length] = [short, full].map(|levels| CodeLength::from_levels(levels).unwrap());
            let options = SearchOptions::new(10).length(length).shortlist(10, short).exact();
            let expected = &gallery.ranking(&table, full, |_| true)[..10];
            assert_eq!(bits(&index.search_with(&table, &options).unwrap()), bits(expected));
        }
        let nothing = index.allow(&[]);
        let options = SearchOptions::new(10).shortlist(10, short).filter(&nothing);
        assert!(index.search_with(&table, &options).unwrap().is_empty());
        assert!(index.search_with(&table, &options.exact()).unwrap().is_empty());
        let too_short = SearchOptions::new(10).shortlist(9, short);
        let error = index.search_with(&table, &too_short).unwrap_err().to_string();
        assert!(error.contains("size of the shortlist"), "{error}");
        let too_long = SearchOptions::new(10).length(short).shortlist(10, full);
        let error = index.search_with(&table, &too_long).unwrap_err().to_string();
        assert!(error.contains("code length of the shortlist"), "{error}");
    }
}
