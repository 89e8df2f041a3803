//! Quantization and its losses against the golden values, finite differences, hand-worked cases and
//! `dpq_codebook`.

use super::{Quantized, distortion, joint_center, quantize};
use crate::tests::{
    assert_close, check_gradients, f32s, flat, golden, numbers, random, tensor, value_and_gradients,
};
use candle_core::{DType, Device, Result, Tensor, Var};
use dpq_codebook::{Assignment, CodeLength, Codebooks, Form};

const ASSIGNMENTS: [Assignment; 2] = [Assignment::Euclidean, Assignment::Cosine];

/// Concatenated over the levels.
fn all_levels(tensors: &[Tensor]) -> Vec<f64> {
    tensors.iter().flat_map(flat).collect()
}

/// A loss by its name in the golden values.
fn loss(name: &str, x: &Tensor, quantized: &Quantized) -> Result<Tensor> {
    match name {
        "soft_distortion" => distortion(x, &quantized.soft),
        "hard_distortion" => distortion(x, &quantized.hard),
        "joint_center" => joint_center(quantized),
        _ => unreachable!("no loss of the name {name}"),
    }
}

const LOSSES: [&str; 3] = ["soft_distortion", "hard_distortion", "joint_center"];

#[test]
fn equals_the_golden_values() {
    let golden = golden();
    let x = tensor(&golden, &golden["x"], &["n", "d"]);
    let codebook = tensor(&golden, &golden["codebook"], &["l", "k", "d"]);
    let cases = golden["quantize"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let assignment: Assignment = case["assignment"].as_str().unwrap().parse().unwrap();
        let gamma = case["gamma"].as_f64().unwrap();
        let quantized = quantize(&x, &codebook, assignment, gamma, None).unwrap();
        assert_eq!(all_levels(&quantized.codes), numbers(&case["codes"]));
        assert_close(&all_levels(&quantized.soft), &numbers(&case["soft"]), 1e-5);
        assert_close(&all_levels(&quantized.hard), &numbers(&case["hard"]), 1e-5);
        for name in LOSSES {
            let expected = &case["losses"][name];
            let (value, gradients) = value_and_gradients(&[x.clone(), codebook.clone()], |args| {
                loss(name, &args[0], &quantize(&args[0], &args[1], assignment, gamma, None)?)
            });
            assert_close(&[value], &[expected["value"].as_f64().unwrap()], 1e-5);
            for (gradient, expected) in gradients.iter().zip(expected["gradients"].as_array().unwrap()) {
                assert_close(gradient, &numbers(expected), 1e-4);
            }
        }
    }
}

#[test]
fn gradients_are_those_of_the_values() {
    for assignment in ASSIGNMENTS {
        let args = [random(&[7, 6], 1), random(&[3, 9, 6], 2)];
        check_gradients(&args, |args| {
            let quantized = quantize(&args[0], &args[1], assignment, 1.5, None)?;
            distortion(&args[0], &quantized.soft)?
                + distortion(&args[0], &quantized.hard)?
                + (joint_center(&quantized)? * 0.1)?
        });
    }
}

/// One dimension: 1 goes to 0 and then to 0.75, 3 goes to 2.5 and then to 0.4. Errors after each
/// level: 1, 0.5 and 0.25, 0.1.
#[test]
fn hard_distortion_by_hand() {
    let x = f32s(&[&[1.0], &[3.0]]);
    let codebook = Tensor::new(&[[[0.0f32], [2.5]], [[0.75], [0.4]]], &Device::Cpu).unwrap();
    let (value, gradients) = value_and_gradients(&[x, codebook], |args| {
        distortion(&args[0], &quantize(&args[0], &args[1], Assignment::Euclidean, 1.0, None)?.hard)
    });
    assert_close(&[value], &[(1.0 + 0.25 + 0.0625 + 0.01) / 2.0], 1e-6);
    // 2/n times the errors of the sums that a value is part of.
    assert_close(&gradients[0], &[1.0 + 0.25, 0.5 + 0.1], 1e-6);
    assert_close(&gradients[1], &[-1.0 - 0.25, -0.5 - 0.1, -0.25, -0.1], 1e-6);
}

