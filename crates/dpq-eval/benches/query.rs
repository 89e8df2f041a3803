//! Time of one query, reading a sorted ranking or ranking scores apart from evaluating, at a
//! gallery of 64,000 items in ten classes and with five rules, three cut-offs and a curve of 101
//! points. Names end with the number of distinct scores.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use dpq_eval::{Evaluator, MapRule, Ranker, Ranking, Ties};

const N_ITEMS: u64 = 64_000;

fn bench(c: &mut Criterion) {
    let rule = MapRule::dpq();
    let cut = MapRule { cutoff: Some(5000), ..rule };
    let with = |ties| MapRule { ties, ..rule };
    let rules = [rule, with(Ties::ById), with(Ties::Minimum), with(Ties::Maximum), cut];
    let evaluator = Evaluator::new(&rules, &[10, 100, 1000], 100).expect("the settings are good");
    let mut group = c.benchmark_group("eval");
    group.sample_size(30).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
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
        group.bench_function(format!("read/{n_distinct}"), |b| b.iter(read));
        group.bench_function(format!("evaluate/{n_distinct}"), |b| {
            b.iter(|| evaluator.query(black_box(&ranking)))
        });
    }
    // The same galleries, unsorted, each distinct score a run, as `dpq eval` ranks codes.
    for n_distinct in [256, 4_000, 64_000] {
        let size = (N_ITEMS / n_distinct) as u32;
        let starts: Vec<u32> = (0..=n_distinct as u32).map(|run| run * size).collect();
        let n_items = *starts.last().expect("there are runs") as usize;
        let ids: Vec<u64> = (0..n_items as u64).collect();
        let scores: Vec<f32> =
            (0..n_distinct).map(|run| -((scatter(run * N_ITEMS / n_distinct)) as f32)).collect();
        let score = |item: u64| scores[(item / u64::from(size)) as usize];
        let relevant: Vec<bool> = (0..n_items as u64)
            .map(|item| {
                scatter(item) % 10 < if score(item) > -6_000.0 { 9 } else { u64::from(item % 9 == 0) }
            })
            .collect();
        let ranker = Ranker::new(&starts, &ids, &relevant).expect("the runs divide the items");
        let rank = || ranker.rank(black_box(&scores), None).expect("no score is NaN");
        assert_eq!(rank().len(), n_items);
        group.bench_function(format!("rank/{n_distinct}"), |b| b.iter(rank));
    }
    group.finish();
}

/// A permutation of the ids that has nothing to do with their order: 64,000 and the factor share no
/// divisor.
fn scatter(i: u64) -> u64 {
    i * 39_119 % N_ITEMS
}

criterion_group!(benches, bench);
criterion_main!(benches);
