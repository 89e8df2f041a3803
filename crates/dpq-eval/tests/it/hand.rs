//! Rankings small enough to be worked by hand; the arithmetic stands next to each number.

use dpq_eval::{Denominator, EmptyQuery, Evaluator, Labels, MapRule, Ranking, Ties};

use crate::{assert_close, rule, whole};

const TIES: [Ties; 4] = [Ties::Expectation, Ties::ById, Ties::Minimum, Ties::Maximum];

/// Relevant, not, relevant, relevant, not: precisions 1/1, 2/3, 3/4 at the relevant ranks 1, 3, 4.
fn untied() -> Ranking {
    whole(&[(0.9, true), (0.8, false), (0.7, true), (0.6, true), (0.5, false)])
}

#[test]
fn without_ties_all_orders_are_one() {
    for ties in TIES {
        let ap = |cutoff, denominator| rule(cutoff, denominator, ties).average_precision(&untied()).unwrap();
        let whole = (1.0 + 2.0 / 3.0 + 3.0 / 4.0) / 3.0;
        assert_close(ap(None, Denominator::Retrieved), whole);
        assert_close(ap(None, Denominator::All), whole);
        assert_close(ap(None, Denominator::MinCutoff), whole);
        // Within the first two ranks one relevant item is found, precision 1; three exist; min(2,
        // 3) = 2.
        assert_close(ap(Some(2), Denominator::Retrieved), 1.0);
        assert_close(ap(Some(2), Denominator::All), 1.0 / 3.0);
        assert_close(ap(Some(2), Denominator::MinCutoff), 1.0 / 2.0);
        // Beyond the end, R = 50 changes nothing: min(50, 3) = 3.
        for denominator in [Denominator::Retrieved, Denominator::All, Denominator::MinCutoff] {
            assert_close(ap(Some(50), denominator), whole);
        }
    }
}

#[test]
fn a_tie_of_two() {
    // One relevant item among two tied: rank 1 (AP 1) or rank 2 (AP 1/2), each as likely. The one
    // with the smaller id is not relevant.
    let ranking = whole(&[(0.5, false), (0.5, true)]);
    let ap = |cutoff, ties| rule(cutoff, Denominator::Retrieved, ties).average_precision(&ranking).unwrap();
    assert_close(ap(None, Ties::Expectation), 0.75);
    assert_close(ap(None, Ties::ById), 0.5);
    assert_close(ap(None, Ties::Minimum), 0.5);
    assert_close(ap(None, Ties::Maximum), 1.0);
    // Cut inside the tie, either the relevant item is at rank 1 (AP 1) or nothing is found (AP 0).
    assert_close(ap(Some(1), Ties::Expectation), 0.5);
    assert_close(ap(Some(1), Ties::ById), 0.0);
    assert_close(ap(Some(1), Ties::Minimum), 0.0);
    assert_close(ap(Some(1), Ties::Maximum), 1.0);
}

#[test]
fn a_cut_tie_has_a_random_denominator() {
    // A relevant item, then a tie of three with two relevant, cut after the second of the three.
    // The irrelevant one is at rank 2, 3 or 4, each as likely: precisions 1, 2/3 → mean 5/6; 1, 2/2
    // → 1; 1, 2/2, 3/3 → 1.
    let ranking = whole(&[(0.9, true), (0.5, true), (0.5, false), (0.5, true)]);
    let ap = |denominator, ties| rule(Some(3), denominator, ties).average_precision(&ranking).unwrap();
    assert_close(ap(Denominator::Retrieved, Ties::Expectation), (5.0 / 6.0 + 1.0 + 1.0) / 3.0);
    assert_close(ap(Denominator::Retrieved, Ties::Minimum), 5.0 / 6.0);
    assert_close(ap(Denominator::Retrieved, Ties::Maximum), 1.0);
    // Divided by all three relevant items: (1 + 2/3)/3, (1 + 1)/3, (1 + 1 + 1)/3.
    assert_close(ap(Denominator::All, Ties::Expectation), (5.0 / 9.0 + 2.0 / 3.0 + 1.0) / 3.0);
    assert_close(ap(Denominator::All, Ties::Minimum), 5.0 / 9.0);
}

