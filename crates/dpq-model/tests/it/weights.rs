//! Residual networks against golden features, which `tests/golden/resnet.py` makes in NumPy.

use std::iter;

use dpq_model::config::{Block, Body};
use dpq_model::{Arrays, Weights};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    blocks: [usize; 4],
    side: usize,
    /// Names and shapes.
    arrays: Vec<(String, Vec<usize>)>,
    /// f32 `[2, F]`.
    features: Vec<Vec<f64>>,
}

/// The numbers of the script, which are in [0, 1).
fn numbers() -> impl Iterator<Item = f64> {
    let next = |state: &u32| Some(state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    let states = iter::successors(Some(1), next).skip(1);
    states.map(|state| f64::from(state >> 8) / f64::from(1 << 24))
}

fn arrays(case: &Case, numbers: &mut impl Iterator<Item = f64>) -> Arrays {
    let mut arrays = Arrays::new();
    for (name, shape) in &case.arrays {
        let value = |x: f64| match shape[..] {
            [_, n_in, h, w] => (2.0 * x - 1.0) / ((n_in * h * w) as f64).sqrt(),
            _ if name.ends_with("weight") || name.ends_with("running_var") => x + 0.5,
            _ => x - 0.5,
        };
        let n = shape.iter().product();
        let values = numbers.by_ref().take(n).map(|x| value(x) as f32).collect();
        arrays.insert(name.clone(), (shape.clone(), values));
    }
    arrays
}

#[test]
fn residual_networks_give_the_features_of_numpy_at_any_size() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../golden/resnet.json")).unwrap();
    for (case, expected) in cases.iter().zip([Block::Basic, Block::Bottleneck]) {
        let mut numbers = numbers();
        let weights = Weights::import(arrays(case, &mut numbers)).unwrap();
        let Body::Resnet { block, blocks, .. } = *weights.body_config() else { unreachable!() };
        assert_eq!((block, blocks), (expected, case.blocks));

        let weights = weights.with_input(case.side).unwrap();
        let n = 2 * 3 * case.side * case.side;
        let images: Vec<u8> = numbers.take(n).map(|x| (256.0 * x) as u8).collect();
        let (found, expected) = (weights.body(&images).unwrap(), case.features.concat());
        assert_eq!(found.len(), expected.len());
        let largest = expected.iter().fold(0.0, |largest: f64, x| largest.max(*x));
        assert!(expected.iter().filter(|&&x| x > 0.1 * largest).count() > expected.len() / 4);
        for (found, expected) in found.into_iter().zip(expected) {
            assert!((f64::from(found) - expected).abs() < 1e-4 * largest, "{found}, expected {expected}");
        }
    }
}
