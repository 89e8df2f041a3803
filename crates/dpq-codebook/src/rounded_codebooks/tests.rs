//! Bounds hold, are tight, and do not depend on the route of the products.

use super::*;
use crate::Assignment;

/// Codebooks whose levels differ in size, with a codeword of zeros and single large values.
fn codebooks(dim: usize) -> Codebooks {
    let value = |i: usize| {
        let (level, codeword) = (i / (7 * dim), i / dim % 7);
        let outlier = if i % 97 == 5 { 30.0 } else { 1.0 };
        let x = ((i * 7919) % 1009) as f32 / 313.0 - 1.6;
        if codeword == 3 { 0.0 } else { x * outlier * 10f32.powi(-(level as i32) * 3) }
    };
    Codebooks::new((0..3 * 7 * dim).map(value).collect(), 3, 7, dim, Assignment::Euclidean).unwrap()
}

#[test]
fn entries_are_within_their_bounds() {
    let dims: &[usize] = if cfg!(miri) { &[1, 33] } else { &[1, 2, 31, 32, 33, 300, 5000] };
    for &dim in dims {
        let codebooks = codebooks(dim);
        let rounded = RoundedCodebooks::new(&codebooks).unwrap();
        for size in [1e-30, 1e-3, 1.0, 1e20] {
            let query: Vec<f32> = (0..dim).map(|i| (((i * 31) % 17) as f32 - 8.0) * size).collect();
            let exact = codebooks.lookup_table(&query).unwrap();
            let of_query = rounded.round(&query).unwrap();
            let max_length = codebooks.max_length();
            let bounds = rounded.lookup_bounds(&[&of_query], max_length).unwrap().remove(0);
            let all: Vec<(u8, u8)> = (0..21).map(|i| (i / 7, i % 7)).collect();
            let mut entries = vec![[f32::NAN; 2]; 21];
            rounded.lookup_entries(&of_query, &all, &mut entries).unwrap();
            let mut fine: Vec<f32> = entries.iter().map(|[lower, upper]| lower.midpoint(*upper)).collect();
            rounded.add_remainders(&of_query, &all, &mut fine).unwrap();
            let norm = squared_norm(&query).sqrt() * squared_norm(codebooks.values()).sqrt();
            for (i, (exact, fine)) in exact.values().iter().zip(&fine).enumerate() {
                // Whether a bound is rounded, too, does not show at these sizes.
                let (exact, rounding) = (f64::from(*exact), norm / f64::from(1u32 << 24));
                let [lower, upper] = [0, 1].map(|side| f64::from(bounds[side].values()[i]));
                assert!(lower <= exact + rounding && exact <= upper + rounding, "dim {dim}, {i}");
                assert!(upper - lower <= 0.1 * norm + 1e-30, "dim {dim}: {lower} to {upper}");
                let error = rounded.max_error(&of_query, 3);
                assert!((exact - f64::from(*fine)).abs() <= error && error <= 1e-3 * norm + 1e-30);
            }
            for n_levels in 1..=3 {
                let bound = rounded.max_error(&of_query, n_levels);
                for code in (0..7usize.pow(n_levels as u32)).map(|i| [i % 7, i / 7 % 7, i / 49]) {
                    let sum = |values: &[f32]| -> f64 {
                        (0..n_levels).map(|level| f64::from(values[level * 7 + code[level]])).sum()
                    };
                    let error = (sum(exact.values()) - sum(&fine)).abs();
                    assert!(error <= bound, "dim {dim}: {error}, {bound}");
                }
            }
        }
    }
}

