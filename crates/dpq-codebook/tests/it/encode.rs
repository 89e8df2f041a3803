//! Encoding, decoding, tables and distortion.

use dpq_codebook::{Assignment, CodeLength, Codebooks, Error, LookupTable, usage};
use proptest::prelude::*;

use crate::{codebooks, numbers, threads};

/// Asserts for each byte that its codeword fits the residual in f32 best, by f64 up to the rounding
/// of f64, and that no earlier codeword equals it.
fn assert_definition(codebooks: &Codebooks, features: &[f32]) {
    let (dim, n_levels) = (codebooks.dim(), codebooks.n_levels());
    let codes = codebooks.encode(features).unwrap();
    assert_eq!(codes.len(), features.len() / dim * n_levels);
    let norm = |x: &[f32]| x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    for (x, code) in features.chunks_exact(dim).zip(codes.chunks_exact(n_levels)) {
        let mut residual = x.to_vec();
        for (level, &byte) in code.iter().enumerate() {
            // How well a codeword fits: larger is better.
            let fit = |k: usize| {
                let c = codebooks.codeword(level, k);
                let pairs = || residual.iter().zip(c).map(|(&r, &c)| (f64::from(r), f64::from(c)));
                match codebooks.assignment() {
                    Assignment::Euclidean => -pairs().map(|(r, c)| (r - c) * (r - c)).sum::<f64>(),
                    Assignment::Cosine if norm(c) > 0.0 => pairs().map(|(r, c)| r * c).sum::<f64>() / norm(c),
                    Assignment::Cosine => 0.0,
                }
            };
            let chosen = usize::from(byte);
            let best = (0..codebooks.n_codewords()).map(fit).fold(f64::NEG_INFINITY, f64::max);
            let scale = match codebooks.assignment() {
                Assignment::Euclidean => -best,
                Assignment::Cosine => norm(&residual),
            };
            let rounding = 4.0 * (dim + 4) as f64 * f64::EPSILON * scale;
            let gap = best - fit(chosen);
            assert!(
                gap <= rounding,
                "level {level} chose {byte}, worse by {gap:e}, {} {x:?}",
                codebooks.assignment()
            );
            let codeword = codebooks.codeword(level, chosen);
            assert!(
                (0..chosen).all(|k| codebooks.codeword(level, k) != codeword),
                "level {level}: not the least"
            );
            residual.iter_mut().zip(codeword).for_each(|(r, c)| *r -= c);
        }
    }
}

