//! Trains a small network on features of two classes, and shows its epochs:
//!
//! `cargo run --release -p dpq-model --example two_classes`

use dpq_model::config::Body;
use dpq_model::{EpochReport, Inputs, Snapshot, TrainConfig, TrainOptions, TrainSet, train};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (n_items, dim) = (400, 8);
    let labels: Vec<u8> = (0..n_items).flat_map(|row| if row % 2 == 0 { [1, 0] } else { [0, 1] }).collect();
    let read = |row: usize, _seed: Option<u64>, feature: &mut [f32]| {
        let class = if row.is_multiple_of(2) { -1.0 } else { 1.0 };
        feature.iter_mut().enumerate().for_each(|(i, x)| *x = class + ((row * (i + 3)) % 17) as f32 / 17.0);
        Ok(())
    };
    let data = TrainSet {
        n_items,
        labels: &labels,
        n_classes: 2,
        multi_label: false,
        embeddings: None,
        inputs: Inputs::Features { dim, read: &read },
        weights: None,
    };

    let mut config = TrainConfig::quick();
    config.network.body = Body::Features;
    config.network.dim = 16;
    config.mirror_average = false;
    config.augment = dpq_model::config::AugmentConfig::default();
    (config.quantizer.levels, config.quantizer.codewords, config.epochs) = (2, 16, 4);

    let folder = std::env::temp_dir().join(format!("dpq-two-classes-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let mut on_epoch = |epoch: &EpochReport, _: &Snapshot<'_>| {
        println!("epoch {}: {:.3?}", epoch.epoch + 1, epoch.losses);
        Ok(())
    };
    let options = TrainOptions { on_epoch: Some(&mut on_epoch), ..TrainOptions::default() };
    let model = train(&config, &data, &folder, options)?;

    let output = model.forward_features(&[[-0.5; 8], [1.5; 8]].concat())?;
    println!("codes of an item of each class: {:?}", model.encode(&output.features)?);
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