#[test]
fn fewer_relevant_items_may_be_the_best_and_more_the_worst() {
    // A relevant item at rank 1, three others, then a tie of two with one relevant, cut after rank
    // 5. Leaving it out gives AP 1; taking it in gives (1 + 2/5)/2 = 0.7.
    let mut items = vec![(0.9, true), (0.8, false), (0.7, false), (0.6, false), (0.5, true), (0.5, false)];
    let ap = |items: &[_], ties| {
        rule(Some(5), Denominator::Retrieved, ties).average_precision(&whole(items)).unwrap()
    };
    assert_close(ap(&items, Ties::Maximum), 1.0);
    assert_close(ap(&items, Ties::Minimum), 0.7);
    assert_close(ap(&items, Ties::Expectation), 0.85);
    // Where the start is bad (rank 1 irrelevant), it is the other way round: 1/2 without; (1/2 +
    // 2/3 + 3/4 + ...) with.
    items = vec![(0.9, false), (0.8, true), (0.5, true), (0.5, false), (0.5, true), (0.5, true)];
    // Ranks 3 to 5 of the tie hold two or three relevant items; all three: (1/2 + 2/3 + 3/4 +
    // 4/5)/4, two of them last: (1/2 + 2/4 + 3/5)/3.
    assert_close(ap(&items, Ties::Maximum), (1.0 / 2.0 + 2.0 / 3.0 + 3.0 / 4.0 + 4.0 / 5.0) / 4.0);
    assert_close(ap(&items, Ties::Minimum), (1.0 / 2.0 + 1.0 / 2.0 + 3.0 / 5.0) / 3.0);
}

#[test]
fn empty_queries_are_skipped_or_zero() {
    let empty = whole(&[(0.9, false), (0.8, false)]);
    for ties in TIES {
        let zero = rule(None, Denominator::All, ties);
        assert_eq!(zero.average_precision(&empty), Some(0.0));
        assert_eq!(MapRule { empty: EmptyQuery::Skip, ..zero }.average_precision(&empty), None);
        // Relevant items that are all beyond the cut-off make the query bad, not empty.
        let skip = MapRule { empty: EmptyQuery::Skip, ..rule(Some(1), Denominator::Retrieved, ties) };
        assert_eq!(skip.average_precision(&whole(&[(0.9, false), (0.8, true)])), Some(0.0));
        // So does a ranking of nothing.
        assert_eq!(skip.average_precision(&Ranking::new([], 3, None).unwrap()), Some(0.0));
    }
}

#[test]
fn the_query_itself_is_excluded() {
    // Item 7 is the query, tied with item 9 behind item 3. Kept: precisions 1/2, 2/3. Excluded:
    // item 9 is at rank 2 and the only relevant one, precision 1/2.
    let items = [(3, 0.9, false), (7, 0.5, true), (9, 0.5, true)];
    let ranking = Ranking::new(items, 2, Some(7)).unwrap();
    let kept = rule(None, Denominator::All, Ties::Expectation);
    let excluded = MapRule { exclude_self: true, ..kept };
    assert_close(kept.average_precision(&ranking).unwrap(), (1.0 / 2.0 + 2.0 / 3.0) / 2.0);
    assert_close(excluded.average_precision(&ranking).unwrap(), 0.5);
    // A query that is not in the gallery has nothing to exclude.
    let ranking = Ranking::new(items, 2, None).unwrap();
    assert_eq!(kept.average_precision(&ranking), excluded.average_precision(&ranking));
    // A query whose only relevant item is itself becomes empty.
    let alone = Ranking::new([(1, 0.5, true), (2, 0.5, false)], 1, Some(1)).unwrap();
    assert_eq!(MapRule { empty: EmptyQuery::Skip, ..excluded }.average_precision(&alone), None);
}