fn assignments() -> impl Strategy<Value = Assignment> {
    prop_oneof![Just(Assignment::Euclidean), Just(Assignment::Cosine)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn codes_are_those_of_the_definition(
        levels in 1usize..6, codewords in 1usize..40, dim in 1usize..40, n in 0usize..300,
        seed in 0u64..1000, assignment in assignments(),
    ) {
        assert_definition(&codebooks(levels, codewords, dim, assignment), &numbers(n * dim, seed));
    }

    #[test]
    fn codewords_that_f32_cannot_distinguish_are_distinguished(
        dim in 1usize..40, offset in -4i32..5, spread in -30i32..3, seed in 0u64..1000, assignment in assignments(),
    ) {
        // Far from the origin and close together, so that differences cancel almost all of ‖x‖².
        // Each codeword exists twice.
        let crowd = |n, seed| -> Vec<f32> {
            let spread = 2f32.powi(spread);
            numbers(n * dim, seed).iter().map(|x| 10f32.powi(offset) + spread * x).collect()
        };
        let mut values = crowd(10, seed);
        values.extend_from_within(..);
        values.extend(crowd(20, seed + 1).iter().map(|x| x * 1e-7));
        let codebooks = Codebooks::new(values, 2, 20, dim, assignment).unwrap();
        assert_definition(&codebooks, &crowd(30, seed + 2));
        // The residual of a codeword itself is zero.
        assert_definition(&codebooks, codebooks.level(0));
    }

    #[test]
    fn a_batch_gives_what_single_features_give(dim in 1usize..70, seed in 0u64..1000) {
        let codebooks = codebooks(3, 33, dim, Assignment::Euclidean);
        let features = numbers(600 * dim, seed);
        let codes = codebooks.encode(&features).unwrap();
        for (i, x) in features.chunks_exact(dim).enumerate().step_by(41) {
            prop_assert_eq!(&codebooks.encode(x).unwrap(), &codes[3 * i..3 * i + 3]);
        }
    }

    #[test]
    fn table_sums_are_inner_products_with_the_decoded(
        levels in 1usize..6, dim in 1usize..50, seed in 0u64..1000,
    ) {
        let codebooks = codebooks(levels, 16, dim, Assignment::Euclidean);
        let query = numbers(dim, seed + 1);
        let table = codebooks.lookup_table(&query).unwrap();
        let codes = codebooks.encode(&numbers(20 * dim, seed)).unwrap();
        for l in 1..=levels {
            let length = CodeLength::from_levels(l).unwrap();
            let short = codebooks.lookup_table_at(&query, length).unwrap();
            prop_assert_eq!(short.values(), &table.values()[..l * 16]);
            let queries = [&numbers(dim * 4, seed)[..], &query, &[0.0].repeat(dim)].concat();
            let tables = codebooks.lookup_tables(&queries, length).unwrap();
            let one = |query| codebooks.lookup_table_at(query, length).unwrap();
            prop_assert_eq!(&tables[4], &short);
            prop_assert_eq!(tables, queries.chunks_exact(dim).map(one).collect::<Vec<_>>());
            let decoded = codebooks.decode(&codes, length).unwrap();
            for (code, x) in codes.chunks_exact(levels).zip(decoded.chunks_exact(dim)) {
                let sum: f32 = (0..l).map(|level| table.level(level)[usize::from(code[level])]).sum();
                let expected: f64 = x.iter().zip(&query).map(|(&x, &q)| f64::from(x) * f64::from(q)).sum();
                prop_assert!((f64::from(sum) - expected).abs() < 1e-4 * dim as f64, "{sum} {expected}");
            }
        }
    }
}

#[test]
fn bits_and_levels_agree() {
    assert_eq!(CodeLength::from_bits(24).unwrap(), CodeLength::from_levels(3).unwrap());
    assert_eq!(CodeLength::from_bits(2040).unwrap().levels(), 255);
    for bits in [0, 4, 12, 2048, usize::MAX] {
        let error = CodeLength::from_bits(bits).unwrap_err().to_string();
        assert_eq!(error, format!("code length in bits is {bits}, expected a multiple of 8 from 8 to 2040"));
    }
    assert!(CodeLength::from_levels(0).is_err());
}

#[test]
fn codes_nest() {
    let long = codebooks(4, 64, 10, Assignment::Euclidean);
    let features = numbers(500 * 10, 3);
    let codes = long.encode(&features).unwrap();
    for l in 1..4 {
        let short =
            Codebooks::new(long.values()[..l * 64 * 10].to_vec(), l, 64, 10, Assignment::Euclidean).unwrap();
        let prefixes: Vec<u8> = codes.chunks_exact(4).flat_map(|code| &code[..l]).copied().collect();
        assert_eq!(short.encode(&features).unwrap(), prefixes);
    }
}

#[test]
fn cosine_assignment_may_lengthen_the_residual_and_euclidean_takes_the_nearest() {
    // x = (1, 0). Codeword 0 points the same way but is ten times as long; codeword 1 is near.
    let values = vec![10.0, 0.0, 0.8, 0.3];
    let make = |assignment| Codebooks::new(values.clone(), 1, 2, 2, assignment).unwrap();
    let cosine = make(Assignment::Cosine);
    assert_eq!(cosine.encode(&[1.0, 0.0]).unwrap(), [0]);
    assert_eq!(cosine.relative_distortion(&[1.0, 0.0], &[0]).unwrap(), [81.0]);
    assert_eq!(make(Assignment::Euclidean).encode(&[1.0, 0.0]).unwrap(), [1]);
}

#[test]
fn the_first_of_equal_codewords_is_taken_and_a_zero_codeword_has_cosine_zero() {
    let twice = Codebooks::new(vec![1.0, 2.0, 1.0, 2.0], 1, 2, 2, Assignment::Euclidean).unwrap();
    assert_eq!(twice.encode(&[5.0, -3.0, 1.0, 2.0]).unwrap(), [0, 0]);
    let zero = Codebooks::new(vec![-1.0, 0.0, 0.0, 0.0], 1, 2, 2, Assignment::Cosine).unwrap();
    assert_eq!(zero.encode(&[1.0, 0.0, -1.0, 0.0, 0.0, 0.0]).unwrap(), [1, 0, 0]);
}

#[test]
fn features_whose_squares_overflow_f32_are_encoded() {
    for size in [1e-38, 1e-25, 1e-15, 1e15, 1e25, 1e38] {
        for assignment in [Assignment::Euclidean, Assignment::Cosine] {
            let scaled = |n, seed| numbers(n, seed).iter().map(|x| x * size).collect::<Vec<f32>>();
            let codebooks = Codebooks::new(scaled(2 * 9 * 5, 1), 2, 9, 5, assignment).unwrap();
            assert_definition(&codebooks, &scaled(50 * 5, 2));
            // The cosine does not depend on size. A distance between so different sizes exceeds the
            // precision of f64, but encoding must end.
            let others = numbers(50 * 5, 3);
            match assignment {
                Assignment::Cosine => assert_definition(&codebooks, &others),
                Assignment::Euclidean => assert_eq!(codebooks.encode(&others).unwrap().len(), 50 * 2),
            }
        }
    }
    // Features whose squares are 0 in f32, and codewords of ordinary size that differ only in
    // their last bits.
    let mut values: Vec<f32> = numbers(5, 1).repeat(10);
    values.iter_mut().zip(numbers(50, 4)).for_each(|(c, x)| *c += 1e-7 * x);
    for assignment in [Assignment::Euclidean, Assignment::Cosine] {
        let codebooks = Codebooks::new(values.clone(), 1, 10, 5, assignment).unwrap();
        assert_definition(&codebooks, &numbers(200 * 5, 2).iter().map(|x| x * 1e-25).collect::<Vec<_>>());
    }
    // Even the residual overflows: every codeword fits equally badly.
    let far = Codebooks::new(vec![-f32::MAX; 4], 2, 2, 1, Assignment::Euclidean).unwrap();
    assert_eq!(far.encode(&[f32::MAX]).unwrap(), [0, 0]);
}

#[test]
fn the_longest_codes_there_are() {
    let codebooks = codebooks(255, 256, 2, Assignment::Euclidean);
    assert_definition(&codebooks, &numbers(3 * 2, 1));
}

#[test]
fn distortion_is_the_mean_squared_error_over_the_mean_squared_norm() {
    let codebooks =
        Codebooks::new(vec![1.0, 0.0, 0.0, 1.0, 0.5, 0.0, 0.0, 0.0], 2, 2, 2, Assignment::Euclidean);
    let codebooks = codebooks.unwrap();
    // (2, 0) → (1, 0) → (1.5, 0); (0, 1) → (0, 1) → (0, 1). Energy 5, errors 1 and 0.25.
    let features = [2.0, 0.0, 0.0, 1.0];
    let codes = codebooks.encode(&features).unwrap();
    assert_eq!(codes, [0, 0, 1, 1]);
    assert_eq!(codebooks.relative_distortion(&features, &codes).unwrap(), [0.2, 0.05]);
    assert_eq!(codebooks.relative_distortion(&[0.0, 0.0], &[0, 0]).unwrap(), [0.0, 0.0]);
    assert_eq!(codebooks.decode(&codes, CodeLength::from_bits(8).unwrap()).unwrap(), [1.0, 0.0, 0.0, 1.0]);
    assert_eq!(codebooks.decode(&codes, CodeLength::from_bits(16).unwrap()).unwrap(), [1.5, 0.0, 0.0, 1.0]);
}

#[test]
fn usage_counts_codewords_and_codes() {
    let usage = usage(&[0, 0, 0, 1, 3, 1, 3, 1], 2, 4).unwrap();
    assert_eq!((usage[0].used, usage[0].distinct), (2, 2));
    assert!((usage[0].perplexity - 2.0).abs() < 1e-12);
    assert_eq!((usage[1].used, usage[1].distinct), (2, 3));
    let entropy = -(0.25f64 * 0.25f64.ln() + 0.75 * 0.75f64.ln());
    assert!((usage[1].perplexity - entropy.exp()).abs() < 1e-12);
}

#[test]
fn threads_change_nothing() {
    let codebooks = codebooks(4, 256, 37, Assignment::Euclidean);
    let features = numbers(5000 * 37, 5);
    let work = || {
        let codes = codebooks.encode(&features).unwrap();
        let distortion = codebooks.relative_distortion(&features, &codes).unwrap();
        (codes, distortion)
    };
    assert_eq!(threads(1, work), threads(2, work));
}

#[test]
fn wrong_arguments_are_refused_by_name() {
    let codebooks = codebooks(2, 4, 3, Assignment::Euclidean);
    let says = |error: Error, text: &str| assert_eq!(error.to_string(), text);
    says(codebooks.encode(&[0.0; 4]).unwrap_err(), "features has 4 values, expected a multiple of 3");
    says(
        codebooks.encode(&[0.0, f32::NAN, 0.0]).unwrap_err(),
        "features has the value NaN at position 1, expected finite numbers",
    );
    let length = CodeLength::from_bits(16).unwrap();
    says(codebooks.decode(&[0; 3], length).unwrap_err(), "codes has 3 values, expected a multiple of 2");
    says(codebooks.decode(&[0, 4], length).unwrap_err(), "code is 4, expected at most 3");
    says(
        codebooks.decode(&[0, 1], CodeLength::from_bits(24).unwrap()).unwrap_err(),
        "code length in bits is 24, expected at most 16",
    );
    says(codebooks.lookup_table(&[0.0; 2]).unwrap_err(), "query has 2 values, expected 3");
    let long = CodeLength::from_bits(64).unwrap();
    says(
        codebooks.lookup_table_at(&[0.0; 3], long).unwrap_err(),
        "code length in bits is 64, expected at most 16",
    );
    assert!(matches!(codebooks.lookup_table(&[f32::INFINITY; 3]), Err(Error::NotFinite { .. })));
    assert!(matches!(codebooks.lookup_table(&[f32::MAX; 3]), Err(Error::NotFinite { .. })));
    says(
        codebooks.lookup_tables(&[0.0; 7], length).unwrap_err(),
        "queries has 7 values, expected a multiple of 3",
    );
    assert!(codebooks.lookup_tables(&[0.0; 6], long).is_err());
    for value in [f32::NAN, f32::MAX] {
        let queries = [0.0, 0.0, 0.0, value, value, value];
        assert!(matches!(codebooks.lookup_tables(&queries, length), Err(Error::NotFinite { .. })));
    }
    assert!(codebooks.lookup_tables(&[], length).unwrap().is_empty());
    assert!(codebooks.relative_distortion(&[0.0; 3], &[0; 4]).is_err());
    says(LookupTable::new(vec![0.0; 7], 2, 4).unwrap_err(), "lookup table has 7 values, expected 2 × 4");
    says(
        Codebooks::new(vec![0.0; 7], 2, 4, 1, Assignment::Euclidean).unwrap_err(),
        "codebook has 7 values, expected 2 × 4 × 1",
    );
    for (levels, codewords, dim) in [(0, 1, 1), (256, 1, 1), (1, 0, 1), (1, 257, 1), (1, 1, 0)] {
        let made = Codebooks::new(vec![0.0; 257], levels, codewords, dim, Assignment::Euclidean);
        assert!(matches!(made, Err(Error::Argument { .. })), "{levels} {codewords} {dim}");
    }
    assert!(Codebooks::new(vec![f32::NAN], 1, 1, 1, Assignment::Euclidean).is_err());
    assert!(
        "Cosine".parse::<Assignment>().unwrap_err().to_string().contains("expected `euclidean` or `cosine`")
    );
}

#[test]
fn entries_of_some_codewords_are_those_of_the_table() {
    let (dim, k) = (37, 50);
    let values = (0..2 * k * dim).map(|i| ((i * 7919) % 1009) as f32 / 313.0 - 1.6).collect();
    let codebooks = Codebooks::new(values, 2, k, dim, Assignment::Euclidean).unwrap();
    let query: Vec<f32> = (0..dim).map(|i| (i as f32).sin()).collect();
    let table = codebooks.lookup_table(&query).unwrap();
    for level in 0..2 {
        for n in [0, 1, 3, 16, 17, 50] {
            let codewords: Vec<u8> = (0..n).map(|i| (i * 7 % 50) as u8).collect();
            let mut entries = vec![f32::NAN; n];
            let at: Vec<(u8, u8)> = codewords.iter().map(|&codeword| (level, codeword)).collect();
            codebooks.lookup_entries(&query, &at, &mut entries).unwrap();
            let expected =
                codewords.iter().map(|&codeword| table.level(level.into())[usize::from(codeword)].to_bits());
            assert!(entries.iter().map(|entry| entry.to_bits()).eq(expected), "level {level}, {n} codewords");
        }
    }
    assert!(codebooks.lookup_entries(&query, &[(2, 0)], &mut [0.0]).is_err());
    assert!(codebooks.lookup_entries(&query, &[(0, 50)], &mut [0.0]).is_err());
    assert!(codebooks.lookup_entries(&query, &[(0, 0)], &mut []).is_err());
    assert!(codebooks.lookup_entries(&query[1..], &[(0, 0)], &mut [0.0]).is_err());
}
