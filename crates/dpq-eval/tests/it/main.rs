//! Integration tests: hand-worked rankings, brute force over all orders of ties, large groups,
//! rankings from scores, refusals.

#![expect(clippy::unwrap_used, reason = "helpers are tests too")]

mod brute;
mod hand;
mod large;
mod ranker;
mod refusals;

use dpq_eval::{Denominator, EmptyQuery, MapRule, Ranking, Ties};

/// A ranking of the whole gallery from `(score, relevant)` in order; ids count from 0.
fn whole(items: &[(f32, bool)]) -> Ranking {
    let n_relevant = items.iter().filter(|item| item.1).count();
    Ranking::new((0..).zip(items).map(|(id, &(score, relevant))| (id, score, relevant)), n_relevant, None)
        .unwrap()
}

/// A rule that keeps the query and counts empty queries as zero.
fn rule(cutoff: Option<usize>, denominator: Denominator, ties: Ties) -> MapRule {
    MapRule { cutoff, denominator, ties, empty: EmptyQuery::Zero, exclude_self: false }
}

fn assert_close(got: f64, expected: f64) {
    assert!((got - expected).abs() < 1e-12, "{got} is not {expected}");
}
