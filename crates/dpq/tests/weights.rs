//! Pretrained weights through the command: what is imported, what a body starts from, and the
//! paper's run at toy size.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod common;

use std::fs;
use std::path::Path;

use dpq_formats::NpzWriter;
use tempfile::TempDir;

use common::{dpq, error, images, json};

/// Layers of an AlexNet of a few channels in Caffe's layout.
const LAYERS: [(&str, &[usize]); 8] = [
    ("conv1", &[11, 11, 3, 4]),
    ("conv2", &[5, 5, 2, 8]),
    ("conv3", &[3, 3, 8, 8]),
    ("conv4", &[3, 3, 4, 8]),
    ("conv5", &[3, 3, 4, 8]),
    ("fc6", &[288, 16]),
    ("fc7", &[16, 16]),
    ("fc8", &[16, 1000]),
];

/// Writes `layers` as numpy.savez does.
fn savez(path: &Path, layers: &[(&str, &[usize])]) {
    let mut archive = NpzWriter::default();
    for (name, shape) in layers {
        let (n_in, n_out) = (shape[..shape.len() - 1].iter().product::<usize>(), shape[shape.len() - 1]);
        for (kind, shape, scale) in
            [("weights", *shape, 2.0 / (n_in as f32).sqrt()), ("biases", &[n_out][..], 0.1)]
        {
            let value = |i| scale * (i as f32 * 12.9898).sin();
            let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(value).collect();
            archive = archive.add(&format!("{name}.{kind}"), shape, &values).unwrap();
        }
    }
    archive.save(path).unwrap();
}

/// The paper's run, stage by stage as `cargo xtask reproduce-paper --preset paper --weights W`:
/// images of 9×9 enlarged to 227×227, a few channels and a few steps. The test is that all stages
/// run; the ranking is meaningless.
#[test]
fn a_pretrained_alexnet_is_tuned_on_images_blown_up_to_its_size() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    images(dir);
    savez(&dir.join("w.npz"), &LAYERS);
    let imported = json(dir, "weights import w.npz --out w.safetensors");
    assert_eq!(imported["image_shape"], serde_json::json!([3, 227, 227]));
    assert_eq!(imported["dim"], 16);

    let train =
        "train --data set --weights w.safetensors --preset paper --set epochs=2 --set quantizer.codewords=4";
    let trained = json(dir, &format!("{train} --out run"));
    assert_eq!(trained["weights"], imported["fingerprint"]);
    let config = &trained["config"];
    assert_eq!(config["network"]["body"]["alexnet"]["hidden"], 16);
    assert_eq!(config["network_optimizer"]["head_weights"], 10.0, "a preset is one for fine-tuning");
    let model = "run/model.safetensors";
    for split in ["query", "gallery"] {
        json(dir, &format!("encode --model {model} --data set --split {split} --out-dir {split}"));
    }
    json(
        dir,
        &format!(
            "index build --codes gallery/codes.npy --codebook {model} --ids gallery/ids.npy --out g.dpq"
        ),
    );
    json(dir, "search g.dpq --queries query/features.npy --bits 16 -k 3 --threads 1");
    let judged = "--queries query/features.npy --query-labels query/labels.npy --gallery-labels gallery/labels.npy \
        --gallery-ids gallery/ids.npy --at 5000";
    let report = json(dir, &format!("eval --index g.dpq --bits 8,16,24,32 {judged}"));
    assert_eq!((&report["queries"], &report["gallery"]), (&6.into(), &30.into()));
    json(dir, &format!("eval --gallery-features gallery/features.npy {judged}"));

    // A model with a frozen body gives the features of the weights, and heads train on them.
    let frozen = json(dir, &format!("{train} --out frozen --set network.backbone=\"frozen\""));
    assert_eq!(frozen["weights"], imported["fingerprint"]);
    json(dir, "features --model frozen/model.safetensors --body --data set --split train --out-dir a");
    json(dir, &format!("features --model {model} --body --data set --split train --out-dir b"));
    let bodies = json(dir, "features --weights w.safetensors --data set --split train --out-dir c");
    assert_eq!((&bodies["items"], &bodies["dim"]), (&24.into(), &16.into()));
    let [frozen, tuned, weights] =
        ["a", "b", "c"].map(|at| fs::read(dir.join(at).join("features.npy")).unwrap());
    assert!(frozen == weights && tuned != weights);
    json(
        dir,
        "train --features c/features.npy --labels c/labels.npy --out heads --set quantizer.codewords=4 --set epochs=2",
    );
}

#[test]
fn weights_that_do_not_fit_are_refused_in_a_sentence() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let says = |command: &str, text: &str| {
        let error = error(dir, command, 1);
        assert!(error.contains(text), "{command}: {error}");
    };
    savez(&dir.join("w.npz"), &LAYERS);
    savez(&dir.join("cut.npz"), &LAYERS[..6]);
    says("weights import cut.npz --out x", "found no `fc7.biases`, `fc7.weights`, expected all of Caffe's");
    fs::write(dir.join("w.pth"), "").unwrap();
    says("weights import w.pth --out x", "w.pth: extension .pth, expected a .npy, .npz or .safetensors file");
    says("weights import no.npz --out x", "cannot read no.npz: No such file");
    fs::write(dir.join("text.npz"), "text").unwrap();
    says("weights import text.npz --out x", "text.npz: not a .npz archive, write it with numpy.savez");
    savez(&dir.join("more.npz"), &[&LAYERS[..], &[("conv6", &[1, 1, 8, 8])]].concat());
    says("weights import more.npz --out x", "found `conv6.biases`, `conv6.weights` too");
    assert!(!dir.join("x").exists(), "nothing was written");

    json(dir, "weights import w.npz --out w.safetensors");
    says(
        "weights import w.safetensors --out x",
        "found `backbone.conv1.bias`, expected arrays of Caffe's bvlc_alexnet (`conv1.weights`), of",
    );
    let train = "train --data set --out run --weights w.safetensors --set network.input=200";
    says(
        train,
        "network.input: found 200, expected 227, for which the linear layers of the weights are made",
    );
    says("train --data set --out run --weights w.npz", "`dpq weights import w.npz --out");
    let header = br#"{"conv1.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let plain = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 4]].concat();
    fs::write(dir.join("resnet18.safetensors"), plain).unwrap();
    says("train --data set --out run --weights resnet18.safetensors", "made by `dpq weights import`");
    dpq_formats::npy::write(dir.join("x.npy"), &[2, 2], &[0.0f32; 4]).unwrap();
    says("weights import x.npy --out x", "x.npy: array holds <f4, expected a dictionary of layers");
    let print = String::from_utf8(dpq(dir, "train --print-config --weights w.safetensors").stdout).unwrap();
    assert!(print.contains("head_weights = 10.0") && print.contains("variant = \"caffe\""), "{print}");
}
