//! Every metric equals its definition worked out over all orders of tied items.

use dpq_eval::{Denominator, EmptyQuery, Evaluator, MapRule, Ranking, Ties};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::assert_close;

/// Score, id and relevance of an item.
type Item = (i8, u64, bool);

/// Average precision of one order by the formula; `None` if skipped.
fn naive(order: &[bool], n_relevant: usize, rule: &MapRule) -> Option<f64> {
    if n_relevant == 0 {
        return (rule.empty == EmptyQuery::Zero).then_some(0.0);
    }
    let cutoff = rule.cutoff.unwrap_or(usize::MAX);
    let found = |ranks: usize| order.iter().take(ranks).filter(|&&relevant| relevant).count() as f64;
    let relevant_ranks = (1..=order.len().min(cutoff)).filter(|&rank| order[rank - 1]);
    let sum: f64 = relevant_ranks.map(|rank| found(rank) / rank as f64).sum();
    let denominator = match rule.denominator {
        Denominator::Retrieved => found(cutoff),
        Denominator::All => n_relevant as f64,
        Denominator::MinCutoff => cutoff.min(n_relevant) as f64,
    };
    Some(if denominator == 0.0 { 0.0 } else { sum / denominator })
}

/// Calls `visit` with the relevance by rank of each order of tied items; `items` are in total
/// order, the first `done` fixed.
fn for_each_order(items: &mut [Item], done: usize, visit: &mut dyn FnMut(&[bool])) {
    if done == items.len() {
        return visit(&items.iter().map(|item| item.2).collect::<Vec<_>>());
    }
    for next in done..items.len() {
        if items[next].0 == items[done].0 {
            items.swap(done, next);
            for_each_order(items, done + 1, visit);
            items.swap(done, next);
        }
    }
}

/// Up to seven items of few scores in total order, relevant items that were not ranked, and which
/// item is the query.
fn rankings() -> impl Strategy<Value = (Vec<Item>, usize, Option<u64>)> {
    let items = prop::collection::vec((0_i8..3, any::<bool>()), 0..=7);
    (items, 0_usize..3, prop::option::of(0_u64..8)).prop_map(|(items, unranked, query)| {
        let mut items: Vec<Item> = items
            .into_iter()
            .zip([3, 0, 6, 1, 5, 2, 4])
            .map(|((score, relevant), id)| (score, id, relevant))
            .collect();
        items.sort_by_key(|&(score, id, _)| (-score, id));
        (items, unranked, query)
    })
}

fn read(items: &[Item], unranked: usize, query: Option<u64>) -> Ranking {
    let n_relevant = items.iter().filter(|item| item.2).count() + unranked;
    let items = items.iter().map(|&(score, id, relevant)| (id, f32::from(score), relevant));
    Ranking::new(items, n_relevant, query).unwrap()
}

/// All rules with cut-offs from 1 to beyond the end and none, for one kind of ties.
fn rules(ties: Ties) -> Vec<MapRule> {
    let mut rules = Vec::new();
    for cutoff in (1..10).map(Some).chain([None]) {
        for denominator in [Denominator::Retrieved, Denominator::All, Denominator::MinCutoff] {
            for (empty, exclude_self) in [(EmptyQuery::Skip, false), (EmptyQuery::Zero, true)] {
                rules.push(MapRule { cutoff, denominator, empty, exclude_self, ties });
            }
        }
    }
    rules
}

