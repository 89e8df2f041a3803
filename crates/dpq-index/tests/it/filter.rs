//! Filters: set operations on items, and only of the index that made them.

use dpq_index::{Assignment, Codebooks, Error, Filter, Hit, Index, Metric, SearchOptions};

use crate::gallery::{Gallery, Random, Recipe, bits};

/// Two levels of 16 codewords in the plane, all different.
fn codebooks() -> Codebooks {
    let mut random = Random(17);
    let values = (0..2 * 16 * 2).map(|_| random.fine()).collect();
    Codebooks::new(values, 2, 16, 2, Assignment::Euclidean).unwrap()
}

fn index(codes: &[u8]) -> Index {
    Index::builder(&codebooks(), codes).build().unwrap()
}

fn search(index: &Index, filter: &Filter) -> Result<Vec<Hit>, Error> {
    let table = index.lookup_table(&[0.3, -0.7]).unwrap();
    index.search_with(&table, &SearchOptions::new(1).filter(filter))
}

/// Filters refer to codes, so equal ids and equally many items do not make them fit.
#[test]
fn a_filter_of_another_index_is_refused() {
    let first = index(&[0, 0, 1, 0, 2, 0, 3, 0]);
    let filter = first.allow(&[3]);
    assert_eq!(search(&first, &filter).unwrap()[0].id, 3);
    for codes in [[0; 8], [4, 0, 5, 0, 6, 0, 7, 0], [0, 0, 1, 0, 2, 0, 3, 0]] {
        let other = index(&codes);
        let error = search(&other, &filter).unwrap_err();
        assert!(matches!(error, Error::ForeignFilter), "{error}");
        assert!(error.to_string().contains("another index"), "{error}");
        let batch = other.search_batch(&[0.3, -0.7], &SearchOptions::new(1).filter(&filter));
        assert!(matches!(batch, Err(Error::ForeignFilter)));
        let own = other.allow(&[3]);
        assert!(matches!(filter.and(&own), Err(Error::ForeignFilter)));
        assert!(matches!(own.or(&filter), Err(Error::ForeignFilter)));
        assert_eq!(search(&other, &own).unwrap()[0].id, 3);
    }
}

#[test]
fn filters_combine_as_sets() {
    // Positions are items in the first gallery and codes that several items share in the second.
    for n_distinct in [900, 50] {
        let recipe = Recipe {
            seed: 40,
            metric: Metric::Euclidean,
            n_levels: 3,
            n_codewords: 30,
            n_items: 901,
            n_distinct,
            id_limit: Some(1 << 12),
        };
        let gallery = recipe.gallery();
        let index = gallery.index();
        let ids: Vec<u64> = index.ids().collect();
        let mut sorted = (gallery.ids(), ids.clone());
        sorted.0.sort_unstable();
        sorted.1.sort_unstable();
        assert_eq!(sorted.0, sorted.1);

        let (even, low) = (index.filter(|id| id % 2 == 0), index.filter(|id| id < 2000));
        let listed = index.allow(&sorted.0[100..300]);
        let mut words = vec![u64::MAX; ids.len().div_ceil(64)];
        for (item, id) in ids.iter().enumerate().filter(|item| item.1 % 3 != 0) {
            words[item / 64] ^= 1 << (item % 64);
            assert_ne!(id % 3, 0);
        }
        // The bits behind the last item stay set.
        let third = index.filter_from_bitmap(&words).unwrap();
        let in_list = |id: u64| sorted.0[100..300].contains(&id);
        check(&gallery, &index, &even, |id| id % 2 == 0);
        check(&gallery, &index, &third, |id| id % 3 == 0);
        check(&gallery, &index, &even.not(), |id| id % 2 == 1);
        check(&gallery, &index, &even.and(&low).unwrap(), |id| id % 2 == 0 && id < 2000);
        check(&gallery, &index, &third.or(&listed).unwrap(), |id| id % 3 == 0 || in_list(id));
        check(&gallery, &index, &listed.not().and(&third.not()).unwrap(), |id| !in_list(id) && id % 3 != 0);
        check(&gallery, &index, &even.and(&even.not()).unwrap(), |_| false);
        check(&gallery, &index, &even.or(&even.not()).unwrap(), |_| true);
        check(&gallery, &index, &index.deny(&sorted.0[100..300]), |id| !in_list(id));

        let error = index.filter_from_bitmap(&words[1..]).unwrap_err();
        assert_eq!(error.to_string(), "bitmap has 14 values, expected 15");
    }
}

#[test]
fn prefixes_are_counted_among_the_items_that_pass() {
    for n_distinct in [900, 50] {
        let (seed, metric, id_limit) = (43, Metric::InnerProduct, Some(1 << 12));
        let (n_levels, n_codewords, n_items) = (3, 5, 901);
        let gallery = Recipe { seed, metric, n_levels, n_codewords, n_items, n_distinct, id_limit }.gallery();
        let index = gallery.index();
        let even = index.filter(|id| id % 2 == 0);
        let items: Vec<(u64, &[u8])> = gallery.ids().into_iter().zip(gallery.codes.chunks_exact(3)).collect();
        for &(_, code) in &items[..40] {
            let count = |passes: fn(u64) -> bool| -> Vec<usize> {
                let shares =
                    |n: usize| items.iter().filter(move |(id, other)| passes(*id) && other[..n] == code[..n]);
                (1..=3).map(|n| shares(n).count()).collect()
            };
            assert_eq!(index.prefix_counts(code, None).unwrap(), count(|_| true));
            assert_eq!(index.prefix_counts(code, Some(&even)).unwrap(), count(|id| id % 2 == 0));
        }
        assert_eq!(index.prefix_counts(&[9, 9, 9], None).unwrap(), [0, 0, 0]);
        let error = index.prefix_counts(&[0; 2], None).unwrap_err();
        assert_eq!(error.to_string(), "code has 2 values, expected 3");
        let foreign = gallery.index().deny(&[]);
        assert!(matches!(index.prefix_counts(&[0; 3], Some(&foreign)), Err(Error::ForeignFilter)));
    }
}

/// Compares searches with `filter` with the definition, and uses the filter for several of them.
fn check(gallery: &Gallery, index: &Index, filter: &Filter, passes: impl Fn(u64) -> bool) {
    let mut random = Random(41);
    for _ in 0..3 {
        let table = gallery.table(|| random.fine());
        let expected = gallery.ranking(&table, 3, |hit| passes(hit.id));
        assert_eq!(filter.len(), expected.len());
        assert_eq!(filter.is_empty(), expected.is_empty());
        for k in [1, 20, index.len()] {
            let found = index.search_with(&table, &SearchOptions::new(k).filter(filter)).unwrap();
            assert_eq!(bits(&found), bits(&expected[..k.min(expected.len())]), "{filter:?}, k = {k}");
        }
    }
}
