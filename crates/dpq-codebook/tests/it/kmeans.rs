//! Residual k-means.

use dpq_codebook::{Assignment, Codebooks, Error, FitOptions, ResidualKMeans};

use crate::{numbers, threads};

const CONFIG: ResidualKMeans = ResidualKMeans { n_levels: 4, n_codewords: 16, n_iterations: 25 };

fn train(config: ResidualKMeans, features: &[f32], dim: usize) -> (Codebooks, Vec<f64>) {
    let mut distortion = Vec::new();
    let mut progress = |_: usize, d: f64| distortion.push(d);
    let options = FitOptions { progress: Some(&mut progress), ..FitOptions::default() };
    let codebooks = config.train_with(features, dim, options).unwrap();
    (codebooks, distortion)
}

#[test]
fn distortion_falls_with_every_level_and_is_that_of_the_codes() {
    let features = numbers(2000 * 12, 1);
    let (codebooks, reported) = train(CONFIG, &features, 12);
    assert_eq!(codebooks.assignment(), Assignment::Euclidean);
    let codes = codebooks.encode(&features).unwrap();
    let measured = codebooks.relative_distortion(&features, &codes).unwrap();
    assert!(measured.is_sorted_by(|a, b| a > b), "{measured:?}");
    for (reported, measured) in reported.iter().zip(&measured) {
        assert!((reported - measured).abs() < 1e-6, "{reported} {measured}");
    }
}

#[test]
fn well_separated_clusters_are_found() {
    // 16 far corners of a 4-cube, each with members close to it.
    let noise = numbers(1600 * 4, 2);
    let features: Vec<f32> = (0..1600)
        .flat_map(|i| (0..4).map(move |d| (i, d)))
        .map(|(i, d)| if (i >> d) & 1 == 1 { 10.0 } else { -10.0 } + 0.1 * noise[4 * i + d])
        .collect();
    let (codebooks, distortion) = train(ResidualKMeans { n_levels: 1, ..CONFIG }, &features, 4);
    assert!(distortion[0] < 1e-3, "{distortion:?}");
    let mut corners: Vec<u8> = (0..16)
        .map(|k| codebooks.codeword(0, k).iter().fold(0, |bits, &x| 2 * bits + u8::from(x > 0.0)))
        .collect();
    corners.sort_unstable();
    assert_eq!(corners, (0..16).collect::<Vec<u8>>());
}

#[test]
fn a_level_is_a_fixed_point_of_lloyds_algorithm() {
    let features = numbers(500 * 3, 3);
    let config = ResidualKMeans { n_levels: 1, n_codewords: 8, n_iterations: 1000 };
    let (codebooks, _) = train(config, &features, 3);
    let codes = codebooks.encode(&features).unwrap();
    for k in 0..8 {
        let members: Vec<_> =
            features.chunks_exact(3).zip(&codes).filter(|(_, code)| usize::from(**code) == k).collect();
        assert!(!members.is_empty(), "codeword {k} is dead");
        for d in 0..3 {
            let mean: f32 = members.iter().map(|(x, _)| x[d]).sum::<f32>() / members.len() as f32;
            assert!((mean - codebooks.codeword(0, k)[d]).abs() < 1e-5);
        }
    }
}

fn train_with_init_size(features: &[f32], dim: usize, init_size: usize) -> Result<Codebooks, Error> {
    let options = FitOptions { init_size: Some(init_size), ..FitOptions::default() };
    CONFIG.train_with(features, dim, options)
}

#[test]
fn threads_change_nothing() {
    let features = numbers(3000 * 20, 4);
    let work = |n| threads(n, || train(CONFIG, &features, 20));
    assert_eq!(work(1), work(2));
    let work = |n| threads(n, || train_with_init_size(&features, 20, 700).unwrap());
    assert_eq!(work(1), work(2));
}

#[test]
fn codewords_grown_on_a_sample_fit_all_features_as_well() {
    let features = numbers(6000 * 12, 7);
    let all = train_with_init_size(&features, 12, usize::MAX).unwrap();
    assert_eq!(train_with_init_size(&features, 12, 6000).unwrap(), all);
    assert_eq!(CONFIG.train(&features, 12).unwrap(), all);
    let sampled = train_with_init_size(&features, 12, 1000).unwrap();
    assert_ne!(sampled, all);
    let distortion = |codebooks: &Codebooks| {
        codebooks.relative_distortion(&features, &codebooks.encode(&features).unwrap()).unwrap()
    };
    for (sampled, all) in distortion(&sampled).into_iter().zip(distortion(&all)) {
        assert!((sampled / all - 1.0).abs() < 0.01, "{sampled}, grown on all features {all}");
    }
}

#[test]
fn codewords_grown_on_a_sample_of_few_distinct_features_stay_finite() {
    let features: Vec<f32> = numbers(5 * 3, 8).repeat(100);
    let codebooks = train_with_init_size(&features, 3, 16).unwrap();
    let codes = codebooks.encode(&features).unwrap();
    let distortion = codebooks.relative_distortion(&features, &codes).unwrap();
    assert!(distortion[3] < 1e-6, "{distortion:?}");
    let error = train_with_init_size(&features, 3, 15).unwrap_err();
    assert_eq!(error.to_string(), "init size is 15, expected at least 16");
}

#[test]
fn degenerate_features_end_and_stay_finite() {
    let (same, distortion) = train(CONFIG, &[1.5; 40 * 3], 3);
    assert_eq!(same.encode(&[1.5; 3]).unwrap().len(), 4);
    assert!(distortion.iter().all(|d| *d < 1e-12), "{distortion:?}");
    let (_, distortion) = train(CONFIG, &[0.0; 40 * 3], 3);
    assert_eq!(distortion, [0.0; 4]);
    // As many features as codewords: the first level represents each exactly.
    let (_, distortion) = train(CONFIG, &numbers(16 * 5, 6), 5);
    assert!(distortion[0] < 1e-12, "{distortion:?}");
}

#[test]
fn features_that_cannot_be_fitted_are_refused() {
    let train = |config: ResidualKMeans, features: &[f32], dim| config.train(features, dim);
    let error = train(CONFIG, &[0.0; 15 * 2], 2).unwrap_err();
    assert_eq!(
        error.to_string(),
        "15 features cannot fit 16 codewords, give more features or ask for fewer codewords"
    );
    assert!(matches!(train(CONFIG, &[f32::NAN; 64], 2), Err(Error::NotFinite { .. })));
    assert!(matches!(train(CONFIG, &[0.0; 65], 2), Err(Error::Argument { .. })));
    assert!(matches!(train(CONFIG, &[0.0; 64], 0), Err(Error::Argument { .. })));
    assert!(matches!(
        train(ResidualKMeans { n_levels: 0, ..CONFIG }, &[0.0; 64], 2),
        Err(Error::Argument { .. })
    ));
    assert!(matches!(
        train(ResidualKMeans { n_iterations: 0, ..CONFIG }, &[0.0; 64], 2),
        Err(Error::Argument { .. })
    ));
    let many = ResidualKMeans { n_codewords: 257, ..CONFIG };
    assert!(matches!(train(many, &[0.0; 600], 2), Err(Error::Argument { .. })));
}
