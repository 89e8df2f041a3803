//! The dpq side of the comparison of residual networks. Commands come on stdin, one per line. Each
//! is answered by a number on stdout: images per second.
//!
//! - `train SIDE N CLASSES`: trains on N made images of SIDE × SIDE pixels, an epoch after one that
//!   does not count
//! - `encode SIDE N`: computes features by the network that `train` left for that side
//!
//! Work runs on as many threads as RAYON_NUM_THREADS says.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::time::Instant;

use dpq_model::config::{Block, Body, NetworkConfig, QuantizerConfig};
use dpq_model::{Inputs, Model, TrainConfig, TrainOptions, TrainSet, train};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const BATCH: usize = 50;

fn main() -> Result<()> {
    let mut models = BTreeMap::new();
    for line in io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let rate = match words[..] {
            ["train", side, n, classes] => {
                let (model, rate) = trained(side.parse()?, n.parse()?, classes.parse()?)?;
                models.insert(side.to_owned(), model);
                rate
            }
            ["encode", side, n] => {
                let model = models.get(side).ok_or("no network for that side: `train` first")?;
                encode(model, n.parse()?)?
            }
            _ => {
                let expected = "`train SIDE N CLASSES` or `encode SIDE N`";
                return Err(format!("found {line:?}, expected {expected}").into());
            }
        };
        println!("{rate}");
    }
    Ok(())
}

/// Noise that is a little brighter in places that depend on the row.
fn image(row: usize, out: &mut [u8]) {
    let pixel = |at: usize| (row * 7919 + at * 104_729) % 223 + usize::from(at % 10 == row % 10) * 32;
    out.iter_mut().enumerate().for_each(|(at, out)| *out = pixel(at) as u8);
}

/// Returns a network and the images per second of its last epoch.
fn trained(side: usize, n: usize, n_classes: usize) -> Result<(Model, f64)> {
    let best = TrainConfig::best();
    let config = TrainConfig {
        epochs: 2,
        batch_size: BATCH,
        mirror_average: false,
        quantizer: QuantizerConfig { levels: 1, codewords: 2, kmeans_iterations: 1, ..best.quantizer },
        network: NetworkConfig {
            body: Body::Resnet { block: Block::Basic, blocks: [2, 2, 2, 3], width: 64 },
            ..best.network
        },
        ..best
    };
    let mut labels = vec![0; n * n_classes];
    labels.chunks_exact_mut(n_classes).enumerate().for_each(|(row, labels)| labels[row % n_classes] = 1);
    let data = TrainSet {
        n_items: n,
        labels: &labels,
        n_classes,
        multi_label: false,
        embeddings: None,
        inputs: Inputs::Images {
            shape: [3, side, side],
            read: &|row, _, out| {
                image(row, out);
                Ok(())
            },
        },
        weights: None,
    };
    let (mut rate, out) = (0.0, tempfile::TempDir::new()?);
    let mut on_epoch = |report: &dpq_model::EpochReport, _: &dpq_model::Snapshot<'_>| {
        rate = report.images_per_second;
        Ok(())
    };
    let options = TrainOptions { on_epoch: Some(&mut on_epoch), ..TrainOptions::default() };
    let model = train(&config, &data, out.path(), options)?;
    Ok((model, rate))
}

fn encode(model: &Model, n: usize) -> Result<f64> {
    let len = model.image_shape().iter().product::<usize>();
    let mut images = vec![0; n * len];
    images.chunks_exact_mut(len).enumerate().for_each(|(row, out)| image(row, out));
    let start = Instant::now();
    for batch in images.chunks(BATCH * len) {
        model.forward(batch)?;
    }
    Ok(n as f64 / start.elapsed().as_secs_f64())
}
