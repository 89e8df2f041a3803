//! Named configurations, with the source of each number.
//!
//! Numbers without a source come from a few hundred trainings of a PyTorch reference on
//! Fashion-MNIST, made before this program was written. They ranked gallery images, not a split of
//! their own (docs/deviations.md).

use dpq_codebook::{Assignment, Form};

use super::{
    AugmentConfig, Backbone, Body, Feature, FirstInput, LossConfig, Margins, MecoqConfig, Method, Moments,
    MopqConfig, NetworkConfig, Objective, OptimizerConfig, Pooling, Pyramid, QuantizerConfig, RateSchedule,
    Schedule, Sharing, StageOrder, Start, TrainConfig, ValidationConfig, ViewConfig,
};
use crate::Error;

impl TrainConfig {
    /// The names that [`TrainConfig::preset`] accepts.
    pub const PRESETS: [&'static str; 10] = [
        "best",
        "pretrained",
        "authors-code",
        "paper",
        "quick",
        "mopq",
        "mecoq",
        "mecoq-product",
        "phpq",
        "phpq-product",
    ];

    /// Returns the preset of that name.
    ///
    /// # Errors
    /// Returns an error that lists the presets if the name is unknown.
    pub fn preset(name: &str) -> Result<Self, Error> {
        match name {
            "best" => Ok(Self::best()),
            "pretrained" => Ok(Self::pretrained()),
            "authors-code" => Ok(Self::authors_code()),
            "paper" => Ok(Self::paper()),
            "quick" => Ok(Self::quick()),
            "mopq" => Ok(Self::mopq()),
            "mecoq" => Ok(Self::mecoq()),
            "mecoq-product" => Ok(Self::mecoq_product()),
            "phpq" => Ok(Self::phpq()),
            "phpq-product" => Ok(Self::phpq_product()),
            _ => {
                let expected = format!("one of {}", Self::PRESETS.join(", "));
                Err(Error::unfit("preset", format!("found `{name}`"), expected))
            }
        }
    }

    /// The most accurate recipe: many small steps for the network, then codebooks by residual
    /// k-means on its features.
    pub fn best() -> Self {
        Self {
            seed: 1,
            // Many small steps.
            epochs: 96,
            batch_size: 64,
            mirror_average: true,
            schedule: Schedule::TwoStep,
            network: NetworkConfig {
                backbone: Backbone::Trained,
                dropout: 0.5,
                // The length of the paper's word vectors.
                dim: 300,
                input: None,
                freeze: 0,
                moments: Moments::Batch,
                feature: Feature::Tanh,
                first_input: None,
                pyramid: None,
                body: small(StageOrder::ConvPoolNormRelu),
            },
            quantizer: QuantizerConfig {
                form: Form::Progressive,
                // 32 bits; K = 256 as in the paper.
                levels: 4,
                codewords: 256,
                codebooks: Sharing::Separate,
                unit_codewords: false,
                assignment: Assignment::Euclidean,
                softness: 1.0,
                attention: None,
                start: Start::ResidualKmeans,
                kmeans_iterations: 25,
                beam: 1,
                refine: 0,
                revive: false,
            },
            objective: Objective::Dpq,
            // λ = 1 instead of the authors' 0.1. Two-step training does not use the quantization
            // losses.
            loss: LossConfig { classification: 1.0, ..released_flags() },
            network_optimizer: OptimizerConfig {
                rate_schedule: RateSchedule::WarmupCosine { warmup: 0.15 },
                weight_decay: 0.01,
                ..adam(1e-3)
            },
            codebook_optimizer: adam(1e-3),
            augment: AugmentConfig {
                padding: 2,
                mirror: true,
                cutout: 8,
                cutout_probability: 0.5,
                view: None,
            },
            validation: ValidationConfig { images: 0, every: 1 },
        }
    }

    /// `best` for a residual network with pretrained weights and a few thousand images, at a pace
    /// of two CPU cores.
    ///
    /// Held-out training images of CIFAR-10 chose the rate, dropout and the feature
    /// (docs/deviations.md).
    pub fn pretrained() -> Self {
        let Self { network, network_optimizer, .. } = Self::best();
        Self {
            epochs: 16,
            network: NetworkConfig {
                dropout: 0.0,
                input: Some(112),
                freeze: 2,
                moments: Moments::Stored,
                feature: Feature::Posterior { tanh: 0.01, temperature: 2.0 },
                // Epochs of 64×64 pixels take a third of the time of 112×112.
                first_input: Some(FirstInput { side: 64, share: 0.75 }),
                ..network
            },
            // [`TrainConfig::fine_tuned`] leaves a tenth of it to the body.
            network_optimizer: OptimizerConfig { rate: 3e-3, ..network_optimizer },
            ..Self::best()
        }
    }

