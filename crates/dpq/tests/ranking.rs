//! Whole rankings agree to the last bit, ties included: the definition, `Index::search_with`, and
//! what `dpq eval` ranks by.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use dpq_eval::{Ranker, Ranking};
use dpq_index::{Assignment, CodeLength, Codebooks, Hit, Index, LookupTable, Metric, SearchOptions};

#[path = "../../dpq-index/tests/it/naive.rs"]
mod naive;

const LEVELS: usize = 4;
const CODEWORDS: usize = 9;

fn numbers() -> impl FnMut(u64) -> u64 {
    let mut state = 1u64;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    }
}

#[test]
fn the_index_and_the_evaluator_rank_as_the_definition_does() {
    let mut next = numbers();
    // Multiples of 1/8, so that sums are often equal, and both zeros.
    let values = (0..LEVELS * CODEWORDS * 3).map(|_| next(17) as f32 / 8.0 - 1.0).collect();
    let codebooks = Codebooks::new(values, LEVELS, CODEWORDS, 3, Assignment::Euclidean).unwrap();
    // Positions of the index are items in the first gallery, and codes that several items share in
    // the second.
    for n_distinct in [1000, 60] {
        let pool: Vec<u8> = (0..n_distinct * LEVELS).map(|_| next(CODEWORDS as u64) as u8).collect();
        let codes: Vec<u8> = (0..500)
            .flat_map(|_| pool.chunks(LEVELS).nth(next(n_distinct as u64) as usize).unwrap())
            .copied()
            .collect();
        // An odd factor permutes the residues of a power of two.
        let ids: Vec<u64> = (0..500).map(|row| row * 0x9e37_79b1 % (1 << 40)).collect();
        for metric in [Metric::InnerProduct, Metric::Euclidean] {
            let index = Index::builder(&codebooks, &codes).ids(&ids).metric(metric).build().unwrap();
            let coarse = index.lookup_table(&[0.5, -1.0, 0.25]).unwrap();
            let fine = index.lookup_table(&[0.31, -0.77, 0.123]).unwrap();
            let zeros = (0..LEVELS * CODEWORDS).map(|_| if next(2) == 0 { 0.0 } else { -0.0 }).collect();
            let zeros = LookupTable::new(zeros, LEVELS, CODEWORDS).unwrap();
            for table in [coarse, fine, zeros] {
                for levels in 1..=LEVELS {
                    let score = |code: &[u8]| {
                        naive::score(&codebooks, codebooks.norm_unit(), metric, &table, code, levels)
                    };
                    let expected = naive::ranking(score, &codes, LEVELS, &ids, |_| true);
                    check(&index, &table, levels, &expected);
                }
            }
        }
    }
}

fn check(index: &Index, table: &LookupTable, levels: usize, expected: &[Hit]) {
    let length = CodeLength::from_levels(levels).unwrap();
    let found = index.search_with(table, &SearchOptions::new(expected.len()).length(length)).unwrap();
    let bits = |hits: &[Hit]| hits.iter().map(|hit| (hit.id, hit.score.to_bits())).collect::<Vec<_>>();
    assert_eq!(bits(&found), bits(expected));

    let distinct = index.distinct_codes(length).unwrap();
    let mut scores = vec![0.0; distinct.len()];
    distinct.score(table, &mut scores).unwrap();
    let mut ids = distinct.ids().to_vec();
    ids.sort_unstable();
    let place = |id: u64| ids.binary_search(&id).unwrap();
    // An item is relevant if a bit of its place is set: the rankings for all bits determine the
    // rank of every item.
    for bit in 0..ids.len().ilog2() + 1 {
        let is_relevant = |id: u64| place(id) >> bit & 1 == 1;
        let relevant: Vec<bool> = distinct.ids().iter().map(|&id| is_relevant(id)).collect();
        let n_relevant = relevant.iter().filter(|&&relevant| relevant).count();
        let query = Some(ids[bit as usize]);
        let items = expected.iter().map(|hit| (hit.id, hit.score, is_relevant(hit.id)));
        let expected = Ranking::new(items, n_relevant, query).unwrap();
        let ranker = Ranker::new(distinct.starts(), distinct.ids(), &relevant).unwrap();
        assert_eq!(format!("{:?}", ranker.rank(&scores, query).unwrap()), format!("{expected:?}"));
    }
}
