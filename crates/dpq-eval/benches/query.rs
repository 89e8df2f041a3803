//! Time of one query, reading apart from evaluating, at a gallery of 64,000 items in ten classes.
//!
//! `cargo bench -p dpq-eval`; prints the median in ns. Needs no benchmark crate, so the tree stays small.

use std::hint::black_box;
use std::time::Instant;

use dpq_eval::{Evaluator, MapRule, Ranking, Ties};

const N_ITEMS: u64 = 64_000;

fn main() {
    let rule = MapRule::dpq();
    let cut = MapRule { cutoff: Some(5000), ..rule };
    let with = |ties| MapRule { ties, ..rule };
    let rules = [rule, with(Ties::ById), with(Ties::Minimum), with(Ties::Maximum), cut];
    let evaluator = Evaluator::new(&rules, &[10, 100, 1000], 100).expect("the settings are good");
    println!("distinct scores   read      evaluate  (ns a query; five rules, three cut-offs, curve of 101)");
    for n_distinct in [1, 256, 4_000, 64_000] {
        let mut hits: Vec<(u64, f32)> =
            (0..N_ITEMS).map(|i| (scatter(i), -((i * n_distinct / N_ITEMS) as f32))).collect();
        hits.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        // Ten classes; the first ranks are nearly all relevant, as from a trained model.
        let mut relevant = vec![false; N_ITEMS as usize];
        for (rank, &(id, _)) in (0..).zip(&hits) {
            relevant[id as usize] = scatter(id) % 10 < if rank < 6_000 { 9 } else { u64::from(id % 9 == 0) };
        }
        let n_relevant = relevant.iter().filter(|&&r| r).count();
        let read = || {
            let items = hits.iter().map(|&(id, score)| (id, score, relevant[id as usize]));
            Ranking::new(items, n_relevant, None).expect("the hits are in order")
        };
        let ranking = read();
        let ap = evaluator.query(&ranking).average_precision()[0].expect("there are relevant items");
        assert!((0.05..1.0).contains(&ap));
        let read_ns = median_ns(|| drop(black_box(read())));
        let query_ns = median_ns(|| drop(black_box(evaluator.query(black_box(&ranking)))));
        println!("{n_distinct:>15} {read_ns:>9} {query_ns:>9}");
    }
}

/// A permutation of the ids that has nothing to do with their order: 64,000 and the factor share no divisor.
fn scatter(i: u64) -> u64 {
    i * 39_119 % N_ITEMS
}

fn median_ns(mut run: impl FnMut()) -> u128 {
    let mut times: Vec<u128> = (0..301)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_nanos()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}