#[test]
fn soft_becomes_hard_as_gamma_grows() {
    let (x, codebook) = (random(&[50, 8], 3), random(&[3, 16, 8], 4));
    for assignment in ASSIGNMENTS {
        let at = |gamma| quantize(&x, &codebook, assignment, gamma, None).unwrap();
        let distance = |gamma| flat(&joint_center(&at(gamma)).unwrap())[0];
        assert!(distance(1.0) > distance(10.0) && distance(10.0) > distance(100.0));
        let quantized = at(1e7);
        assert_close(&all_levels(&quantized.soft), &all_levels(&quantized.hard), 1e-9);
    }
}

#[test]
fn without_softness_soft_is_the_mean_codeword() {
    let (x, codebook) = (random(&[5, 4], 5), random(&[1, 8, 4], 6));
    let mean = flat(&codebook.mean(1).unwrap());
    for assignment in ASSIGNMENTS {
        let quantized = quantize(&x, &codebook, assignment, 0.0, None).unwrap();
        assert_close(&flat(&quantized.soft[0]), &mean.repeat(5), 1e-12);
    }
}

/// Distances of 1e6 and more do not overflow the exponentials.
#[test]
fn far_codewords_leave_everything_finite() {
    let x = (random(&[5, 4], 7) * 1e3).unwrap().to_dtype(DType::F32).unwrap();
    let codebook = (random(&[2, 8, 4], 8) * 1e3).unwrap().to_dtype(DType::F32).unwrap();
    for assignment in ASSIGNMENTS {
        for name in LOSSES {
            let (value, gradients) = value_and_gradients(&[x.clone(), codebook.clone()], |args| {
                loss(name, &args[0], &quantize(&args[0], &args[1], assignment, 10.0, None)?)
            });
            assert!(
                value.is_finite() && gradients.iter().flatten().all(|g| g.is_finite()),
                "{assignment} {name}"
            );
        }
    }
}

/// Training and encoding agree: dpq-codebook chooses the same codewords and adds the same sums.
#[test]
fn equals_encoding_and_decoding() {
    let (n, n_levels, n_codewords, dim) = (200, 4, 32, 12);
    let x = random(&[n, dim], 9).to_dtype(DType::F32).unwrap();
    let codebook = random(&[n_levels, n_codewords, dim], 10).to_dtype(DType::F32).unwrap();
    let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for assignment in ASSIGNMENTS {
        let quantized = quantize(&x, &codebook, assignment, 1.0, None).unwrap();
        let codebooks = Codebooks::new(values(&codebook), n_levels, n_codewords, dim, assignment).unwrap();
        let codes = codebooks.encode(&values(&x)).unwrap();
        let by_level: Vec<f64> = (0..n_levels)
            .flat_map(|l| codes.iter().skip(l).step_by(n_levels).map(|&code| code.into()))
            .collect();
        assert_eq!(all_levels(&quantized.codes), by_level, "{assignment}");
        for (level, hard) in quantized.hard.iter().enumerate() {
            let decoded = codebooks.decode(&codes, CodeLength::from_levels(level + 1).unwrap()).unwrap();
            assert_eq!(values(hard), decoded);
        }
    }
}

/// A level of a product quantizes its part as codebooks of one level do, and the parts lie side by
/// side.
#[test]
fn a_product_quantizes_each_part() {
    let (x, codebook) = (random(&[7, 6], 1), random(&[3, 9, 2], 2));
    for assignment in ASSIGNMENTS {
        let quantized = quantize(&x, &codebook, assignment, 1.5, None).unwrap();
        assert_eq!((quantized.soft.len(), quantized.hard.len(), quantized.codes.len()), (1, 1, 3));
        for level in 0..3 {
            let part = |x: &Tensor| x.narrow(1, 2 * level, 2).unwrap().contiguous().unwrap();
            let words = codebook.narrow(0, level, 1).unwrap();
            let alone = quantize(&part(&x), &words, assignment, 1.5, None).unwrap();
            assert_eq!(flat(&quantized.codes[level]), flat(&alone.codes[0]));
            assert_eq!(flat(&part(&quantized.soft[0])), flat(&alone.soft[0]));
            assert_eq!(flat(&part(&quantized.hard[0])), flat(&alone.hard[0]));
        }
        check_gradients(&[x.clone(), codebook.clone()], |args| {
            let quantized = quantize(&args[0], &args[1], assignment, 1.5, None)?;
            distortion(&args[0], &quantized.soft)?
                + distortion(&args[0], &quantized.hard)?
                + (joint_center(&quantized)? * 0.1)?
        });
    }
}

