//! Training on two views of each image, without labels.

use std::fs;
use std::path::Path;

use dpq_codebook::Form;
use dpq_file::Container;
use dpq_model::config::{Body, MecoqConfig, Objective, QuantizerConfig};
use dpq_model::{EpochReport, Error, Inputs, Model, TrainConfig, TrainOptions, TrainSet, train};
use tempfile::TempDir;

const DIM: usize = 12;
const N: usize = 96;
const KINDS: usize = 4;

/// Numbers in [−1, 1) without order (splitmix64).
fn number(place: u64) -> f32 {
    let mut z = place.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 23) as f32 - 1.0
}

/// The item of a row, one of several kinds. A view differs in the last dimensions, which are larger
/// than the others.
fn item(row: usize, seed: Option<u64>, out: &mut [f32]) {
    for (i, x) in out.iter_mut().enumerate() {
        *x = match (i < DIM / 2, seed) {
            (true, _) => number((row % KINDS * DIM + i) as u64) + 0.2 * number((1000 + row * DIM + i) as u64),
            (false, seed) => 3.0 * number(seed.unwrap_or(row as u64).wrapping_add(i as u64)),
        };
    }
}

fn config(form: Form) -> TrainConfig {
    let mut config = match form {
        Form::Progressive => TrainConfig::mecoq(),
        Form::Product => TrainConfig::mecoq_product(),
    };
    config.epochs = 8;
    config.batch_size = 32;
    config.network.body = Body::Features;
    config.network.dim = 8;
    config.augment = Default::default();
    config.quantizer = QuantizerConfig { levels: 2, codewords: 8, ..config.quantizer };
    config.network_optimizer.rate = 2e-2;
    let Objective::Mecoq(mecoq) = config.objective else { panic!("the preset is of mecoq") };
    config.objective = Objective::Mecoq(MecoqConfig { memory: 40, ..mecoq });
    config
}

fn run(
    config: &TrainConfig,
    labels: &[u8],
    out: &Path,
    resume: bool,
    on_epoch: &mut dyn FnMut(&EpochReport) -> bool,
) -> Result<Model, Error> {
    fs::create_dir_all(out).unwrap();
    let data = TrainSet {
        n_items: N,
        labels,
        n_classes: labels.len() / N,
        multi_label: false,
        embeddings: None,
        inputs: Inputs::Features {
            dim: DIM,
            read: &|row, seed, out| {
                item(row, seed, out);
                Ok(())
            },
        },
        weights: None,
    };
    let mut on_epoch = |report: &EpochReport, _: &dpq_model::Snapshot<'_>| match on_epoch(report) {
        true => Ok(()),
        false => Err("enough".into()),
    };
    train(config, &data, out, TrainOptions { resume, on_epoch: Some(&mut on_epoch), ..Default::default() })
}

/// The share of items whose nearest other item by the codes is of the same kind.
fn same_kind(model: &Model, features: &[f32]) -> f64 {
    let length = model.codebooks().lengths().last().unwrap();
    let decoded = model.codebooks().decode(&model.encode(features).unwrap(), length).unwrap();
    let dim = model.codebooks().dim();
    let of_item = |(row, x): (usize, &[f32])| {
        let score =
            |other: usize| -> f32 { decoded[other * dim..][..dim].iter().zip(x).map(|(a, b)| a * b).sum() };
        let best = (0..N).filter(|&other| other != row).max_by(|&a, &b| score(a).total_cmp(&score(b)));
        f64::from(u8::from(best.unwrap() % KINDS == row % KINDS))
    };
    features.chunks(dim).enumerate().map(of_item).sum::<f64>() / N as f64
}

#[test]
fn codes_learn_what_views_have_in_common() {
    let dir = TempDir::new().unwrap();
    let mut inputs = vec![0.0; N * DIM];
    inputs.chunks_mut(DIM).enumerate().for_each(|(row, out)| item(row, None, out));
    for form in [Form::Progressive, Form::Product] {
        let mut names = Vec::new();
        let config = TrainConfig { epochs: 40, ..config(form) };
        let model = run(&config, &[], &dir.path().join(form.to_string()), false, &mut |report| {
            names.extend(report.losses.keys().cloned());
            true
        })
        .unwrap();
        for name in ["contrast", "entropy", "diversity"] {
            assert!(names.iter().any(|found| found == name), "{names:?}");
        }
        let features = model.forward_features(&inputs).unwrap();
        assert!(features.logits.is_empty() && model.n_classes() == 0 && model.embeddings().is_none());
        let share = same_kind(&model, &features.features);
        assert!(share > 0.8, "{form}: {share}");
        // Features, or their parts, have length 1.
        let width = if form == Form::Product { 4 } else { 8 };
        for part in features.features.chunks(width) {
            let norm = part.iter().map(|x| x * x).sum::<f32>();
            assert!((norm - 1.0).abs() < 1e-5, "{norm}");
        }
    }
}