/// All values of a codeword round in one direction and the query is constant, so that errors are
/// as large as they can be: the bounds of coarse and of fine levels are reached, not exceeded.
#[test]
fn bounds_are_reached() {
    const DIM: usize = 130;
    const LEVELS: usize = 16;
    let codeword = |i: usize| {
        let (level, codeword) = (i / 7, i % 7);
        let sign = if codeword.is_multiple_of(2) { 1.0 } else { -1.0 };
        // The query does not see the first two values, which decide the scales: 1, and of the
        // remainders 0.499 / 127.
        let scale = if level < LEVELS / 8 { 0.499 / 127.0 } else { 1.0 };
        let value = move |at: usize| scale * ((at % 3) as f32 - 1.0 + 0.45 * sign);
        [127.0, 0.499].into_iter().chain((2..DIM).map(value))
    };
    let values = (0..LEVELS * 7).flat_map(codeword).collect();
    let codebooks = Codebooks::new(values, LEVELS, 7, DIM, Assignment::Euclidean).unwrap();
    let rounded = RoundedCodebooks::new(&codebooks).unwrap();
    let query: Vec<f32> = (0..DIM).map(|at| if at < 2 { 0.0 } else { 1.0 }).collect();
    let exact = codebooks.lookup_table(&query).unwrap();
    let query = rounded.round(&query).unwrap();
    let [lower, upper] = rounded.lookup_bounds(&[&query], codebooks.max_length()).unwrap().remove(0);
    for (i, exact) in exact.values().iter().enumerate() {
        let (lower, upper) = (lower.values()[i], upper.values()[i]);
        let share = (exact - lower.midpoint(upper)).abs() / ((upper - lower) / 2.0);
        assert!((0.9..=1.0).contains(&share), "entry {i}: {exact} in {lower} to {upper}");
    }
}

#[test]
fn tables_and_entries_are_the_same() {
    for dim in [1, 31, 64, 300] {
        let rounded = RoundedCodebooks::new(&codebooks(dim)).unwrap();
        let query = |i: usize| {
            let x: Vec<f32> = (0..dim).map(|j| ((i + j) * 131 % 37) as f32 - 18.0).collect();
            rounded.round(&x).unwrap()
        };
        let queries: Vec<RoundedQuery> = (0..5).map(query).collect();
        let length = CodeLength::from_levels(3).unwrap();
        let tables = rounded.lookup_bounds(&queries.iter().collect::<Vec<_>>(), length).unwrap();
        for (bounds, query) in tables.iter().zip(&queries) {
            let (mut entries, codewords) = ([[f32::NAN; 2]; 3], [6u8, 0, 3]);
            rounded.lookup_entries(query, &codewords.map(|codeword| (1, codeword)), &mut entries).unwrap();
            let of = |codeword: u8| [0, 1].map(|side| bounds[side].level(1)[usize::from(codeword)]);
            assert_eq!(entries, codewords.map(of));
        }
    }
}

#[test]
fn the_largest_sums_fit() {
    for dim in [1, 300, 20_000] {
        let sign = |i: usize| if i.is_multiple_of(2) { 1.0 } else { -1.0 };
        let values: Vec<f32> = (0..2 * dim).map(|i| 3.5 * sign(i / dim)).collect();
        let codebooks = Codebooks::new(values, 1, 2, dim, Assignment::Euclidean).unwrap();
        let rounded = RoundedCodebooks::new(&codebooks).unwrap();
        let query = rounded.round(&vec![-2.0; dim]).unwrap();
        for table in &rounded.lookup_bounds(&[&query], codebooks.max_length()).unwrap()[0] {
            for (entry, sign) in table.level(0).iter().zip([-1.0, 1.0]) {
                assert!((entry / (7.0 * dim as f32 * sign) - 1.0).abs() < 1e-3, "dim {dim}: {entry}");
            }
        }
    }
}

#[test]
fn entries_that_may_overflow_do_not_fit() {
    let codebooks = codebooks(40);
    let rounded = RoundedCodebooks::new(&codebooks).unwrap();
    let fits = |x: f32| rounded.fits(&rounded.round(&[x; 40]).unwrap(), 2);
    assert!(fits(1e34) && !fits(1e38));
    assert!(rounded.round(&[f32::NAN; 40]).is_err() && rounded.round(&[0.0; 39]).is_err());
    let query = rounded.round(&[1.0; 40]).unwrap();
    assert!(rounded.lookup_entries(&query, &[(3, 0)], &mut [[0.0; 2]]).is_err());
    assert!(rounded.lookup_entries(&query, &[(2, 7)], &mut [[0.0; 2]]).is_err());
    assert!(rounded.lookup_entries(&query, &[(2, 6), (2, 6)], &mut [[0.0; 2]]).is_err());
}
