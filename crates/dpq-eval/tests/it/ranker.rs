//! A ranking made from scores equals the one made from sorted items.

use dpq_eval::{Error, Ranker, Ranking};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// Scores, sizes and relevance of runs, items numbered through; `ids` permutes them, ascending in
/// each run.
#[derive(Debug)]
struct Gallery {
    scores: Vec<f32>,
    starts: Vec<u32>,
    ids: Vec<u64>,
    relevant: Vec<bool>,
}

/// Scores that are hard in different ways: few, fine, far from the others, the same twice, of both
/// zeros, infinite.
fn score() -> impl Strategy<Value = f32> {
    prop_oneof![
        (-3_i8..3).prop_map(f32::from),
        -1.0_f32..1.0,
        prop_oneof![Just(0.0), Just(-0.0), Just(1e30), Just(-1e30), Just(f32::MAX), Just(f32::MIN)],
        prop_oneof![Just(f32::INFINITY), Just(f32::NEG_INFINITY), Just(f32::MIN_POSITIVE), Just(1e-45)],
    ]
}

fn gallery() -> impl Strategy<Value = Gallery> {
    // Also scores of one kind only: one score far from all others leaves these a single step.
    let scores = prop_oneof![
        prop::collection::vec(score(), 0..60),
        prop::collection::vec(-1.0_f32..1.0, 0..60),
        prop::collection::vec((-2_i8..2).prop_map(f32::from), 0..60),
    ];
    let run = (1_usize..4, prop::collection::vec(prop::bool::weighted(0.3), 4), any::<bool>());
    (scores, prop::collection::vec(run, 60), any::<u64>()).prop_map(|(scores, runs, factor)| {
        let (mut starts, mut relevant) = (vec![0], Vec::new());
        for (size, flags, none) in &runs[..scores.len()] {
            relevant.extend(flags[..*size].iter().map(|&flag| flag && !none));
            starts.push(relevant.len() as u32);
        }
        // An odd factor permutes the residues of a power of two.
        let mut ids: Vec<u64> =
            (0..relevant.len() as u64).map(|i| i.wrapping_mul(factor | 1) % 256).collect();
        starts.windows(2).for_each(|run| ids[run[0] as usize..run[1] as usize].sort_unstable());
        Gallery { scores, starts, ids, relevant }
    })
}

impl Gallery {
    /// By sorting all items.
    fn sorted(&self, query: Option<u64>) -> Ranking {
        let runs = self.starts.windows(2).zip(&self.scores);
        let mut items: Vec<(u64, f32, bool)> = runs
            .flat_map(|(run, &score)| {
                (run[0] as usize..run[1] as usize).map(move |i| (self.ids[i], score, self.relevant[i]))
            })
            .collect();
        items.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap().then(a.0.cmp(&b.0)));
        let n_relevant = self.relevant.iter().filter(|&&relevant| relevant).count();
        Ranking::new(items, n_relevant, query).unwrap()
    }

    fn ranker(&self) -> Ranker<'_> {
        Ranker::new(&self.starts, &self.ids, &self.relevant).unwrap()
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn rankings_equal_those_of_sorted_items(gallery in gallery(), query in prop::option::of(0_u64..256)) {
        let found = gallery.ranker().rank(&gallery.scores, query).unwrap();
        prop_assert_eq!(format!("{found:?}"), format!("{:?}", gallery.sorted(query)));
    }
}

#[test]
fn a_large_gallery_equals_sorted_items() {
    // Steps of many runs, and of none: ten classes, scores in two humps and one far away.
    let n = 20_000_u64;
    let mut state = 1_u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    for far in [0.0, 1e6] {
        let relevant: Vec<bool> = (0..n).map(|_| next() < 0.1).collect();
        let mut scores: Vec<f32> =
            relevant.iter().map(|&relevant| next() + next() + if relevant { 1.5 } else { 0.0 }).collect();
        scores[7] += far;
        scores[8] = scores[9];
        let gallery = Gallery {
            scores,
            starts: (0..=n as u32).collect(),
            ids: (0..n).map(|i| i * 7919 % n).collect(),
            relevant,
        };
        let found = gallery.ranker().rank(&gallery.scores, Some(5)).unwrap();
        assert_eq!(format!("{found:?}"), format!("{:?}", gallery.sorted(Some(5))));
    }
}

#[test]
fn nan_is_refused_by_its_first_item() {
    let gallery = Gallery {
        scores: vec![1.0, f32::NAN],
        starts: vec![0, 2, 3],
        ids: vec![4, 6, 9],
        relevant: vec![false; 3],
    };
    let error = gallery.ranker().rank(&gallery.scores, None).unwrap_err();
    assert_eq!(error, Error::NanScore { at: 2, id: 9 });
    assert_eq!(error.to_string(), "the score of item 2 (id 9) is NaN, expected a number");
}

#[test]
fn runs_that_do_not_divide_the_items_are_refused() {
    let new = |starts: &[u32], n_items: usize, n_flags: usize| {
        let (ids, flags) = (vec![0; n_items], vec![false; n_flags]);
        Ranker::new(starts, &ids, &flags).map(drop)
    };
    assert_eq!(new(&[0], 0, 0), Ok(()));
    assert_eq!(new(&[0, 2], 2, 3), Err(Error::Length { what: "relevant", found: 3, expected: 2 }));
    assert_eq!(new(&[], 0, 0), Err(Error::Length { what: "starts", found: 0, expected: 1 }));
    for (starts, run) in
        [(&[0][..], 0), (&[1, 2], 0), (&[0, 1], 1), (&[0, 0, 2], 1), (&[0, 2, 1], 2), (&[0, 3], 1)]
    {
        assert_eq!(new(starts, 2, 2), Err(Error::Runs { run, start: starts[run], n_items: 2 }), "{starts:?}");
    }
    let error = Ranker::new(&[0, 2], &[4, 6], &[false; 2]).unwrap().rank(&[], None).unwrap_err();
    assert_eq!(error, Error::Length { what: "scores", found: 0, expected: 1 });
}
