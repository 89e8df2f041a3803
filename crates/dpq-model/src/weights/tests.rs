//! Random weights in published layouts, against plain loops over those layouts.

use tempfile::TempDir;

use super::{Arrays, Weights};
use crate::TrainConfig;
use crate::body::Layers;
use crate::config::{Alexnet, Block, Body, NetworkConfig};
use crate::network::tests::{Map, SMALL_RESNETS, network, reference, small_alexnet, to_f64, values};
use crate::rng::{Stream, normal, rng, uniform};
use crate::tensors::Tensors;

/// An image of random bytes, u8 `[3, side, side]`.
fn image(side: usize) -> Vec<u8> {
    let mut rng = rng(3, Stream::Weights);
    (0..3 * side * side).map(|_| (256.0 * uniform(&mut rng)) as u8).collect()
}

#[track_caller]
fn close(found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    assert!(largest > 0.0, "all of it is 0");
    for (&a, b) in found.iter().zip(expected) {
        assert!((f64::from(a) - b).abs() < 1e-4 * largest, "{a}, expected {b}");
    }
}

/// Caffe's AlexNet of six to ten channels.
fn caffe_arrays() -> Arrays {
    let mut rng = rng(4, Stream::Weights);
    let shapes: [(&str, &[usize]); 8] = [
        ("conv1", &[11, 11, 3, 6]),
        ("conv2", &[5, 5, 3, 8]),
        ("conv3", &[3, 3, 8, 10]),
        ("conv4", &[3, 3, 5, 8]),
        ("conv5", &[3, 3, 4, 6]),
        ("fc6", &[6 * 6 * 6, 12]),
        ("fc7", &[12, 12]),
        ("fc8", &[12, 7]),
    ];
    let mut arrays = Arrays::new();
    for (name, shape) in shapes {
        let n_in: usize = shape[..shape.len() - 1].iter().product();
        let scale = (2.0 / n_in as f64).sqrt();
        let mut draw = |n: usize, scale: f64| (0..n).map(|_| (scale * normal(&mut rng)) as f32).collect();
        let n_out = shape[shape.len() - 1];
        arrays.insert(format!("{name}.weights"), (shape.to_vec(), draw(n_in * n_out, scale)));
        arrays.insert(format!("{name}.biases"), (vec![n_out], draw(n_out, 1.0)));
    }
    arrays
}

/// The forward pass in Caffe's own terms: blue, green, red less their means; kernels `[h, w, in,
/// out]`; (h, w, c) flattened.
fn caffe_forward(arrays: &Arrays, image: &[u8]) -> Vec<f64> {
    let plane = |channel: usize, mean: f64| {
        image[channel * 227 * 227..][..227 * 227].iter().map(move |&x| f64::from(x) - mean)
    };
    let bgr = plane(2, 103.939).chain(plane(1, 116.779)).chain(plane(0, 123.68)).collect();
    let conv = |x: &Map, name: &str, stride, padding, groups| {
        let (shape, kernels) = &arrays[&format!("{name}.weights")];
        let [h, w, n_in, n_out] = shape[..] else { unreachable!() };
        let mut weight = Vec::new();
        for o in 0..n_out {
            for i in 0..n_in {
                weight.extend((0..h * w).map(|tap| f64::from(kernels[(tap * n_in + i) * n_out + o])));
            }
        }
        let bias: Vec<f64> = arrays[&format!("{name}.biases")].1.iter().map(|&x| x.into()).collect();
        x.conv(&weight, n_out, h, stride, padding, groups).bias(&bias).relu()
    };
    let linear = |x: &[f64], name: &str| -> Vec<f64> {
        let (matrix, bias) = (&arrays[&format!("{name}.weights")].1, &arrays[&format!("{name}.biases")].1);
        let sum = |o: usize| {
            x.iter().enumerate().map(|(i, x)| x * f64::from(matrix[i * bias.len() + o])).sum::<f64>()
        };
        (0..bias.len()).map(|o| (sum(o) + f64::from(bias[o])).max(0.0)).collect()
    };
    let x = Map { shape: [3, 227, 227], values: bgr };
    let x = conv(&x, "conv1", 4, 0, 1).response_norm().pool(3, 2, 0);
    let x = conv(&x, "conv2", 1, 2, 2).response_norm().pool(3, 2, 0);
    let x = conv(&conv(&x, "conv3", 1, 1, 1), "conv4", 1, 1, 2);
    let x = conv(&x, "conv5", 1, 1, 2).pool(3, 2, 0);
    let n = x.shape[1] * x.shape[2];
    let flat: Vec<f64> = (0..n * x.shape[0]).map(|i| x.values[i % x.shape[0] * n + i / x.shape[0]]).collect();
    linear(&linear(&flat, "fc6"), "fc7")
}