    /// The method of the authors' code, on this network.
    ///
    /// It assigns by cosine, starts codebooks from N(0, 0.01²) and has no γ. The quantization
    /// losses never reach the network. Half of the epochs train features alone, the other half
    /// features and codebooks by turns.
    pub fn authors_code() -> Self {
        Self {
            // Reference code: batch 256, 64 epochs.
            epochs: 64,
            batch_size: 256,
            mirror_average: false,
            schedule: Schedule::Alternating { features_first: 0.5 },
            network: NetworkConfig { body: small(StageOrder::ConvNormReluPool), ..Self::best().network },
            quantizer: QuantizerConfig {
                assignment: Assignment::Cosine,
                // Softmax of raw cosines.
                softness: 1.0,
                start: Start::Random,
                ..Self::best().quantizer
            },
            // Reference code: the margin sum runs over other true labels too.
            loss: LossConfig { margins: Margins::All, ..released_flags() },
            network_optimizer: OptimizerConfig {
                method: Method::Sgd { momentum: 0.9 },
                rate_schedule: RateSchedule::Exponential { factor: 0.9, every: 10_000 },
                // Reference code: a rate of 1e-4 to 1e-3 for a pretrained network, and 10 and 20
                // times that for new heads. A network from scratch needs a higher rate, and its
                // body is new too.
                ..adam(0.1)
            },
            codebook_optimizer: adam(1e-4),
            // Reference code: random crop and mirror.
            augment: AugmentConfig { padding: 2, mirror: true, ..AugmentConfig::default() },
            ..Self::best()
        }
    }

    /// The method of the paper, on this network: one end-to-end run, nearest codewords, soft
    /// assignment by distance.
    ///
    /// The paper does not print γ, the learning rates, the batch size or the initial codebooks.
    /// Here γ = 1 and the optimiser is that of `best` at twice the rate. Held-out training images
    /// chose the rest (docs/deviations.md).
    pub fn paper() -> Self {
        Self {
            epochs: 32,
            // The authors' code has 256. Features are better with 64.
            batch_size: 64,
            mirror_average: false,
            // Codebooks that start while features still move far lose nearly all their codewords.
            schedule: Schedule::Joint { features_first: 0.5 },
            loss: released_flags(),
            network_optimizer: OptimizerConfig { rate: 2e-3, ..Self::best().network_optimizer },
            augment: AugmentConfig { cutout: 0, cutout_probability: 0.0, ..Self::best().augment },
            ..Self::best()
        }
    }

    /// `best` with fewer epochs: a rough model within two minutes, for trying things out.
    pub fn quick() -> Self {
        Self { epochs: 12, ..Self::best() }
    }

    /// Nested codes of keys from pairs of a query and a key, after MoPQ (docs/deviations.md).
    ///
    /// Linear maps of queries and keys learn first. Refined residual k-means on the keys then
    /// starts the codebooks, which learn to match queries at every length in a few epochs: more of
    /// them fit the pairs of the training alone. Validation rows of a set of sentence embeddings
    /// chose the numbers (docs/family.md).
    pub fn mopq() -> Self {
        Self {
            epochs: 10,
            // Authors' code: 500 pairs per device.
            batch_size: 500,
            mirror_average: false,
            schedule: Schedule::Joint { features_first: 0.8 },
            network: NetworkConfig {
                dropout: 0.0,
                feature: Feature::Linear,
                body: Body::Features,
                ..Self::best().network
            },
            objective: Objective::Mopq(MopqConfig {
                temperature: 0.05,
                keys: 1.0,
                reconstruction: 0.0,
                workers: 1,
            }),
            quantizer: QuantizerConfig { levels: 16, beam: 5, refine: 10, ..Self::best().quantizer },
            network_optimizer: OptimizerConfig {
                rate_schedule: RateSchedule::WarmupCosine { warmup: 0.0 },
                ..adam(3e-4)
            },
            codebook_optimizer: adam(1.5e-4),
            augment: AugmentConfig::default(),
            ..Self::best()
        }
    }

    /// Nested codes without labels, after MeCoQ (docs/deviations.md): one training serves all
    /// lengths.
    pub fn mecoq() -> Self {
        Self {
            schedule: Schedule::Joint { features_first: 0.5 },
            quantizer: QuantizerConfig {
                levels: 8,
                // Softer codes rank worse on held-out images (docs/deviations.md).
                softness: 40.0,
                ..Self::best().quantizer
            },
            ..Self::mecoq_product()
        }
    }

