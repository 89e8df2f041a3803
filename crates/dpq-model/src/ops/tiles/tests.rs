//! All vector instructions against each other.

use super::*;

/// Transforms an image by the vectors that `run` chooses.
fn lifted(run: impl Fn(Lift<Input<4>, 6, 6>)) -> Vec<f32> {
    let windows =
        Windows { image: [5, 6], padding: 1, step: 4, per_row: 2, first: 1, len: 3, channels: 16, pitch: 16 };
    let mut image: Vec<f32> = (0..5 * 6 * 16).map(|i| (i * 7919 % 1000) as f32 / 999.0).collect();
    image.extend([0.0; 16]);
    let mut matrices = vec![0.0; 36 * 3 * 16];
    let mut parts: Vec<&mut [f32]> = matrices.chunks_exact_mut(3 * 16).collect();
    run(Lift { matrix: PhantomData, windows, image: &image, matrices: &mut parts });
    matrices
}

#[test]
fn all_vectors_give_the_same_bits() {
    let scalar = lifted(|lift| lift.with_simd(pulp::Scalar));
    assert!(scalar.iter().any(|value| *value != 0.0));
    assert_eq!(lifted(|lift| dispatch(lift)), scalar);
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = V3::try_new() {
        assert_eq!(lifted(|op| simd.vectorize(Call { simd, op })), scalar);
    }
}
