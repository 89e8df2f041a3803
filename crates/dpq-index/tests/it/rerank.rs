//! Hits scored again by the vectors that were encoded.

use dpq_index::{Error, Hit, Metric};

use crate::gallery::{Random, Recipe, bits};

#[test]
fn hits_are_ordered_by_their_vectors() {
    let mut random = Random(31);
    // Products of these numbers and their sums are exact, and scores often equal.
    let vectors: Vec<[f32; 3]> = (0..200).map(|_| [0; 3].map(|_| random.coarse())).collect();
    for metric in [Metric::InnerProduct, Metric::Euclidean] {
        let (n_levels, n_codewords, id_limit) = (3, 9, None);
        let recipe =
            Recipe { seed: 32, metric, n_levels, n_codewords, n_items: 200, n_distinct: 90, id_limit };
        let index = recipe.gallery().index();
        let query = [0.5, -1.25, 0.75];
        let dot = |x: &[f32; 3], y: &[f32; 3]| -> f32 { x.iter().zip(y).map(|(x, y)| x * y).sum() };
        let is_euclidean = metric == Metric::Euclidean;
        let score =
            |x: &[f32; 3]| if is_euclidean { 2.0 * dot(&query, x) - dot(x, x) } else { dot(&query, x) };
        for (depth, k) in [(200, 200), (200, 10), (30, 30), (30, 7), (5, 9)] {
            let hits = index.search(&query, depth).unwrap();
            let mut expected: Vec<Hit> =
                hits.iter().map(|hit| Hit { id: hit.id, score: score(&vectors[hit.id as usize]) }).collect();
            expected.sort_by(|a, b| b.score.partial_cmp(&a.score).unwrap().then(a.id.cmp(&b.id)));
            expected.truncate(k);
            let read = |id: u64, out: &mut [f32]| -> Result<(), Error> {
                out.copy_from_slice(&vectors[id as usize]);
                Ok(())
            };
            let found = index.rerank(&query, &hits, k, read).unwrap();
            assert_eq!(found.len(), k.min(depth));
            assert!(
                found.iter().zip(&expected).all(|(a, b)| (a.id, a.score) == (b.id, b.score)),
                "{metric} {k}"
            );
            assert_eq!(bits(&index.rerank(&query, &found, k, read).unwrap()), bits(&found));
        }
        let hit = [Hit { id: 7, score: 0.0 }];
        let not_numbers = |_, x: &mut [f32]| -> Result<(), Error> {
            x.fill(f32::NAN);
            Ok(())
        };
        let error = index.rerank(&query, &hit, 1, not_numbers);
        assert!(matches!(error, Err(Error::Vector { id: 7, .. })), "{error:?}");
        let error = index.rerank(&query, &hit, 1, |_, _| Err(Error::Interrupted));
        assert!(matches!(error, Err(Error::Interrupted)), "{error:?}");
        assert!(index.rerank(&query[..2], &hit, 1, |_, _| Ok::<(), Error>(())).is_err());
    }
}