#[test]
fn a_product_equals_encoding_and_decoding() {
    let (n, n_levels, n_codewords, width) = (200, 4, 32, 3);
    let x = random(&[n, n_levels * width], 9).to_dtype(DType::F32).unwrap();
    let codebook = random(&[n_levels, n_codewords, width], 10).to_dtype(DType::F32).unwrap();
    let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for assignment in ASSIGNMENTS {
        let quantized = quantize(&x, &codebook, assignment, 1.0, None).unwrap();
        let (form, dim) = (Form::Product, n_levels * width);
        let codebooks =
            Codebooks::with_form(form, values(&codebook), n_levels, n_codewords, dim, assignment).unwrap();
        let codes = codebooks.encode(&values(&x)).unwrap();
        for (level, of_level) in quantized.codes.iter().enumerate() {
            let expected: Vec<f64> = codes.iter().skip(level).step_by(n_levels).map(|&c| c.into()).collect();
            assert_eq!(flat(of_level), expected, "{assignment}");
        }
        assert_eq!(values(&quantized.hard[0]), codebooks.decode(&codes, codebooks.max_length()).unwrap());
    }
}

#[test]
fn the_first_of_equal_codewords_is_chosen() {
    let x = f32s(&[&[0.0, 1.0], &[2.0, 0.0]]);
    let word = [[0.0f32, -3.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]];
    let codebook = Tensor::new(&[word], &Device::Cpu).unwrap();
    for assignment in ASSIGNMENTS {
        assert_eq!(flat(&quantize(&x, &codebook, assignment, 1.0, None).unwrap().codes[0]), [1.0, 1.0]);
    }
}

/// The first item is the first codeword, so its residual is 0 from the second level on.
#[test]
fn a_residual_of_0_has_no_direction_and_no_gradient() {
    let x = f32s(&[&[1.0, 2.0], &[0.5, -1.0]]);
    let codebook =
        Tensor::new(&[[[1.0f32, 2.0], [0.25, -1.0]], [[0.5, 0.5], [-0.25, 1.0]]], &Device::Cpu).unwrap();
    let soft_at = |level: usize| {
        value_and_gradients(&[x.clone(), codebook.clone()], |args| {
            let quantized = quantize(&args[0], &args[1], Assignment::Cosine, 1.0, None)?;
            // The soft sum of the level alone, and of the first item alone.
            let before = if level == 0 { args[0].zeros_like()? } else { quantized.soft[level - 1].clone() };
            (&quantized.soft[level] - before)?.narrow(0, 0, 1)?.sqr()?.sum_all()
        })
    };
    let (value, gradients) = soft_at(1);
    // Equal weights: the mean of (0.5, 0.5) and (−0.25, 1).
    assert_close(&[value], &[0.125f64.powi(2) + 0.75f64.powi(2)], 1e-6);
    assert!(gradients[0].iter().all(|&g| g == 0.0), "{gradients:?}");
    assert_close(&gradients[1], &[0.0, 0.0, 0.0, 0.0, 0.125, 0.75, 0.125, 0.75], 1e-6);
    assert!(soft_at(0).1[0].iter().any(|&g| g != 0.0));

    for name in LOSSES {
        let (value, gradients) = value_and_gradients(&[x.clone(), codebook.clone()], |args| {
            loss(name, &args[0], &quantize(&args[0], &args[1], Assignment::Cosine, 1.0, None)?)
        });
        assert!(value.is_finite());
        assert!(
            gradients.iter().flatten().all(|g| g.is_finite() && g.abs() < 100.0),
            "{name}: {gradients:?}"
        );
    }
}