/// Labels of any kind, or none, make the same bytes.
#[test]
fn labels_are_not_read() {
    let dir = TempDir::new().unwrap();
    let one_hot = |of: &dyn Fn(usize) -> usize| -> Vec<u8> {
        (0..N * KINDS).map(|i| u8::from(of(i / KINDS) == i % KINDS)).collect()
    };
    let config = TrainConfig { epochs: 3, ..config(Form::Progressive) };
    let mut files = Vec::new();
    for (name, labels) in [
        ("right", one_hot(&|row| row % KINDS)),
        ("shuffled", one_hot(&|row| row * 7 / 5 % KINDS)),
        ("none", Vec::new()),
        ("broken", vec![9; N * KINDS]),
    ] {
        let out = dir.path().join(name);
        run(&config, &labels, &out, false, &mut |_| true).unwrap();
        files.push(
            ["model", "checkpoint"]
                .map(|file| fs::read(out.join(file).with_extension("safetensors")).unwrap()),
        );
    }
    assert!(files.iter().all(|file| *file == files[0]));
}

/// An interrupted run keeps its memory, and ends with the same bytes.
#[test]
fn resuming_is_exact_with_a_memory() {
    for form in [Form::Progressive, Form::Product] {
        let (dir, config) = (TempDir::new().unwrap(), config(form));
        let whole = dir.path().join("whole");
        run(&config, &[], &whole, false, &mut |_| true).unwrap();
        let parts = dir.path().join("parts");
        let mut last = 5;
        while run(&config, &[], &parts, true, &mut |report| report.epoch < last).is_err() {
            let checkpoint = Container::open(parts.join("checkpoint.safetensors")).unwrap();
            if last == 6 {
                assert_eq!(checkpoint.section("memory").unwrap().shape, [40, 2, 8]);
            }
            last += 1;
        }
        for file in ["model.safetensors", "checkpoint.safetensors"] {
            assert_eq!(fs::read(whole.join(file)).unwrap(), fs::read(parts.join(file)).unwrap(), "{file}");
        }
    }
}

/// Without steps for the codewords they stay where they start, as in the authors' code.
#[test]
fn a_rate_of_0_keeps_random_codewords() {
    let dir = TempDir::new().unwrap();
    let fixed = |epochs: usize, name: &str| {
        let mut config = TrainConfig { epochs, ..config(Form::Product) };
        config.codebook_optimizer.rate = 0.0;
        run(&config, &[], &dir.path().join(name), false, &mut |_| true).unwrap()
    };
    let (short, long) = (fixed(1, "short"), fixed(4, "long"));
    assert_eq!(short.codebooks().values(), long.codebooks().values());
    let learnt = run(
        &TrainConfig { epochs: 4, ..config(Form::Product) },
        &[],
        &dir.path().join("l"),
        false,
        &mut |_| true,
    );
    assert_ne!(learnt.unwrap().codebooks().values(), long.codebooks().values());
}

#[test]
fn configurations_that_do_not_fit_are_refused() {
    let dir = TempDir::new().unwrap();
    let refused = |change: &dyn Fn(&mut TrainConfig)| {
        let mut config = config(Form::Progressive);
        change(&mut config);
        run(&config, &[], dir.path(), false, &mut |_| true).unwrap_err().to_string()
    };
    let says = |found: String, expected: &str| assert!(found.contains(expected), "{found}");
    says(refused(&|c| c.network.feature = Default::default()), "`unit` for `mecoq`");
    says(refused(&|c| c.objective = Objective::Dpq), "network.feature");
    let mecoq = |change: fn(&mut MecoqConfig)| {
        move |c: &mut TrainConfig| {
            let Objective::Mecoq(mecoq) = &mut c.objective else { panic!("the preset is of mecoq") };
            change(mecoq);
        }
    };
    says(refused(&mecoq(|m| m.temperature = 0.01)), "objective.mecoq.temperature");
    says(refused(&mecoq(|m| m.positives = 1.0)), "objective.mecoq.positives");
    says(refused(&mecoq(|m| m.diversity = f64::NAN)), "objective.mecoq: ");
}
