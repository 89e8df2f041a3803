//! Changes, commits and merges against the definition.

use std::sync::atomic::AtomicBool;

use dpq_live::{Assignment, CodeLength, Codebooks, Form, LiveIndex, Metric, SearchOptions, Snapshot};
use proptest::prelude::*;

use crate::common::{CODEWORDS, Change, LEVELS, Model, Random, bits, codebooks, files};
use crate::create;

#[derive(Clone, Debug)]
enum Step {
    Change(Change),
    Commit,
    Merge,
    /// A merge that begins now and is finished by the second step of this kind.
    LongMerge,
    Compact,
    Reopen,
    MaxTail(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let code = || prop::collection::vec(0..CODEWORDS as u8, LEVELS);
    let id = || 0..30u64;
    prop_oneof![
        12 => (id(), code()).prop_map(|(id, code)| Step::Change(Change::Upsert(id, code, None))),
        5 => (id(), code(), 0..12).prop_map(|(id, code, name)| {
            Step::Change(Change::Upsert(id, code, Some(format!("ñ{name}"))))
        }),
        6 => id().prop_map(|id| Step::Change(Change::Delete(id))),
        5 => Just(Step::Commit),
        1 => Just(Step::Merge),
        6 => Just(Step::LongMerge),
        1 => Just(Step::Compact),
        1 => Just(Step::Reopen),
        1 => (1..6usize).prop_map(Step::MaxTail),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// The last commit and all snapshots before it have the items of the definition, whatever
    /// happened since.
    #[test]
    fn snapshots_have_the_items_of_their_commit(
        steps in prop::collection::vec(step(), 1..150),
        is_euclidean: bool,
    ) {
        let metric = if is_euclidean { Metric::Euclidean } else { Metric::InnerProduct };
        let (_dir, folder, mut live) = create(&codebooks(1), metric, 3);
        let (mut model, mut committed) = (Model::default(), Model::default());
        let (mut snapshots, mut merge) = (Vec::new(), None);
        for step in steps {
            let is_commit = matches!(step, Step::Commit | Step::Compact);
            match step {
                Step::Change(change) => model.change_both(&mut live, &change).unwrap(),
                Step::Commit => _ = live.commit().unwrap(),
                Step::Merge => _ = live.merge_step().unwrap(),
                Step::LongMerge => match merge.take() {
                    None => merge = live.plan_merge(),
                    // Another merge may have come first.
                    Some(merge) => _ = live.finish_merge(dpq_live::Merge::run(merge).unwrap()),
                },
                Step::Compact => {
                    live.compact().unwrap();
                    let stats = live.snapshot().unwrap().stats();
                    prop_assert!(stats.segments.len() <= 1 && stats.deleted == 0 && stats.tail == 0);
                }
                Step::Reopen => {
                    // A merge keeps the lock.
                    merge = None;
                    drop(live);
                    live = LiveIndex::open(&folder).unwrap();
                    live.set_max_tail(3).unwrap();
                    model = committed.clone();
                }
                Step::MaxTail(n) => live.set_max_tail(n).unwrap(),
            }
            prop_assert_eq!(live.len(), model.0.len());
            prop_assert_eq!(live.is_empty(), model.0.is_empty());
            if is_commit {
                committed = model.clone();
                for snapshot in [live.snapshot().unwrap(), Snapshot::open(&folder).unwrap()] {
                    snapshot.verify().unwrap();
                    committed.check(&snapshot);
                    snapshots.push((snapshot, committed.clone()));
                }
            }
        }
        for (snapshot, model) in &snapshots {
            snapshot.verify().unwrap();
            model.check(snapshot);
        }
        drop((live, merge));
        let live = LiveIndex::open(&folder).unwrap();
        let ids: Vec<u64> = (0..30).filter(|&id| live.contains(id)).collect();
        prop_assert_eq!(ids, committed.0.keys().copied().collect::<Vec<_>>());
    }
}

/// Eight segments are merged into one, whose file is that of an index of the same items.
#[test]
fn eight_segments_have_the_bits_of_one() {
    let codebooks = codebooks(2);
    let (dir, folder, mut live) = create(&codebooks, Metric::Euclidean, 50);
    let (mut model, mut random) = (Model::default(), Random(9));
    for id in 0..400 {
        model.change_both(&mut live, &Change::Upsert(id * 7 % 400, random.code(), None)).unwrap();
    }
    // The tail is sealed by the item that does not fit.
    live.commit().unwrap();
    let seven = live.snapshot().unwrap();
    assert_eq!((seven.stats().segments, seven.stats().tail), (vec![50; 7], 50));
    assert!(!live.merge_step().unwrap(), "seven segments are not merged");
    model.change_both(&mut live, &Change::Upsert(1000, random.code(), None)).unwrap();
    live.delete(1000).unwrap();
    model.change(&Change::Delete(1000));
    live.commit().unwrap();
    let eight = live.snapshot().unwrap();
    assert_eq!((eight.stats().segments, eight.stats().tail), (vec![50; 8], 0));
    assert!(live.merge_step().unwrap() && !live.merge_step().unwrap());
    live.commit().unwrap();
    let one = live.snapshot().unwrap();
    assert_eq!((one.stats().segments, one.stats().deleted), (vec![400], 0));

    let options = dpq_live::SearchOptions::new(100);
    let queries: Vec<f32> = (0..40).map(|_| random.below(100) as f32 / 50.0 - 1.0).collect();
    let expected =
        bits(&model.index(&codebooks, Metric::Euclidean).search_batch(&queries, &options).unwrap());
    for snapshot in [seven, eight, one] {
        model.check(&snapshot);
        assert_eq!(bits(&snapshot.search_batch(&queries, &options).unwrap()), expected);
    }
    let segment = files(&folder).into_iter().find(|name| name.starts_with("segment-")).unwrap();
    let whole = dir.path().join("whole.dpq");
    model.index(&codebooks, Metric::Euclidean).save(&whole).unwrap();
    assert_eq!(std::fs::read(folder.join(segment)).unwrap(), std::fs::read(whole).unwrap());
    assert_eq!(files(&folder).len(), 4, "{:?}", files(&folder));
}

/// A segment of which more than half was deleted is made anew.
#[test]
fn deleted_items_are_dropped_by_merges() {
    let (_dir, folder, mut live) = create(&codebooks(2), Metric::InnerProduct, 10);
    let mut model = Model::default();
    for id in 0..11 {
        let name = Some(format!("name of {id}"));
        model.change_both(&mut live, &Change::Upsert(id, vec![0, 1, 2], name)).unwrap();
    }
    for id in 0..6 {
        assert!(!live.merge_step().unwrap());
        model.change_both(&mut live, &Change::Delete(id)).unwrap();
    }
    live.commit().unwrap();
    let before = live.snapshot().unwrap();
    assert_eq!((before.stats().segments, before.stats().deleted), (vec![10], 6));
    let merge = live.plan_merge().unwrap();
    let (files, interrupted) = (crate::common::files(&folder), live.plan_merge().unwrap());
    let error = interrupted.run_until(&AtomicBool::new(true)).err();
    assert!(matches!(error, Some(dpq_live::Error::Index(dpq_index::Error::Interrupted))), "{error:?}");
    assert_eq!(crate::common::files(&folder), files);
    // Changes during the merge count too.
    model.change_both(&mut live, &Change::Delete(6)).unwrap();
    model.change_both(&mut live, &Change::Upsert(7, vec![4, 4, 4], None)).unwrap();
    assert!(live.finish_merge(merge.run().unwrap()));
    live.commit().unwrap();
    let after = live.snapshot().unwrap();
    assert_eq!((after.stats().segments, after.stats().deleted), (vec![4], 2));
    model.check(&after);
    assert_eq!(before.name_of(7), Some("name of 7"));
}

/// Codes of product codebooks are searched as in one index, at their only length.
#[test]
fn product_codes_live_in_segments() {
    for metric in [Metric::InnerProduct, Metric::Euclidean] {
        let values = codebooks(3).values().to_vec();
        let dim = values.len() / CODEWORDS;
        let product =
            Codebooks::with_form(Form::Product, values, LEVELS, CODEWORDS, dim, Assignment::Euclidean);
        let (_dir, folder, mut live) = create(&product.unwrap(), metric, 4);
        let (mut model, mut random) = (Model::default(), Random(9));
        for _ in 0..60 {
            let change = random.change(20);
            if !matches!(change, Change::Delete(id) if !model.0.contains_key(&id)) {
                model.change_both(&mut live, &change).unwrap();
            }
        }
        live.merge_step().unwrap();
        live.commit().unwrap();
        let snapshot = Snapshot::open(&folder).unwrap();
        let index = model.index(snapshot.codebooks(), metric);
        let queries: Vec<f32> = (0..5 * dim).map(|_| random.below(9) as f32 / 4.0 - 1.0).collect();
        let options = SearchOptions::new(7);
        assert_eq!(
            bits(&snapshot.search_batch(&queries, &options).unwrap()),
            bits(&index.search_batch(&queries, &options).unwrap())
        );
        let short = options.length(CodeLength::from_bits(16).unwrap());
        assert!(snapshot.search_batch(&queries, &short).is_err());
    }
}
