//! Pairs that match, and the fingerprint of a training set.

use candle_core::Device;

use super::*;

fn set<'a>(pairs: &'a [[u32; 2]], read: &'a Read<'a, f32>) -> TrainSet<'a> {
    TrainSet {
        n_items: pairs.len(),
        labels: &[],
        n_classes: 0,
        multi_label: false,
        embeddings: None,
        inputs: Inputs::Pairs { dim: 1, pairs, n_rows: [10, 10], read: [read, read] },
        weights: None,
    }
}

/// Also a match of a pair that is not in the batch counts, and one given twice.
#[test]
fn other_matches_are_those_of_all_pairs() {
    let pairs = [[3, 7], [0, 1], [3, 2], [1, 7], [2, 2], [2, 5], [3, 7], [0, 9]];
    let read = |_: usize, _: Option<u64>, _: &mut [f32]| Ok(());
    let data = set(&pairs, &read);
    let sorted = data.sorted_pairs();
    for rows in [&[0usize, 1, 3, 4][..], &[0, 6], &[4, 2, 0, 5], &[7], &[0, 1, 2, 3, 4, 5, 6, 7]] {
        let found = data.other_matches(&sorted, rows, &Device::Cpu).unwrap();
        let expected: Vec<Vec<f32>> = rows
            .iter()
            .enumerate()
            .map(|(i, &row)| {
                let matches = |(j, &other): (usize, &usize)| {
                    let is_other = i != j && pairs.contains(&[pairs[row][0], pairs[other][1]]);
                    f32::from(u8::from(is_other))
                };
                rows.iter().enumerate().map(matches).collect()
            })
            .collect();
        let found = found.map(|found| found.to_vec2::<f32>().unwrap());
        let any = expected.iter().flatten().any(|&x| x > 0.0);
        assert_eq!(found, any.then_some(expected), "{rows:?}");
    }
}

#[test]
fn a_fingerprint_can_be_stopped() {
    let read = |row: usize, _: Option<u64>, out: &mut [f32]| {
        out[0] = row as f32;
        Ok(())
    };
    let pairs = [[0, 1], [1, 0]];
    let data = set(&pairs, &read);
    assert!(data.fingerprint(false, &|| Ok(())).unwrap().starts_with("2 pairs, "));
    let stopped = data.fingerprint(false, &|| Err(Error::Interrupted { epoch: 0 }));
    assert!(matches!(stopped, Err(Error::Interrupted { epoch: 0 })));
}