#[test]
fn caffe_weights_give_what_caffe_computes() {
    let arrays = caffe_arrays();
    let of = small_alexnet(Alexnet::Caffe);
    let weights = Weights::import(arrays.clone()).unwrap();
    let image = image(227);
    close(&weights.body(&image).unwrap(), &caffe_forward(&arrays, &image));

    let dir = TempDir::new().unwrap();
    let path = dir.path().join("w.safetensors");
    weights.save(&path).unwrap();
    let opened = Weights::open(&path).unwrap();
    assert_eq!((opened.fingerprint(), opened.body_config()), (weights.fingerprint(), &of));
    assert_eq!((opened.image_shape(), opened.body_dim()), ([3, 227, 227], 12));
    assert_eq!(opened.body(&image).unwrap(), weights.body(&image).unwrap());
    let mut other = arrays;
    other.get_mut("fc7.biases").unwrap().1[3] += 1.0;
    assert_ne!(Weights::import(other).unwrap().fingerprint(), weights.fingerprint());
}

/// torchvision's names of the arrays of `of`, in the order of its layers, its classifier last.
fn torchvision_names(of: &Body) -> Vec<String> {
    // The layers of `features` and `classifier`: convolutions, linear layers, ReLU, pooling,
    // dropout. Only the first two have arrays.
    let parts = match of {
        Body::Alexnet { .. } => ["crpcrpcrcrcrp", "dlrdlrl"],
        Body::Vgg16 { .. } => ["crcrpcrcrpcrcrcrpcrcrcrpcrcrcrp", "lrdlrdl"],
        Body::Resnet { block, blocks, .. } => {
            let mut names = Vec::new();
            let mut push = |conv: String, norm: String| {
                names.push(format!("{conv}.weight"));
                let kinds = ["weight", "bias", "running_mean", "running_var"];
                names.extend(kinds.map(|kind| format!("{norm}.{kind}")));
            };
            push("conv1".to_owned(), "bn1".to_owned());
            let is_bottleneck = *block == Block::Bottleneck;
            for (stage, n) in (1..).zip(*blocks) {
                for block in 0..n {
                    let at = format!("layer{stage}.{block}");
                    let n_layers = if is_bottleneck { 3 } else { 2 };
                    (1..=n_layers).for_each(|i| push(format!("{at}.conv{i}"), format!("{at}.bn{i}")));
                    if block == 0 && (stage > 1 || is_bottleneck) {
                        push(format!("{at}.downsample.0"), format!("{at}.downsample.1"));
                    }
                }
            }
            names.extend(["fc.weight", "fc.bias"].map(str::to_owned));
            return names;
        }
        _ => unreachable!(),
    };
    let of_part = |(part, modules): (&str, &str)| -> Vec<String> {
        let has_arrays = |(_, module): &(usize, char)| ['c', 'l'].contains(module);
        let names = |(i, _)| ["weight", "bias"].map(|kind| format!("{part}.{i}.{kind}"));
        modules.chars().enumerate().filter(has_arrays).flat_map(names).collect()
    };
    ["features", "classifier"].into_iter().zip(parts).flat_map(of_part).collect()
}