    /// Product codes without labels: MeCoQ as it was published (docs/deviations.md).
    pub fn mecoq_product() -> Self {
        Self {
            // Authors' code, for 5,000 images of CIFAR-10: epochs, batch, and all of the objective.
            epochs: 50,
            batch_size: 128,
            mirror_average: false,
            schedule: Schedule::Joint { features_first: 0.0 },
            network: NetworkConfig { dropout: 0.0, dim: 64, feature: Feature::Unit, ..Self::best().network },
            objective: Objective::Mecoq(MecoqConfig {
                temperature: 0.35,
                positives: 0.1,
                entropy: 0.1,
                diversity: 0.5,
                memory: 384,
                memory_after: 0.3,
            }),
            quantizer: QuantizerConfig {
                form: Form::Product,
                // Authors' code: 10 · cos, and codewords at length 1 that start in random
                // directions.
                unit_codewords: true,
                assignment: Assignment::Cosine,
                softness: 10.0,
                start: Start::Random,
                ..Self::best().quantizer
            },
            network_optimizer: OptimizerConfig {
                // Authors' code: one of 50 epochs.
                rate_schedule: RateSchedule::WarmupCosine { warmup: 0.02 },
                weight_decay: 0.01,
                ..adam(1e-3)
            },
            codebook_optimizer: OptimizerConfig {
                rate_schedule: RateSchedule::WarmupCosine { warmup: 0.02 },
                ..adam(1e-3)
            },
            augment: AugmentConfig {
                mirror: true,
                view: Some(ViewConfig {
                    // Authors' code. The others are assumed (docs/deviations.md).
                    crop: 0.5,
                    jitter: 0.4,
                    jitter_probability: 0.7,
                    grey: 0.2,
                    blur: 0.5,
                }),
                ..AugmentConfig::default()
            },
            ..Self::best()
        }
    }

    /// Nested codes of images whose classes differ in details, after PHPQ (docs/deviations.md):
    /// several stages of the body are pooled, and the classifier judges features and their soft
    /// approximations.
    ///
    /// The paper's settings are not known to us; every number here is ours.
    pub fn phpq() -> Self {
        Self {
            schedule: Schedule::Joint { features_first: 0.5 },
            network: NetworkConfig {
                feature: Feature::Classified,
                pyramid: Some(Pyramid { stages: 3, pooling: Pooling::Both }),
                ..Self::best().network
            },
            quantizer: QuantizerConfig { attention: Some(20), ..Self::best().quantizer },
            loss: LossConfig {
                margin: 0.0,
                classification: 1.0,
                prefix_classification: 1.0,
                joint_center: 0.0,
                ..released_flags()
            },
            ..Self::best()
        }
    }

    /// `phpq` with product codebooks, the form in which it was published.
    pub fn phpq_product() -> Self {
        let phpq = Self::phpq();
        Self { quantizer: QuantizerConfig { form: Form::Product, ..phpq.quantizer }, ..phpq }
    }

    /// Adapts a preset to pretrained weights and images of `input`×`input`: the body has a lower
    /// learning rate than the heads, and crops fit the larger images.
    #[must_use]
    pub fn fine_tuned(self, input: usize) -> Self {
        let rate = match self.network_optimizer.method {
            // Reference code: 1e-4, and 1e-3 on CIFAR.
            Method::Sgd { .. } => 1e-4,
            Method::AdamW { .. } => self.network_optimizer.rate / 10.0,
        };
        Self {
            // Reference code: the rate of new heads is 10 (weights) and 20 (biases) times that of
            // the body.
            network_optimizer: OptimizerConfig {
                rate,
                head_weights: 10.0,
                head_biases: 20.0,
                ..self.network_optimizer
            },
            network: NetworkConfig {
                input: Some(input),
                first_input: self.network.first_input.filter(|first| first.side < input),
                ..self.network
            },
            // Reference code: 227×227 pixels anywhere in 256×256, so at most 14 pixels from the
            // middle.
            augment: AugmentConfig {
                // A view crops by itself.
                padding: if self.augment.view.is_some() { 0 } else { input / 16 },
                cutout: 0,
                cutout_probability: 0.0,
                ..self.augment
            },
            ..self
        }
    }
}

/// A network that trains in a few seconds per epoch on 28×28 images.
fn small(order: StageOrder) -> Body {
    Body::Small { channels: vec![32, 64, 128], pools: 3, order, hidden: 512 }
}

/// The loss weights of the authors' released flags (λ 0.1, τ 1, μ 1, ν 0.1). Their distortions are
/// means over the 300 dimensions of a feature. Ours are sums, so τ is a 300th: with τ = 1 the
/// features of an end-to-end run collapse.
fn released_flags() -> LossConfig {
    LossConfig {
        margin: 1.0,
        margins: Margins::Negatives,
        classification: 0.1,
        quantization: 1.0 / 300.0,
        soft: 1.0,
        hard: 1.0,
        joint_center: 0.1,
        commitment: 1.0,
        prefix_margin: 0.0,
        prefix_classification: 0.0,
    }
}

/// Adam with its usual constants (Kingma and Ba 2015); the authors' code keeps them.
fn adam(rate: f64) -> OptimizerConfig {
    OptimizerConfig {
        method: Method::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 },
        rate,
        rate_schedule: RateSchedule::Constant,
        weight_decay: 0.0,
        head_weights: 1.0,
        head_biases: 1.0,
    }
}