/// The same cases at every run.
fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 1000,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn average_precision_equals_all_orders((items, unranked, query) in rankings()) {
        let ranking = read(&items, unranked, query);
        let rest: Vec<Item> = items.iter().copied().filter(|item| Some(item.1) != query).collect();
        let expectation = rules(Ties::Expectation);
        // For each rule, AP of every order. Rules differ in whether the query is among the items.
        let mut values = vec![Vec::new(); expectation.len()];
        for (exclude_self, items) in [(false, &items), (true, &rest)] {
            let n_relevant = items.iter().filter(|item| item.2).count() + unranked;
            for_each_order(&mut items.clone(), 0, &mut |order| {
                for (rule, values) in expectation.iter().zip(&mut values) {
                    if rule.exclude_self == exclude_self {
                        values.push(naive(order, n_relevant, rule));
                    }
                }
            });
        }
        for (rule, values) in expectation.iter().zip(&values) {
            let with = |ties| MapRule { ties, ..*rule }.average_precision(&ranking);
            let kept = if rule.exclude_self { &rest } else { &items };
            let n_relevant = kept.iter().filter(|item| item.2).count() + unranked;
            let by_id = naive(&kept.iter().map(|item| item.2).collect::<Vec<_>>(), n_relevant, rule);
            let Some(values) = values.iter().copied().collect::<Option<Vec<f64>>>() else {
                for ties in [Ties::Expectation, Ties::ById, Ties::Minimum, Ties::Maximum] {
                    prop_assert_eq!(with(ties), None);
                }
                continue;
            };
            assert_close(with(Ties::Expectation).unwrap(), values.iter().sum::<f64>() / values.len() as f64);
            assert_close(with(Ties::Minimum).unwrap(), values.iter().copied().fold(f64::INFINITY, f64::min));
            assert_close(with(Ties::Maximum).unwrap(), values.iter().copied().fold(0.0, f64::max));
            assert_close(with(Ties::ById).unwrap(), by_id.unwrap());
        }
    }

    #[test]
    fn reciprocal_ranks_and_gains_equal_all_orders((items, unranked, query) in rankings(), exclude_self: bool) {
        let rule = MapRule { exclude_self, ..MapRule::dpq() };
        let cutoffs = [1, 2, 3, 5, 9];
        let mut evaluator = Evaluator::new(&[rule], &[], 0).unwrap().with_ndcg(&cutoffs).unwrap();
        evaluator.add(&evaluator.query(&read(&items, unranked, query))).unwrap();
        let report = evaluator.finish().unwrap();

        let mut items = items;
        items.retain(|item| !exclude_self || Some(item.1) != query);
        let n_relevant = items.iter().filter(|item| item.2).count() + unranked;
        let gain = |rank: usize| 1.0 / (rank as f64 + 1.0).log2();
        let (mut reciprocal, mut gains, mut n_orders) = (0.0, [0.0; 5], 0.0);
        for_each_order(&mut items.clone(), 0, &mut |order| {
            n_orders += 1.0;
            let ranks: Vec<usize> = (1..=order.len()).filter(|&rank| order[rank - 1]).collect();
            reciprocal += ranks.first().map_or(0.0, |&rank| 1.0 / rank as f64);
            for (sum, cutoff) in gains.iter_mut().zip(cutoffs) {
                *sum += ranks.iter().filter(|&&rank| rank <= cutoff).map(|&rank| gain(rank)).sum::<f64>();
            }
        });
        assert_close(report.mrr, reciprocal / n_orders);
        for ((sum, cutoff), &found) in gains.into_iter().zip(cutoffs).zip(&report.ndcg_at) {
            let ideal: f64 = (1..=n_relevant.min(cutoff)).map(gain).sum();
            let expected = if n_relevant == 0 { 0.0 } else { sum / n_orders / ideal };
            prop_assert_eq!(found.0, cutoff);
            assert_close(found.1, expected);
        }
    }

    #[test]
    fn curves_equal_all_orders((items, unranked, query) in rankings(), exclude_self: bool) {
        let rule = MapRule { exclude_self, ..MapRule::dpq() };
        let cutoffs = [1, 2, 3, 5, 9];
        let mut evaluator = Evaluator::new(&[rule], &cutoffs, 6).unwrap();
        evaluator.add(&evaluator.query(&read(&items, unranked, query))).unwrap();
        let report = evaluator.finish().unwrap();

        let mut items = items;
        items.retain(|item| !exclude_self || Some(item.1) != query);
        let n_relevant = items.iter().filter(|item| item.2).count() + unranked;
        // Relevant items within the first j ranks, in expectation over orders.
        let mut found = [0.0; 10];
        let mut n_orders = 0;
        for_each_order(&mut items.clone(), 0, &mut |order| {
            n_orders += 1;
            for (j, found) in found.iter_mut().enumerate() {
                *found += order.iter().take(j).filter(|&&relevant| relevant).count() as f64;
            }
        });
        found.iter_mut().for_each(|found| *found /= f64::from(n_orders));

        for (i, cutoff) in cutoffs.into_iter().enumerate() {
            assert_close(report.precision_at[i].1, found[cutoff] / cutoff as f64);
            assert_close(report.recall_at[i].1, found[cutoff] / n_relevant.max(1) as f64);
        }
        for (level, &(recall, precision)) in report.precision_recall.iter().enumerate() {
            assert_close(recall, level as f64 / 6.0);
            let wanted = recall * n_relevant as f64;
            // At whole ranks from where the recall is reached, and at the fraction of a rank at
            // which it is.
            let reached = |j: usize| found[j] >= wanted - 1e-9 && n_relevant > 0;
            let mut best = 0.0_f64;
            for j in (1..=items.len()).filter(|&j| reached(j)) {
                best = best.max(found[j] / j as f64);
                if found[j - 1] < wanted - 1e-9 {
                    let part = (wanted - found[j - 1]) / (found[j] - found[j - 1]);
                    best = best.max(wanted / ((j - 1) as f64 + part));
                }
            }
            assert_close(precision, best);
        }
    }
}

/// A tie of ten places after four ranks, every cut-off inside it and every number of relevant
/// items, over all patterns of relevance. The worst order may take in some but not all of the
/// relevant items it could, an inner minimum, which seven items hardly show.
#[test]
fn extremes_of_a_cut_tie_equal_all_patterns() {
    let mut n_inner = 0;
    for head in 0_u32..16 {
        for r in 0..=10_u32 {
            let bit = |bits: u32, i: u32| bits >> i & 1 == 1;
            let tie = |bits: u32| (0..10).map(move |i| bit(bits, i));
            let first: Vec<bool> = (0..4).map(|i| bit(head, i)).collect();
            let items: Vec<(f32, bool)> = (0_u8..)
                .zip(first.iter().copied().chain(tie((1 << r) - 1)))
                .map(|(rank, relevant)| (-f32::from(rank.min(4)), relevant))
                .collect();
            let ranking = crate::whole(&items);
            let n_relevant = ranking.n_relevant();
            for cutoff in 5..14 {
                let rule = crate::rule(Some(cutoff), Denominator::Retrieved, Ties::Minimum);
                let patterns = (0_u32..1 << 10).filter(|bits| bits.count_ones() == r).map(|bits| {
                    let order: Vec<bool> = first.iter().copied().chain(tie(bits)).collect();
                    let within = order[4..cutoff].iter().filter(|&&relevant| relevant).count() as u32;
                    (naive(&order, n_relevant, &rule).unwrap(), within)
                });
                let (lowest, within) = patterns.clone().min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
                let highest = patterns.map(|pattern| pattern.0).fold(0.0, f64::max);
                assert_close(rule.average_precision(&ranking).unwrap(), lowest);
                assert_close(
                    MapRule { ties: Ties::Maximum, ..rule }.average_precision(&ranking).unwrap(),
                    highest,
                );
                let places = cutoff as u32 - 4;
                n_inner += u32::from(within > places.saturating_sub(10 - r) && within < places.min(r));
            }
        }
    }
    assert!(n_inner > 0, "no case has an inner minimum, so the search for it went untested");
}
