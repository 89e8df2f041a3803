//! The search beside its definition.

use super::*;
use crate::Assignment;

/// The search by its definition, with every product in f32. Returns all kept codes, best first.
fn search(codebooks: &Codebooks, x: &[f32], beam: Beam<'_>) -> Vec<u8> {
    let weights = beam.normalized_weights();
    let dot = |a: &[f32], b: &[f32]| dots_of(a, [b; dot::ROWS])[0];
    let mut kept = vec![(Vec::<u8>::new(), Kept { error: 0.0, cost: 0.0 })];
    for (level, weight_from) in weights_from(&weights).into_iter().enumerate() {
        let mut all = Vec::new();
        for (code, so_far) in &kept {
            for k in 0..codebooks.n_codewords() {
                let c = codebooks.codeword(level, k);
                let alone = squared_norm(c) as f32 - 2.0 * dot(x, c);
                let products =
                    code.iter().enumerate().map(|(l, &k)| 2.0 * dot(codebooks.codeword(l, k.into()), c));
                let error = products.fold(alone, |error, product| error + product) + so_far.error;
                let longer: Vec<u8> = code.iter().copied().chain([k as u8]).collect();
                let kept = Kept { error, cost: so_far.cost + weights[level] * error };
                all.push((so_far.cost + weight_from * error, (longer, kept)));
            }
        }
        all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.1.error.total_cmp(&b.1.1.error)));
        kept = all.into_iter().take(beam.width).map(|(_, code)| code).collect();
    }
    kept.into_iter().flat_map(|(code, _)| code).collect()
}

/// Returns a source of numbers between -1 and 1.
fn numbers() -> impl FnMut() -> f32 {
    let mut state = 1u64;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

#[test]
fn rounding_loses_no_code() {
    let mut number = numbers();
    // Miri would take hours for more dimensions.
    let dims: &[usize] = if cfg!(miri) { &[7] } else { &[1, 7, 64, 301] };
    for &dim in dims {
        // Codewords that are spread, close together, or far from the origin; features of very
        // different scales.
        for (spread, offset, size) in
            [(1.0, 0.0, 1.0), (1e-3, 1.0, 1.0), (0.1, 30.0, 1.0), (1.0, 0.0, 1e-6), (1.0, 0.0, 1e6)]
        {
            let (n_levels, n_codewords) = (3, 40);
            let values: Vec<f32> = (0..n_levels * n_codewords * dim)
                .map(|i| match i / (n_codewords * dim) {
                    0 => offset + spread * number(),
                    level => spread * 0.3f32.powi(level as i32) * number(),
                })
                .collect();
            let codebooks =
                Codebooks::new(values, n_levels, n_codewords, dim, Assignment::Euclidean).unwrap();
            let features: Vec<f32> = (0..50 * dim).map(|_| size * (offset + spread * number())).collect();
            // The last width is larger than the number of codes of one level.
            for (width, weights, n) in [(2, [0.0, 0.0, 1.0], 50), (5, [1.0, 1.0, 2.0], 50), (45, [1.0; 3], 2)]
            {
                let features = &features[..n * dim];
                let beam = Beam { width, weights: &weights };
                let found = codebooks
                    .fold_beam(features, beam, None, &mut Vec::new(), |found: &mut Vec<_>, _, kept| {
                        found.push(kept.to_vec())
                    })
                    .unwrap()
                    .concat();
                let codes = codebooks.encode_beam(features, beam).unwrap();
                let rows = features.chunks_exact(dim).zip(found).zip(codes.chunks_exact(n_levels));
                for ((x, found), code) in rows {
                    let expected = search(&codebooks, x, beam);
                    assert_eq!(found, expected, "dim {dim}, spread {spread}, size {size}, width {width}");
                    assert_eq!(code, &expected[..n_levels]);
                }
            }
        }
    }
}

#[test]
fn codes_of_64_levels_are_those_of_the_definition() {
    let (n_levels, n_codewords, dim) = if cfg!(miri) { (8, 2, 3) } else { (64, 8, 9) };
    let mut number = numbers();
    let values: Vec<f32> = (0..n_levels * n_codewords * dim)
        .map(|i| 0.95f32.powi((i / (n_codewords * dim)) as i32) * number())
        .collect();
    let codebooks = Codebooks::new(values, n_levels, n_codewords, dim, Assignment::Euclidean).unwrap();
    let features: Vec<f32> = (0..70 * dim).map(|_| 3.0 * number()).collect();
    let beam = Beam { width: 5, weights: &vec![1.0; n_levels] };
    let codes = codebooks.encode_beam(&features, beam).unwrap();
    for (x, code) in features.chunks_exact(dim).zip(codes.chunks_exact(n_levels)) {
        assert_eq!(code, &search(&codebooks, x, beam)[..n_levels]);
    }
}

#[test]
fn features_of_unsafe_norm_have_only_their_greedy_code() {
    let codebooks = Codebooks::new(vec![1.0, 2.0, 0.1, 0.3], 2, 2, 1, Assignment::Euclidean).unwrap();
    let beam = Beam { width: 3, weights: &[1.0; 2] };
    let kept = |found: &mut Vec<usize>, _: &[f32], kept: &[u8]| found.push(kept.len() / 2);
    let features = [1.1, 1e20, 1.4, 1e-20];
    assert_eq!(
        codebooks.fold_beam(&features, beam, None, &mut Vec::new(), kept).unwrap().concat(),
        [3, 1, 3, 1]
    );
    let beam = Beam { width: 1, ..beam };
    assert_eq!(codebooks.fold_beam(&features, beam, None, &mut Vec::new(), kept).unwrap().concat(), [1; 4]);
}
