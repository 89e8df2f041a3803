//! Bad input is refused, each kind with its own error.

use dpq_eval::{Error, Evaluator, Labels, MapRule, Ranking};

use crate::whole;

#[test]
fn rankings_out_of_order() {
    let read = |items: &[(u64, f32)]| {
        Ranking::new(items.iter().map(|&(id, score)| (id, score, false)), 0, None)
            .map(|ranking| ranking.len())
    };
    assert_eq!(read(&[(4, 0.9), (1, 0.5), (2, 0.5)]), Ok(3));
    assert_eq!(read(&[(0, f32::INFINITY), (1, f32::INFINITY), (0, f32::NEG_INFINITY)]), Ok(3));
    assert_eq!(read(&[(1, 0.5), (2, 0.9)]), Err(Error::Order { rank: 1, id: 2 }));
    assert_eq!(read(&[(1, 0.9), (3, 0.5), (2, 0.5)]), Err(Error::Order { rank: 2, id: 2 }));
    assert_eq!(read(&[(1, 0.5), (1, 0.5)]), Err(Error::Order { rank: 1, id: 1 }));
    assert_eq!(read(&[(1, 0.0), (2, -0.0), (3, 0.0)]), Ok(3), "zeros of both signs are tied");
    assert_eq!(read(&[(5, f32::NAN)]), Err(Error::NanScore { at: 0, id: 5 }));
    assert_eq!(read(&[(5, 0.5), (6, f32::NAN), (7, 0.1)]), Err(Error::NanScore { at: 1, id: 6 }));
}

#[test]
fn more_relevant_items_than_exist() {
    let items = [(0, 0.5, true), (1, 0.4, true)];
    assert_eq!(Ranking::new(items, 1, None).unwrap_err(), Error::RelevantCount { found: 2, n_relevant: 1 });
}

#[test]
fn labels_of_the_wrong_form() {
    assert_eq!(Labels::from_multi_hot(&[1, 0, 1], 2), Err(Error::LabelShape { n_values: 3, n_classes: 2 }));
    assert_eq!(Labels::from_multi_hot(&[], 0), Err(Error::LabelShape { n_values: 0, n_classes: 0 }));
    assert_eq!(
        Labels::from_multi_hot(&[1, 0, 0, 7], 2),
        Err(Error::LabelValue { row: 1, class: 1, value: 7 })
    );
    let (two, three) =
        (Labels::from_multi_hot(&[1, 0], 2).unwrap(), Labels::from_multi_hot(&[1, 0, 0], 3).unwrap());
    assert_eq!(two.relevant(0, &three), Err(Error::ClassCount { query: 2, gallery: 3 }));
    assert_eq!(two.relevant(1, &two), Err(Error::Item { item: 1, n_items: 1 }));
}

#[test]
fn settings_and_means_without_meaning() {
    let rule = MapRule::standard();
    let error = |rules: &[MapRule], cutoffs: &[usize]| Evaluator::new(rules, cutoffs, 10).unwrap_err();
    assert_eq!(error(&[], &[]), Error::NoRules);
    assert_eq!(error(&[rule], &[5, 0]), Error::ZeroCutoff);
    assert_eq!(error(&[MapRule { cutoff: Some(0), ..rule }], &[]), Error::ZeroCutoff);
    let evaluator = Evaluator::new(&[rule], &[1], 2).unwrap();
    assert_eq!(evaluator.with_ndcg(&[1, 0]).unwrap_err(), Error::ZeroCutoff);

    let mut evaluator = Evaluator::new(&[rule], &[], 0).unwrap();
    assert_eq!(evaluator.finish(), Err(Error::NoQueries { n_queries: 0, n_empty: 0 }));
    evaluator.add(&evaluator.query(&whole(&[(0.5, false)]))).unwrap();
    let error = evaluator.finish().unwrap_err();
    assert_eq!(error, Error::NoQueries { n_queries: 1, n_empty: 1 });
    assert_eq!(
        error.to_string(),
        "none of the 1 queries counts, 1 of them have no relevant item: check the labels"
    );

    for other in [
        Evaluator::new(&[rule, rule], &[], 0).unwrap(),
        Evaluator::new(&[rule], &[1], 0).unwrap(),
        Evaluator::new(&[rule], &[], 1).unwrap(),
    ] {
        let result = other.query(&whole(&[(0.5, true)]));
        assert_eq!(evaluator.add(&result), Err(Error::OtherEvaluator));
    }
}