/// End to end the quantization losses reach the features; on detached features they reach the
/// codebooks only.
#[test]
fn detached_features_get_no_gradient() {
    let x = Var::from_tensor(&random(&[6, 4], 11)).unwrap();
    let codebook = Var::from_tensor(&random(&[2, 8, 4], 12)).unwrap();
    for name in LOSSES {
        let gradients_on = |x: &Tensor| {
            loss(name, x, &quantize(x, &codebook, Assignment::Euclidean, 1.0, None).unwrap())
                .unwrap()
                .backward()
                .unwrap()
        };
        let end_to_end = gradients_on(&x);
        assert!(flat(end_to_end.get(&x).unwrap()).iter().all(|&g| g != 0.0), "{name}");
        let two_step = gradients_on(&x.detach());
        assert!(two_step.get(&x).is_none());
        assert!(flat(two_step.get(&codebook).unwrap()).iter().any(|&g| g != 0.0), "{name}");
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let x = random(&[6, 4], 13);
    assert!(quantize(&x, &random(&[2, 8, 5], 14), Assignment::Euclidean, 1.0, None).is_err());
    assert!(quantize(&x, &random(&[8, 4], 14), Assignment::Cosine, 1.0, None).is_err());
    let other =
        quantize(&random(&[5, 4], 15), &random(&[2, 8, 4], 14), Assignment::Euclidean, 1.0, None).unwrap();
    assert!(distortion(&x, &other.hard).is_err() && distortion(&x, &other.soft).is_err());
}

/// One of 8 codewords is the hard choice, 8 are the softmax over all, and between them exactly so
/// many get a gradient.
#[test]
fn partial_attention_is_between_the_hard_choice_and_the_whole_softmax() {
    for (shape, assignment) in [
        ([2, 8, 4], Assignment::Euclidean),
        ([2, 8, 4], Assignment::Cosine),
        ([2, 8, 2], Assignment::Euclidean),
    ] {
        let (x, codebook) = (random(&[5, 4], 20), random(&shape, 21));
        let at = |t: Option<usize>| quantize(&x, &codebook, assignment, 0.5, t).unwrap();
        let bits = |sums: &[Tensor]| sums.iter().flat_map(flat).map(f64::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(&at(Some(8)).soft), bits(&at(None).soft));
        assert_eq!(bits(&at(Some(1)).soft), bits(&at(None).hard));
        assert_ne!(bits(&at(Some(3)).soft), bits(&at(None).soft));

        for t in 1..=8 {
            for n in 0..5 {
                let item = x.narrow(0, n, 1).unwrap();
                let (_, gradients) = value_and_gradients(&[item, codebook.clone()], |args| {
                    // The first level alone: the choice there moves the residual of the next.
                    let part = args[0].narrow(1, 0, shape[2])?;
                    let first = args[1].narrow(0, 0, 1)?;
                    quantize(&part, &first, assignment, 0.5, Some(t))?.soft[0].sum_all()
                });
                let words = gradients[1].chunks_exact(shape[2]);
                assert_eq!(words.filter(|word| word.iter().any(|&x| x != 0.0)).count(), t);
            }
        }
        let args = [x.clone(), codebook.clone()];
        check_gradients(&args, |args| {
            distortion(&args[0], &quantize(&args[0], &args[1], assignment, 0.5, Some(3))?.soft)
        });
    }
}

#[test]
fn of_equal_codewords_the_first_take_part() {
    let (x, word) = (random(&[1, 3], 1), random(&[1, 1, 3], 2));
    let codebook = word.broadcast_as((1, 4, 3)).unwrap().contiguous().unwrap();
    let (_, gradients) = value_and_gradients(&[x, codebook], |args| {
        quantize(&args[0], &args[1], Assignment::Euclidean, 1.0, Some(2))?.soft[0].sum_all()
    });
    let touched: Vec<bool> =
        gradients[1].chunks_exact(3).map(|word| word.iter().any(|&x| x != 0.0)).collect();
    assert_eq!(touched, [true, true, false, false]);
}
