//! Beam search and refinement.

use std::sync::atomic::{AtomicBool, Ordering};

use dpq_codebook::{Assignment, Beam, Codebooks, Error, FitOptions, ResidualKMeans};
use proptest::prelude::*;

use crate::{codebooks, numbers, threads};

const CONFIG: ResidualKMeans = ResidualKMeans { n_levels: 3, n_codewords: 16, n_iterations: 10 };

fn options(beam: Beam<'_>) -> FitOptions<'_> {
    FitOptions { beam: Some(beam), ..FitOptions::default() }
}

/// Returns the weighted errors of all lengths, summed over features, by the definition.
fn cost(codebooks: &Codebooks, features: &[f32], codes: &[u8], weights: &[f32]) -> f64 {
    let rows = features.chunks_exact(codebooks.dim()).zip(codes.chunks_exact(codebooks.n_levels()));
    rows.map(|(x, code)| {
        let mut residual: Vec<f64> = x.iter().map(|&x| x.into()).collect();
        let mut cost = 0.0;
        for (level, &byte) in code.iter().enumerate() {
            let codeword = codebooks.codeword(level, byte.into());
            residual.iter_mut().zip(codeword).for_each(|(r, &c)| *r -= f64::from(c));
            cost += f64::from(weights[level]) * residual.iter().map(|r| r * r).sum::<f64>();
        }
        cost
    })
    .sum()
}

/// Returns every possible code.
fn every_code(n_codewords: usize, n_levels: usize) -> Vec<Vec<u8>> {
    (0..n_levels).fold(vec![Vec::new()], |codes, _| {
        let longer = |code: &Vec<u8>| {
            let code = code.clone();
            (0..n_codewords as u8).map(move |byte| [&code[..], &[byte]].concat())
        };
        codes.iter().flat_map(longer).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_beam_that_keeps_everything_finds_the_best_code(
        dim in 1usize..40, n_levels in 1usize..4, seed in 0u64..1000, weights in prop::array::uniform3(0.0f32..1.0),
    ) {
        let codebooks = codebooks(n_levels, 5, dim, Assignment::Euclidean);
        let features = numbers(40 * dim, seed);
        let weights = &weights[..n_levels];
        let codes = codebooks.encode_beam(&features, Beam { width: 125, weights }).unwrap();
        for (x, code) in features.chunks_exact(dim).zip(codes.chunks_exact(n_levels)) {
            let best = every_code(5, n_levels)
                .iter()
                .map(|code| cost(&codebooks, x, code, weights))
                .fold(f64::INFINITY, f64::min);
            let scale = cost(&codebooks, x, &vec![0; n_levels], weights) + 1.0;
            prop_assert!(cost(&codebooks, x, code, weights) - best <= 1e-4 * scale);
        }
    }

    #[test]
    fn a_beam_of_one_is_greedy_and_a_feature_alone_gives_what_a_batch_gives(
        dim in 1usize..40, seed in 0u64..1000, assignment in prop_oneof![Just(Assignment::Euclidean), Just(Assignment::Cosine)],
    ) {
        let codebooks = codebooks(4, 33, dim, assignment);
        let features = numbers(150 * dim, seed);
        let beam = |width| Beam { width, weights: &[1.0; 4] };
        prop_assert_eq!(codebooks.encode_beam(&features, beam(1)).unwrap(), codebooks.encode(&features).unwrap());
        if assignment == Assignment::Euclidean {
            let codes = codebooks.encode_beam(&features, beam(7)).unwrap();
            for (x, code) in features.chunks_exact(dim).zip(codes.chunks_exact(4)).step_by(17) {
                prop_assert_eq!(&codebooks.encode_beam(x, beam(7)).unwrap(), code);
            }
        }
    }
}

#[test]
fn a_wider_beam_lowers_the_error_that_the_weights_count() {
    let features = numbers(2000 * 12, 1);
    let codebooks = CONFIG.train(&features, 12).unwrap();
    let last = [0.0, 0.0, 1.0];
    let all = [1.0; 3];
    let encode = |width, weights: &[f32]| codebooks.encode_beam(&features, Beam { width, weights }).unwrap();
    for weights in [&last, &all] {
        let costs: Vec<f64> = [1, 2, 8, 64]
            .iter()
            .map(|&width| cost(&codebooks, &features, &encode(width, weights), weights))
            .collect();
        assert!(costs.is_sorted_by(|a, b| a >= b) && costs[0] > costs[1], "{costs:?}");
    }
    // Each set of codes has the lower error by its own weights.
    let (for_last, for_all) = (encode(16, &last), encode(16, &all));
    let costs = |codes: &[u8]| [&last, &all].map(|weights| cost(&codebooks, &features, codes, weights));
    let ([last_by_last, all_by_last], [last_by_all, all_by_all]) = (costs(&for_last), costs(&for_all));
    assert!(last_by_last < last_by_all && all_by_all < all_by_last);
}

#[test]
fn codebooks_fitted_for_a_beam_suit_its_codes() {
    let config = ResidualKMeans { n_codewords: 64, ..CONFIG };
    let features = numbers(2000 * 12, 1);
    let (fitted, others) = features.split_at(1000 * 12);
    let train = |width, weights: &[f32]| {
        let mut left = Vec::new();
        let beam = Beam { width, weights };
        let mut progress = |_: usize, error: f64| left.push(error);
        let options = FitOptions { progress: Some(&mut progress), ..options(beam) };
        let codebooks = config.train_with(fitted, 12, options).unwrap();
        let codes = codebooks.encode_beam(fitted, beam).unwrap();
        let expected = codebooks.relative_distortion(fitted, &codes).unwrap();
        assert!((left[2] - expected[2]).abs() < 1e-5 * expected[2], "{left:?} {expected:?}");
        codebooks
    };
    let greedy = config.train(fitted, 12).unwrap();
    assert_eq!(train(1, &[1.0; 3]), greedy);
    for weights in [[1.0; 3], [0.0, 0.0, 1.0], [0.0, 1.0, 0.5]] {
        let for_beam = train(5, &weights);
        let beam = Beam { width: 5, weights: &weights };
        let costs = [&greedy, &for_beam].map(|codebooks| {
            cost(codebooks, others, &codebooks.encode_beam(others, beam).unwrap(), &weights)
        });
        assert!(costs[1] < costs[0], "{weights:?}: {costs:?}");
    }
}

#[test]
fn beams_wider_than_all_codes_and_features_of_extreme_norms_are_fitted() {
    // Two codewords per level, and features whose squares overflow f32.
    let config = ResidualKMeans { n_codewords: 2, ..CONFIG };
    let mut features = numbers(50 * 3, 7);
    let beam = Beam { width: 8, weights: &[1.0; 3] };
    let train = |features: &[f32]| config.train_with(features, 3, options(beam)).unwrap();
    train(&features);
    assert!(config.train_with(&features, 3, options(Beam { width: usize::MAX, ..beam })).is_ok());
    features[..6].iter_mut().for_each(|x| *x *= 1e20);
    train(&features);
    let refused = config.train_with(&features, 3, options(Beam { weights: &[1.0; 2], ..beam }));
    assert_eq!(refused.unwrap_err().to_string(), "weights has 2 values, expected 3");
}

#[test]
fn refinement_lowers_the_weighted_error_and_reports_it() {
    let features = numbers(2000 * 12, 1);
    let codebooks = CONFIG.train(&features, 12).unwrap();
    for (width, weights) in [(1, [1.0; 3]), (5, [1.0; 3]), (5, [0.0, 0.0, 1.0]), (5, [0.0, 1.0, 0.5])] {
        let beam = Beam { width, weights: &weights };
        let mut reported = Vec::new();
        let mut progress = |_: usize, error: f64| reported.push(error);
        let options = FitOptions { progress: Some(&mut progress), ..options(beam) };
        let refined = codebooks.refine(&features, 5, options).unwrap();
        let error = |codebooks: &Codebooks| {
            let codes = codebooks.encode_beam(&features, beam).unwrap();
            cost(codebooks, &features, &codes, &weights)
                / features.iter().map(|x| f64::from(x * x)).sum::<f64>()
        };
        let (before, after) = (error(&codebooks), error(&refined));
        assert!(after < before, "{width} {weights:?}: {before} {after}");
        assert!((reported[0] - before).abs() < 1e-5 * before);
        let least = reported.iter().copied().fold(f64::INFINITY, f64::min);
        assert!((least - after).abs() < 1e-5 * after, "{reported:?} {after}");
    }
}

#[test]
fn refinement_finds_codebooks_that_represent_features_exactly() {
    // Sums of one codeword of each level, with each level moved slightly: refinement moves it back.
    let made = codebooks(2, 4, 6, Assignment::Euclidean);
    let features: Vec<f32> =
        every_code(4, 2).iter().flat_map(|code| made.decode(code, made.max_length()).unwrap()).collect();
    let moved: Vec<f32> = made.values().iter().zip(numbers(48, 9)).map(|(c, x)| c + 0.03 * x).collect();
    let moved = Codebooks::new(moved, 2, 4, 6, Assignment::Euclidean).unwrap();
    let beam = Beam { width: 4, weights: &[0.0, 1.0] };
    let mut errors = Vec::new();
    let mut progress = |_: usize, error: f64| errors.push(error);
    let options = FitOptions { progress: Some(&mut progress), ..options(beam) };
    moved.refine(&features, 30, options).unwrap();
    assert!(errors.last().unwrap() < &(1e-9 * errors[0]), "{errors:?}");
}

#[test]
fn threads_change_nothing() {
    let features = numbers(3000 * 20, 4);
    let beam = Beam { width: 5, weights: &[1.0; 3] };
    let work = || {
        let codebooks = CONFIG.train_with(&features, 20, options(beam)).unwrap();
        let refined = codebooks.refine(&features, 3, options(beam)).unwrap();
        let codes = refined.encode_beam(&features, beam).unwrap();
        (refined, codes)
    };
    assert_eq!(threads(1, work), threads(2, work));
}

#[test]
fn beams_that_do_not_fit_are_refused() {
    let euclidean = codebooks(2, 4, 3, Assignment::Euclidean);
    let error = |codebooks: &Codebooks, width, weights: &[f32]| {
        codebooks.encode_beam(&[0.0; 6], Beam { width, weights }).unwrap_err().to_string()
    };
    assert_eq!(error(&euclidean, 0, &[1.0; 2]), "beam width is 0, expected at least 1");
    assert_eq!(error(&euclidean, 5, &[1.0]), "weights has 1 values, expected 2");
    assert_eq!(
        error(&euclidean, 5, &[1.0, -1.0]),
        "weights has the value -1 at position 1, expected 0 or more, and more than 0 at the end"
    );
    assert!(error(&euclidean, 5, &[1.0, 0.0]).contains("the value 0 at position 1"));
    let many = codebooks(255, 256, 1, Assignment::Euclidean);
    let all = vec![1.0; 255];
    let refused = many.encode_beam(&[0.0], Beam { width: 2, weights: &all }).unwrap_err().to_string();
    assert_eq!(refused, "number of codewords of a beam is 65280, expected at most 16384");
    assert!(error(&euclidean, 5, &[1.0, f32::NAN]).contains("expected finite numbers"));
    let cosine = codebooks(2, 4, 3, Assignment::Cosine);
    assert!(error(&cosine, 5, &[1.0; 2]).contains("assign by cosine, expected euclidean"));
    let beam = Beam { width: 1, weights: &[1.0; 2] };
    assert!(matches!(cosine.refine(&[0.0; 6], 1, options(beam)), Err(Error::Cosine)));
}

#[test]
fn features_of_extreme_norms_have_the_codes_of_encode() {
    let codebooks = codebooks(2, 4, 3, Assignment::Euclidean);
    let beam = Beam { width: 3, weights: &[1.0; 2] };
    let features: Vec<f32> = [1.0, 1e20, 1e-20].iter().flat_map(|s| [0.3 * s, -0.2 * s, 0.9 * s]).collect();
    let (codes, greedy) =
        (codebooks.encode_beam(&features, beam).unwrap(), codebooks.encode(&features).unwrap());
    assert_eq!(codes[2..], greedy[2..]);
    let long: Vec<f32> = codebooks.values().iter().map(|x| x * 1e20).collect();
    let long = Codebooks::new(long, 2, 4, 3, Assignment::Euclidean).unwrap();
    assert_eq!(long.encode_beam(&features, beam).unwrap(), long.encode(&features).unwrap());
    // The most extreme numbers, and a level of zeros.
    for values in [vec![2.0, 3.0, 0.5, 1.0], vec![2.0, 3.0, 0.0, 0.0]] {
        let codebooks = Codebooks::new(values, 2, 2, 1, Assignment::Euclidean).unwrap();
        let features = [f32::MAX, -f32::MAX, 1e20, f32::MIN_POSITIVE];
        let beam = Beam { width: 2, ..beam };
        assert_eq!(codebooks.encode_beam(&features, beam).unwrap(), codebooks.encode(&features).unwrap());
    }
}

/// Beam search by the definition: sorts every continuation of every kept code.
fn naive(codebooks: &Codebooks, x: &[f32], width: usize, weights: &[f32]) -> Vec<u8> {
    let mut kept: Vec<(Vec<u8>, f64)> = vec![(Vec::new(), 0.0)];
    for level in 0..codebooks.n_levels() {
        let mut all = Vec::new();
        for (code, cost) in &kept {
            for byte in 0..codebooks.n_codewords() as u8 {
                let code = [code, &[byte][..]].concat();
                let mut residual: Vec<f64> = x.iter().map(|&x| x.into()).collect();
                for (level, &byte) in code.iter().enumerate() {
                    let codeword = codebooks.codeword(level, byte.into());
                    residual.iter_mut().zip(codeword).for_each(|(r, &c)| *r -= f64::from(c));
                }
                let error: f64 = residual.iter().map(|r| r * r).sum();
                let longer: f64 = weights[level..].iter().map(|&weight| f64::from(weight)).sum();
                all.push((cost + longer * error, code, cost + f64::from(weights[level]) * error));
            }
        }
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        kept = all.into_iter().take(width).map(|(_, code, cost)| (code, cost)).collect();
    }
    kept.swap_remove(0).0
}

#[test]
fn the_codes_are_those_of_the_definition_at_every_width() {
    let features = numbers(60 * 24, 5);
    for n_codewords in [3, 16, 70] {
        let codebooks = codebooks(3, n_codewords, 24, Assignment::Euclidean);
        for (width, weights) in [(2, [1.0, 1.0, 1.0]), (5, [0.0, 0.0, 1.0]), (33, [1.0, 0.5, 2.0])] {
            let codes = codebooks.encode_beam(&features, Beam { width, weights: &weights }).unwrap();
            for (x, code) in features.chunks_exact(24).zip(codes.chunks_exact(3)) {
                assert_eq!(
                    code,
                    naive(&codebooks, x, width, &weights),
                    "{n_codewords} codewords, width {width}"
                );
            }
        }
    }
}

#[test]
fn only_the_ratios_of_weights_count() {
    let codebooks = codebooks(3, 16, 8, Assignment::Euclidean);
    let features = numbers(100 * 8, 3);
    let codes = |weight| codebooks.encode_beam(&features, Beam { width: 4, weights: &[weight; 3] }).unwrap();
    assert_eq!(codes(f32::MAX), codes(1.0));
    assert_eq!(codes(1e-30), codes(1.0));
    let fit = |weight| {
        let beam = Beam { width: 4, weights: &[weight; 3] };
        let codebooks = CONFIG.train_with(&features, 8, options(beam)).unwrap();
        codebooks.refine(&features, 2, options(beam)).unwrap()
    };
    assert_eq!(fit(f32::MAX), fit(1.0));
    assert_eq!(fit(1e-30), fit(1.0));
}

#[test]
fn a_tiny_weight_decides_where_no_other_weight_does() {
    let codebooks = codebooks(3, 16, 8, Assignment::Euclidean);
    let features = numbers(100 * 8, 3);
    for last in [1e-8, f32::MIN_POSITIVE] {
        let beam = Beam { width: 4, weights: &[1e30, 1e30, last] };
        let codes = codebooks.encode_beam(&features, beam).unwrap();
        assert!(codes.iter().skip(2).step_by(3).collect::<std::collections::BTreeSet<_>>().len() > 4);
        CONFIG.train_with(&features, 8, options(beam)).unwrap();
    }
}

#[test]
fn a_beam_of_more_costs_than_memory_holds_is_refused() {
    // 64 levels of 256 codewords have 256⁶³ prefixes.
    let wide = codebooks(64, 256, 1, Assignment::Euclidean);
    let beam = Beam { width: usize::MAX, weights: &[1.0; 64] };
    assert!(matches!(wide.encode_beam(&[0.5], beam), Err(Error::TooLarge { .. })));
}

#[test]
fn codebooks_of_64_levels_fit_a_beam() {
    let (n_levels, features) = (64, numbers(600 * 16, 5));
    let config = ResidualKMeans { n_levels, n_codewords: 4, n_iterations: 5 };
    let weights = vec![1.0; n_levels];
    let beam = Beam { width: 3, weights: &weights };
    let work = |n| threads(n, || config.train_with(&features, 16, options(beam)).unwrap());
    let codebooks = work(2);
    assert_eq!(codebooks, work(1));
    let codes = codebooks.encode_beam(&features, beam).unwrap();
    let distortion = codebooks.relative_distortion(&features, &codes).unwrap();
    assert!(distortion[63] < 0.1 * distortion[7], "{distortion:?}");
    let greedy = cost(&codebooks, &features, &codebooks.encode(&features).unwrap(), &weights);
    assert!(cost(&codebooks, &features, &codes, &weights) < greedy);
}

#[test]
fn an_interrupted_fit_ends() {
    let features = numbers(2000 * 12, 1);
    let beam = Beam { width: 4, weights: &[1.0; 3] };
    for beam in [None, Some(beam)] {
        // Interrupted before the first level, and after it.
        for levels_before in [0, 1] {
            let interrupt = AtomicBool::new(levels_before == 0);
            let mut n_levels = 0;
            let mut progress = |level: usize, _: f64| {
                n_levels = level + 1;
                interrupt.store(true, Ordering::Relaxed);
            };
            let options = FitOptions {
                beam,
                progress: Some(&mut progress),
                interrupt: Some(&interrupt),
                ..FitOptions::default()
            };
            assert!(matches!(CONFIG.train_with(&features, 12, options), Err(Error::Interrupted)));
            assert_eq!(n_levels, levels_before);
        }
        let codebooks = CONFIG.train(&features, 12).unwrap();
        let interrupt = AtomicBool::new(false);
        let mut n_reports = 0;
        let mut progress = |_: usize, _: f64| {
            n_reports += 1;
            interrupt.store(true, Ordering::Relaxed);
        };
        let options = FitOptions {
            beam,
            progress: Some(&mut progress),
            interrupt: Some(&interrupt),
            ..FitOptions::default()
        };
        assert!(matches!(codebooks.refine(&features, 5, options), Err(Error::Interrupted)));
        assert_eq!(n_reports, 1, "the error at the start");
    }
}
