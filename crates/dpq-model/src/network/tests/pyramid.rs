//! Pooled stages against plain loops.

use candle_core::{DType, Device, Tensor, Var};

use super::{Map, network, stages_of_small, tensor, to_f64, values};
use crate::body::{self, Layer, Layers};
use crate::config::{Body, Pooling, Pyramid, StageOrder};
use crate::pass::Pass;
use crate::tensors::Tensors;
use crate::tests::assert_close;

/// The pyramid of a body: each of its last stages of convolutions, whose results are `maps`.
fn pooled(maps: &[Map], pooling: Pooling) -> Vec<f64> {
    let mut values = Vec::new();
    for map in maps {
        let n = map.shape[1] * map.shape[2];
        let planes = || map.values.chunks_exact(n);
        if pooling != Pooling::Maximum {
            values.extend(planes().map(|plane| plane.iter().sum::<f64>() / n as f64));
        }
        if pooling != Pooling::Average {
            values.extend(planes().map(|plane| plane.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b))));
        }
    }
    values
}

/// The stages of the small network one by one, each as a body of fewer stages has them.
#[test]
fn a_pyramid_pools_each_stage() {
    for order in [StageOrder::ConvPoolNormRelu, StageOrder::ConvNormReluPool] {
        let body = |n: usize| {
            let channels = [4, 6, 5][..n].to_vec();
            Body::Small { channels, pools: n.min(2), order, hidden: 9 }
        };
        let (mut network, x) = network(&body(3), 13);
        let tensors = network.tensors();
        let weights = to_f64(&tensors);
        let maps: Vec<Map> = (1..=3).map(|n| stages_of_small(&body(n), &weights, &x)).collect();
        for pooling in [Pooling::Average, Pooling::Maximum, Pooling::Both] {
            for stages in 1..=3 {
                network.config.pyramid = Some(Pyramid { stages, pooling });
                let Layers { layers, dim, stages: below } = Layers::new(&network.config, x.shape).unwrap();
                assert_eq!(below.len(), 3 - stages);
                let folded = body::fold(&layers, &tensors).unwrap();
                let input = Var::from_tensor(&tensor(&x)).unwrap();
                let f = body::forward(&layers, &input, &mut Pass::Inference(&folded)).unwrap();
                let expected = pooled(&maps[3 - stages..], pooling);
                let found: Vec<f64> = values(&f).into_iter().map(f64::from).collect();
                assert_eq!(f.dims(), [1, dim]);
                assert_close(&found, &expected, 1e-4);
                let gradients = f.sum_all().unwrap().backward().unwrap();
                let gradient = values(gradients.get(&input).unwrap());
                assert!(gradient.iter().any(|&x| x != 0.0));
            }
        }
    }
}

/// Equal maxima share no gradient: the first has all of it.
#[test]
fn the_gradient_of_a_maximum_reaches_one_position() {
    let layer = Layer::Pyramid { stages: vec![Vec::new()], pooling: Pooling::Maximum };
    let x = Var::from_tensor(&Tensor::ones((2, 3, 4, 4), DType::F32, &Device::Cpu).unwrap()).unwrap();
    let y = body::forward(&[layer], &x, &mut Pass::Inference(&Tensors::new())).unwrap();
    let gradients = y.sum_all().unwrap().backward().unwrap();
    let expected = [[1.0f32].as_slice(), &[0.0; 15]].concat().repeat(6);
    assert_eq!(values(gradients.get(&x).unwrap()), expected);
}
