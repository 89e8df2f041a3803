//! Tests of configurations and presets.

use super::*;

#[test]
fn presets_are_found_by_name_can_be_used_and_survive_json() {
    for name in TrainConfig::PRESETS {
        let config = TrainConfig::preset(name).unwrap();
        let config = if name == "pretrained" { config.fine_tuned(112) } else { config };
        config.check().unwrap();
        let json = serde_json::to_string(&config).unwrap();
        let read: TrainConfig = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), json);
    }
    let error = TrainConfig::preset("bset").unwrap_err().to_string();
    let expected = "expected one of best, pretrained, authors-code, paper, quick, mopq, mecoq, mecoq-product, phpq, \
        phpq-product";
    assert_eq!(error, format!("preset: found `bset`, {expected}"));
}

#[test]
fn a_pretrained_body_learns_at_a_lower_rate_than_heads() {
    for (preset, rate) in [(TrainConfig::paper(), 2e-4), (TrainConfig::authors_code(), 1e-4)] {
        let config = preset.fine_tuned(64);
        config.check().unwrap();
        let OptimizerConfig { rate: found, head_weights, head_biases, .. } = config.network_optimizer;
        assert!((found - rate).abs() < 1e-12, "{found}");
        assert_eq!((head_weights, head_biases), (10.0, 20.0));
        assert_eq!((config.network.input, config.augment.padding), (Some(64), 4));
    }
    for (input, first) in [(64, None), (112, Some(64))] {
        let config = TrainConfig::pretrained().fine_tuned(input);
        config.check().unwrap();
        assert_eq!(config.network.first_input.map(|first| first.side), first);
    }
}

#[test]
fn unknown_fields_are_refused() {
    let json = serde_json::to_string(&TrainConfig::quick()).unwrap();
    let json = json.replacen("\"epochs\"", "\"epochz\":1,\"epochs\"", 1);
    let error = serde_json::from_str::<TrainConfig>(&json).unwrap_err().to_string();
    assert!(error.starts_with("unknown field `epochz`"), "{error}");
}

fn small(channels: Vec<usize>) -> Body {
    Body::Small { channels, pools: 0, order: StageOrder::ConvNormReluPool, hidden: 8 }
}

fn posterior(tanh: f64, temperature: f64) -> Feature {
    Feature::Posterior { tanh, temperature }
}

#[test]
fn impossible_values_are_named() {
    type Case = (fn(&mut TrainConfig), &'static str);
    let cases: [Case; 25] = [
        (|c| c.epochs = 0, "epochs: "),
        (|c| c.network.body = small(vec![]), "network.body.small.channels: "),
        (|c| c.network.body = Body::Features, "mirror_average: "),
        (|c| c.network.feature = posterior(-1.0, 1.0), "network.feature.posterior.tanh: "),
        (|c| c.network.feature = posterior(0.0, 0.0), "network.feature.posterior.temperature: "),
        (|c| c.quantizer.codewords = 257, "quantizer.codewords: "),
        (|c| c.quantizer.start = Start::Random, "quantizer.start: "),
        (|c| c.quantizer.codebooks = Sharing::Shared, "quantizer.codebooks: "),
        (|c| (c.quantizer.form, c.network.dim) = (Form::Product, 10), "quantizer.levels: "),
        (
            |c| {
                c.schedule = Schedule::Joint { features_first: 0.0 };
                (c.quantizer.form, c.quantizer.codebooks) = (Form::Product, Sharing::Shared);
            },
            "quantizer.codebooks: expected `separate` for product",
        ),
        (|c| c.quantizer.unit_codewords = true, "quantizer.unit_codewords: "),
        (
            |c| {
                c.schedule = Schedule::Joint { features_first: 0.5 };
                c.quantizer.unit_codewords = true;
            },
            "quantizer.unit_codewords: ",
        ),
        (
            |c| {
                c.quantizer.form = Form::Product;
                c.quantizer.refine = 3;
            },
            "quantizer.refine: expected 0 ",
        ),
        (|c| c.quantizer.attention = Some(0), "quantizer.attention: "),
        (|c| c.quantizer.attention = Some(257), "quantizer.attention: "),
        (
            |c| c.network.pyramid = Some(Pyramid { stages: 4, pooling: Pooling::Both }),
            "network.pyramid.stages: ",
        ),
        (|c| c.loss.prefix_classification = 0.5, "loss.prefix_classification: "),
        (|c| c.loss.soft = f64::NAN, "loss: expected finite weights"),
        (|c| c.loss.prefix_margin = -1.0, "loss: expected finite weights"),
        (|c| c.loss.commitment = 1.5, "loss.commitment: "),
        (|c| (c.loss.margin, c.loss.classification) = (0.0, 0.0), "loss: expected `margin` or `classif"),
        (
            |c| {
                c.schedule = Schedule::Joint { features_first: 0.0 };
                c.loss.quantization = 0.0;
            },
            "loss: expected a quantization loss",
        ),
        (|c| c.network_optimizer.rate = -1.0, "network_optimizer: "),
        (|c| c.validation.images = 1, "validation.images: "),
        (|c| c.validation.every = 0, "validation.every: "),
    ];
    for (change, prefix) in cases {
        let mut config = TrainConfig::best();
        change(&mut config);
        let error = config.check().unwrap_err().to_string();
        assert!(error.starts_with(prefix), "{error}");
    }
}