/// The tensors of a body as torchvision would have them, with a classifier.
fn torchvision_arrays(of: &Body, tensors: &Tensors) -> Arrays {
    let names = torchvision_names(of);
    let config = NetworkConfig { body: of.clone(), ..TrainConfig::best().network };
    let layers = Layers::new(&config, [3, 224, 224]).unwrap();
    let (dim, ours): (_, Vec<String>) = (layers.dim, layers.shapes().map(|(name, _)| name).collect());
    assert_eq!(names.len(), ours.len() + 2);
    let mut arrays: Arrays = names
        .iter()
        .zip(&ours)
        .map(|(name, ours)| (name.clone(), (tensors[ours].dims().to_vec(), values(&tensors[ours]))))
        .collect();
    arrays.insert(names[ours.len()].clone(), (vec![1000, dim], vec![0.0; 1000 * dim]));
    arrays.insert(names[ours.len() + 1].clone(), (vec![1000], vec![0.0; 1000]));
    arrays
}

#[test]
fn torchvision_weights_are_found_by_name() {
    let bodies = [small_alexnet(Alexnet::Torchvision), Body::Vgg16 { channels: [2, 3, 4, 3, 4], hidden: 9 }];
    let image = image(224);
    let (mean, deviation) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    let pixels = Map { shape: [3, 224, 224], values: image.iter().map(|&x| f64::from(x) / 255.0).collect() };
    let scaled = pixels.map(|c, x| (x - mean[c]) / deviation[c]);
    for of in bodies.into_iter().chain(SMALL_RESNETS) {
        let tensors = network(&of, 224).0.tensors();
        let weights = Weights::import(torchvision_arrays(&of, &tensors)).unwrap();
        assert_eq!(weights.body_config(), &of);
        close(&weights.body(&image).unwrap(), &reference(&of, &to_f64(&tensors), &scaled).values);
    }
}

#[test]
fn what_is_wrong_with_arrays_is_said_in_a_sentence() {
    let error = |change: &dyn Fn(&mut Arrays)| {
        let mut arrays = caffe_arrays();
        change(&mut arrays);
        Weights::import(arrays).unwrap_err().to_string()
    };
    assert_eq!(
        error(&|arrays| arrays.retain(|name, _| !name.starts_with("conv5"))),
        "weights: found no `conv5.biases`, `conv5.weights`, expected all of Caffe's bvlc_alexnet"
    );
    assert_eq!(
        error(&|arrays| arrays.get_mut("fc7.weights").unwrap().0 = vec![144]),
        "weights: `fc7.weights` has shape [144], expected [12, 12]"
    );
    assert_eq!(
        error(&|arrays| arrays.get_mut("conv2.biases").unwrap().1[3] = f32::NAN),
        "weights: `conv2.biases` holds NaN, expected finite numbers"
    );
    assert_eq!(
        error(&|arrays| _ = arrays.insert("conv6.biases".to_owned(), (vec![1], vec![0.0]))),
        "weights: found `conv6.biases` too, expected Caffe's bvlc_alexnet alone"
    );
    let none = "arrays of Caffe's bvlc_alexnet (`conv1.weights`), of torchvision's alexnet or vgg16 \
        (`features.0.weight`) or of a torchvision resnet (`layer1.0.conv1.weight`)";
    assert_eq!(
        error(&|arrays| arrays.retain(|name, _| !name.starts_with("conv1"))),
        format!("weights: found `conv2.biases`, expected {none}")
    );
    assert_eq!(error(&|arrays| arrays.clear()), format!("weights: found no array, expected {none}"));
    let gone = |arrays: &mut Arrays| arrays.get_mut("conv1.biases").unwrap().0 = vec![0];
    assert_eq!(error(&gone), "network.body: expected 1 to 65536 channels and units");
}
