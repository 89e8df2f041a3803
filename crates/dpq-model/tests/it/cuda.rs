//! Runs and models on `cuda:0` and on the CPU. Without a GPU these tests say so and pass.

use candle_core::Device;
use dpq_model::config::{Body, NetworkConfig, QuantizerConfig, Schedule, StageOrder};
use dpq_model::{Model, TrainConfig};
use tempfile::TempDir;

use crate::train::{Run, run_on};

/// Both ways: a run that starts on one device goes on at the other, and a model of one gives the
/// same features on the other.
#[test]
fn runs_and_models_change_devices() {
    if Device::new_cuda_with_stream(0).is_err() {
        eprintln!("SKIPPED: this machine has no usable GPU, nothing was compared");
        return;
    }
    let (cpu, cuda) = (dpq_model::Device::Cpu, dpq_model::Device::Cuda(0));
    let best = TrainConfig::best();
    for schedule in [
        Schedule::TwoStep,
        Schedule::Joint { features_first: 0.0 },
        Schedule::Alternating { features_first: 0.5 },
    ] {
        let config = TrainConfig {
            epochs: 2,
            batch_size: 32,
            schedule,
            network: NetworkConfig {
                body: Body::Small {
                    channels: vec![4, 8],
                    pools: 2,
                    order: StageOrder::ConvPoolNormRelu,
                    hidden: 16,
                },
                dim: 12,
                ..best.network.clone()
            },
            quantizer: QuantizerConfig { levels: 2, codewords: 8, ..best.quantizer },
            ..best.clone()
        };
        for devices in [[cpu, cpu], [cpu, cuda], [cuda, cpu], [cuda, cuda]] {
            let dir = TempDir::new().unwrap();
            let part = |resume, stop_after, device| {
                run_on(
                    device,
                    &config,
                    dir.path(),
                    Run { resume, embeddings: None, stop_after, on_epoch: &mut |_| {} },
                )
            };
            part(false, Some(1), devices[0]).unwrap_err();
            part(true, None, devices[1]).unwrap();
            let open = || Model::open(dir.path().join("model.safetensors")).unwrap();
            let images: Vec<u8> = (0..600 * 64).map(|i| (i * 7919 % 251) as u8).collect();
            let on = |device| open().on(device).unwrap().forward(&images).unwrap().features;
            for (a, b) in on(cpu).into_iter().zip(on(cuda)) {
                assert!((a - b).abs() < 1e-4, "{a} on the CPU, {b} on the GPU");
            }
        }
    }
}
