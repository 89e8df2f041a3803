//! Tests of codebooks in training.

use dpq_codebook::Assignment;

use super::*;
use crate::config::Schedule;

/// Three levels of two codewords in the plane.
fn config(codebooks: Sharing) -> TrainConfig {
    let mut config = TrainConfig { schedule: Schedule::Joint { features_first: 0.0 }, ..TrainConfig::best() };
    config.network.dim = 2;
    config.quantizer.levels = 3;
    config.quantizer.codewords = 2;
    config.quantizer.codebooks = codebooks;
    config
}

#[test]
fn shared_codewords_are_scaled_and_both_learn() {
    let config = config(Sharing::Shared);
    let words = vec![1.0, 2.0, 3.0, 4.0];
    let variables = variables(&config, words, vec![0.5, -1.0], &Device::Cpu).unwrap();
    let codebooks = codebooks(&config, &variables).unwrap();
    assert_eq!(codebooks.values(), [1.0, 2.0, 3.0, 4.0, 0.5, 1.0, 1.5, 2.0, -1.0, -2.0, -3.0, -4.0]);
    assert_eq!(codebooks.assignment(), Assignment::Euclidean);
    // The gradients of the sum: for each value of a word the sum of the scales, and for each scale
    // the sum of the words.
    let gradients = expanded(&config, &variables).unwrap().sum_all().unwrap().backward().unwrap();
    let gradient = |name: &str| {
        gradients.get(&variables[name]).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    assert_eq!(gradient("codebook"), [0.5; 4]);
    assert_eq!(gradient("scales"), [10.0; 2]);
}

#[test]
fn scales_follow_the_residuals() {
    // Codewords (3, 0) and (0, 3), residuals of length 1 along the same axis, half of them
    // backwards.
    let features = [4.0, 0.0, 2.0, 0.0, 0.0, 4.0, 0.0, 2.0];
    let config = config(Sharing::Shared);
    let variables = fit(&config, &features, &Device::Cpu, None).unwrap();
    let scales = variables["scales"].to_vec1::<f32>().unwrap();
    // The features' mean square is (16 + 4) / 2.
    assert!((scales[0] - (1.0f32 / 10.0).sqrt()).abs() < 1e-6, "{scales:?}");
    // At that scale codewords are 3 / √10 long. They leave 1 − 3 / √10 of a residual forwards; for
    // one backwards the codeword of the other axis is nearer, and leaves the square 1 + 0.9.
    let share = ((1.0 - 0.9f32.sqrt()).powi(2) + 1.9) / 20.0;
    assert!((scales[1] - share.sqrt()).abs() < 1e-6, "{scales:?}");
}

#[test]
fn a_caller_can_interrupt_k_means() {
    let stop = AtomicBool::new(true);
    let fitted = fit(&config(Sharing::Separate), &[1.0; 8], &Device::Cpu, Some(&stop));
    let Err(Error::Codebooks(error)) = fitted else { panic!("{fitted:?}") };
    assert!(matches!(*error, dpq_codebook::Error::Interrupted), "{error}");
}

#[test]
fn dead_codewords_go_where_residuals_are() {
    let features = [1.0, 1.0, 1.25, 1.0];
    let separate = config(Sharing::Separate);
    let far = [100.0f32, 100.0];
    let words = [[1.0, 1.0], far, [0.25, 0.0], [0.0, 0.0], far, [0.0, 0.0]].concat();
    let before = variables(&separate, words, Vec::new(), &Device::Cpu).unwrap();
    let books = codebooks(&separate, &before).unwrap();
    let codes = books.encode(&features).unwrap();
    assert_eq!(codes, [0, 1, 1, 0, 0, 1]);
    let revive = |epoch| revive(&separate, epoch, &before, &books, &features, &codes).unwrap();
    let values = || codebooks(&separate, &before).unwrap().values().to_vec();
    assert_eq!(revive(0), 2);
    let after = values();
    assert!(features.chunks(2).any(|x| x == &after[2..4]), "{after:?}");
    assert_eq!(after[8..10], [0.0, 0.0], "both residuals that enter the last level are 0");
    assert!(
        after[..2] == books.values()[..2] && after[4..8] == books.values()[4..8] && after[10..] == [0.0; 2]
    );
    // The seed, the epoch and the level decide which items.
    revive(0);
    assert_eq!(values(), after);
    assert!((1..20).any(|epoch| (revive(epoch), values() != after).1));

    // One of the shared codewords is in use at the last level only, so none is dead.
    let shared = config(Sharing::Shared);
    let words = variables(&shared, [[1.0, 1.0], far].concat(), vec![0.0, 0.0], &Device::Cpu).unwrap();
    let books = codebooks(&shared, &words).unwrap();
    let dead = |codes: &[u8]| super::revive(&shared, 0, &words, &books, &features, codes).unwrap();
    assert_eq!(dead(&[0, 0, 1, 0, 0, 0]), 0);
    assert_eq!(dead(&[0; 6]), 1);
    let revived = codebooks(&shared, &words).unwrap();
    assert!(features.chunks(2).any(|x| x == revived.codeword(0, 1)));
}

/// Codewords of three parts of two dimensions each.
fn product() -> TrainConfig {
    let mut config = config(Sharing::Separate);
    config.quantizer.form = Form::Product;
    config.network.dim = 6;
    config
}

#[test]
fn product_codebooks_are_fitted_by_part() {
    let config = product();
    let features: Vec<f32> = (0..20 * 6).map(|i| ((i * 37) % 101) as f32 / 50.0).collect();
    let fitted = fit(&config, &features, &Device::Cpu, None).unwrap();
    assert_eq!(fitted["codebook"].dims(), [3, 2, 2]);
    let books = codebooks(&config, &fitted).unwrap();
    let kmeans =
        ResidualKMeans { n_levels: 3, n_codewords: 2, n_iterations: config.quantizer.kmeans_iterations };
    assert_eq!(books, kmeans.train_product(&features, 6, FitOptions::default()).unwrap());
    assert_eq!(random(&config, &Device::Cpu).unwrap()["codebook"].dims(), [3, 2, 2]);
}

#[test]
fn a_dead_codeword_of_a_product_goes_to_a_part_of_a_feature() {
    let config = product();
    let words = [[1.0f32, 1.0], [9.0, 9.0]].concat().repeat(3);
    let before = variables(&config, words, Vec::new(), &Device::Cpu).unwrap();
    let books = codebooks(&config, &before).unwrap();
    let features = [1.0, 1.5, 1.0, 2.0, 1.0, 3.0];
    let codes = books.encode(&features).unwrap();
    assert_eq!(codes, [0, 0, 0]);
    assert_eq!(revive(&config, 0, &before, &books, &features, &codes).unwrap(), 3);
    let after = codebooks(&config, &before).unwrap();
    let revived: Vec<f32> = (0..3).flat_map(|level| after.codeword(level, 1).to_vec()).collect();
    assert_eq!(revived, features);
    assert!((0..3).all(|level| after.codeword(level, 0) == [1.0, 1.0]));
}

#[test]
fn unit_codewords_have_norm_1_and_gradients_across_it() {
    let mut config = product();
    config.quantizer.unit_codewords = true;
    let words = [3.0, 4.0, 0.0, 2.0, 1.0, 0.0, -5.0, 0.0, 0.0, 0.0, 6.0, 8.0];
    let variables = variables(&config, words.to_vec(), Vec::new(), &Device::Cpu).unwrap();
    let books = codebooks(&config, &variables).unwrap();
    let expected = [0.6, 0.8, 0.0, 1.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.6, 0.8];
    books.values().iter().zip(expected).for_each(|(x, y)| assert!((x - y).abs() < 1e-6, "{books:?}"));
    // The gradient of the sum of first numbers is (1 − c₀², −c₀c₁) / ‖w‖ where w has a direction.
    let first = expanded(&config, &variables).unwrap().narrow(2, 0, 1).unwrap();
    let gradients = first.sum_all().unwrap().backward().unwrap();
    let gradient = gradients.get(&variables["codebook"]).unwrap().flatten_all().unwrap();
    let gradient = gradient.to_vec1::<f32>().unwrap();
    assert!((gradient[0] - 0.64 / 5.0).abs() < 1e-6 && (gradient[1] + 0.48 / 5.0).abs() < 1e-6);
    assert!(gradient.iter().all(|g| g.is_finite()), "{gradient:?}");
}