#[test]
fn report_of_two_queries() {
    let rules = [MapRule::dpq(), MapRule::standard()];
    let mut evaluator = Evaluator::new(&rules, &[2, 10], 2).unwrap();
    let untied = evaluator.query(&untied());
    let empty = evaluator.query(&whole(&[(0.5, false)]));
    assert_eq!(empty.average_precision(), [Some(0.0), None]);
    evaluator.add(&untied).unwrap();
    evaluator.add(&empty).unwrap();
    let report = evaluator.finish().unwrap();
    assert_eq!((report.n_queries, report.n_empty), (2, 1));
    // The first rule counts the empty query as zero, which halves everything; the second leaves it
    // out.
    let ap = (1.0 + 2.0 / 3.0 + 3.0 / 4.0) / 3.0;
    assert_eq!((report.map[0].0, report.map[1].0), (rules[0], rules[1]));
    assert_close(report.map[0].1, ap / 2.0);
    assert_close(report.map[1].1, ap);
    // One of the first two is relevant, three of the first ten (of which five exist).
    assert_eq!(report.precision_at, [(2, 0.5 / 2.0), (10, 0.3 / 2.0)]);
    assert_eq!(report.recall_at, [(2, 1.0 / 3.0 / 2.0), (10, 1.0 / 2.0)]);
    // Recall 0: best of 1, 2/3, 3/4. Recall 1/2 needs two of three, reached at rank 3 with 2/3,
    // bettered at rank 4 by 3/4.
    let curve: Vec<f64> = report.precision_recall.iter().map(|point| point.1 * 2.0).collect();
    assert_eq!(report.precision_recall.iter().map(|point| point.0).collect::<Vec<_>>(), [0.0, 0.5, 1.0]);
    assert_eq!(curve, [1.0, 0.75, 0.75]);
}

#[test]
fn precision_and_recall_inside_a_tie_are_expectations() {
    // A tie of four with two relevant: each rank is relevant with probability 1/2.
    let tied = whole(&[(0.5, true), (0.5, true), (0.5, false), (0.5, false)]);
    let mut evaluator = Evaluator::new(&[MapRule::dpq()], &[1, 3, 8], 4).unwrap();
    evaluator.add(&evaluator.query(&tied)).unwrap();
    let report = evaluator.finish().unwrap();
    assert_eq!(report.precision_at, [(1, 0.5), (3, 0.5), (8, 0.25)]);
    assert_eq!(report.recall_at, [(1, 0.25), (3, 0.75), (8, 1.0)]);
    assert!(report.precision_recall.iter().all(|&(_, precision)| precision == 0.5));
}

#[test]
fn a_recall_level_is_met_exactly() {
    // Ten relevant items at the odd ranks 1, 3, …, 19 and recall in tenths: the i-th is met at rank
    // 2i − 1, where precision is i / (2i − 1), falling from 1. In floating point 0.3 · 10 and 0.7 ·
    // 10 would miss their item.
    let items: Vec<(f32, bool)> = (0..20_i16).map(|i| (-f32::from(i), i % 2 == 0)).collect();
    let mut evaluator = Evaluator::new(&[MapRule::dpq()], &[], 10).unwrap();
    evaluator.add(&evaluator.query(&whole(&items))).unwrap();
    for (i, (recall, precision)) in evaluator.finish().unwrap().precision_recall.into_iter().enumerate() {
        assert_eq!(recall, i as f64 / 10.0);
        assert_close(precision, if i == 0 { 1.0 } else { i as f64 / (2 * i - 1) as f64 });
    }
}

#[test]
fn items_share_labels() {
    // 70 classes, so two words per row: {0}, {69}, {0, 69}, none.
    let row = |classes: &[usize]| (0..70).map(|c| u8::from(classes.contains(&c))).collect::<Vec<_>>();
    let values = [row(&[0]), row(&[69]), row(&[0, 69]), row(&[])].concat();
    let labels = Labels::from_multi_hot(&values, 70).unwrap();
    assert_eq!((labels.len(), labels.n_classes(), labels.is_empty()), (4, 70, false));
    let expected = [
        [true, false, true, false],
        [false, true, true, false],
        [true, true, true, false],
        [false, false, false, false],
    ];
    for (i, expected) in expected.into_iter().enumerate() {
        assert_eq!(labels.relevant(i, &labels).unwrap(), expected);
    }
    assert!(Labels::from_multi_hot(&[], 3).unwrap().is_empty());
}

#[test]
fn rules_print_on_one_line() {
    let cut = MapRule { cutoff: Some(5000), ..MapRule::dpq() };
    assert_eq!(
        cut.to_string(),
        "mAP@5000, denominator = relevant retrieved, ties = expectation, empty = zero, self = kept"
    );
    assert_eq!(
        MapRule::standard().to_string(),
        "mAP@all, denominator = all relevant, ties = by id, empty = skipped, self = kept"
    );
    let other = MapRule { exclude_self: true, ..rule(Some(9), Denominator::MinCutoff, Ties::Minimum) };
    assert_eq!(
        other.to_string(),
        "mAP@9, denominator = min(cut-off, all relevant), ties = minimum, empty = zero, self = excluded"
    );
}
