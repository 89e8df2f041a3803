//! The configuration of a training run, as plain data.

use dpq_codebook::{Assignment, Form};
use serde::{Deserialize, Serialize};

use crate::Error;
pub use network::{
    Alexnet, Backbone, Block, Body, Feature, FirstInput, Moments, NetworkConfig, Pooling, Pyramid, StageOrder,
};

pub use objective::{MecoqConfig, MopqConfig, Objective};
pub use optimizer::{Method, OptimizerConfig, RateSchedule};

use network::is_default;

mod network;
mod objective;
mod optimizer;
mod presets;

/// Everything that decides a training run, apart from the data. [`TrainConfig::PRESETS`] lists the
/// presets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Seeds every random choice.
    pub seed: u64,
    /// Passes over the training set.
    pub epochs: usize,
    /// Maximum number of images per step. An epoch is cut into steps of nearly equal size.
    pub batch_size: usize,
    /// Averages features and logits over an image and its mirror image. Doubles the time of
    /// encoding.
    pub mirror_average: bool,
    /// When the network and the codebooks are trained.
    pub schedule: Schedule,
    /// The network.
    pub network: NetworkConfig,
    /// The codebooks.
    pub quantizer: QuantizerConfig,
    /// The loss that training minimises.
    #[serde(default, skip_serializing_if = "is_default")]
    pub objective: Objective,
    /// The weights of the losses of [`Objective::Dpq`].
    pub loss: LossConfig,
    /// The optimiser of the network.
    pub network_optimizer: OptimizerConfig,
    /// The optimiser of the codebooks, used by schedules that train codebooks by gradients.
    pub codebook_optimizer: OptimizerConfig,
    /// Augmentation of training images. The caller applies it, see [`crate::TrainSet`].
    pub augment: AugmentConfig,
    /// Validation on held-out training images. The caller does this too.
    pub validation: ValidationConfig,
}

/// When the network and the codebooks are trained, and which losses reach them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// End to end, as in the paper: every loss reaches the network and the codebooks.
    Joint {
        /// Share of epochs that train the network alone, before codebooks start. In [0, 1).
        features_first: f64,
    },
    /// As in the authors' code: the quantization losses reach only the codebooks. Once codebooks
    /// have started, each batch takes a step for the network, then a step for the codebooks.
    Alternating {
        /// Share of epochs that train the network alone. In [0, 1).
        features_first: f64,
    },
    /// The network first. Then residual k-means fits the codebooks to the final features.
    TwoStep,
}

/// The codebooks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantizerConfig {
    /// Whether a level covers all dimensions (progressive) or its part of them (product).
    #[serde(default, skip_serializing_if = "is_default")]
    pub form: Form,
    /// Number of levels, L. A code has one byte per level.
    pub levels: usize,
    /// Codewords per level, K, at most 256.
    pub codewords: usize,
    /// Whether levels share codewords.
    pub codebooks: Sharing,
    /// Scales each codeword of product codebooks to norm 1, with the gradient of that.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unit_codewords: bool,
    /// How a level chooses a codeword.
    pub assignment: Assignment,
    /// Softness γ: soft assignment weights codeword k by exp(−γ‖r − c_k‖²), or by exp(γ cos(r,
    /// c_k)).
    pub softness: f64,
    /// The number of codewords that take part in the soft assignment of an item: those that fit
    /// best. `None` for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention: Option<usize>,
    /// Initial values of the codebooks.
    pub start: Start,
    /// Maximum number of iterations of k-means per level.
    pub kmeans_iterations: usize,
    /// Codes that a beam search keeps per level, when residual k-means fits codebooks and when
    /// [`Model::encode`](crate::Model::encode) encodes; 1 is greedy.
    #[serde(default = "greedy", skip_serializing_if = "is_greedy")]
    pub beam: usize,
    /// Maximum number of rounds that refine all levels together after residual k-means.
    #[serde(default, skip_serializing_if = "is_default")]
    pub refine: usize,
    /// Moves codewords that no image of an epoch uses to features of that epoch. The last epoch
    /// moves none. Residual k-means always does this.
    pub revive: bool,
}

/// Whether levels share codewords.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// Each level has its own K codewords (Deep Progressive Quantization).
    Separate,
    /// All levels share K codewords, times a learnt scale per level. The first scale is 1 (Deep
    /// Recurrent Quantization).
    Shared,
}

/// Initial values of codebooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// Normally distributed numbers of standard deviation 0.01, as in the authors' code.
    Random,
    /// Residual k-means on the current features, or k-means on each part of them.
    ResidualKmeans,
}

/// The weights of L = margin · L_S + λ · L_C + τ · (soft · L_soft + μ · L_hard + ν · L_match) +
/// prefix_margin · mean_l L_S(x̂^l) + prefix_classification · mean_l L_C(x̂^l). A weight of 0
/// removes its term.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossConfig {
    /// Weight of the adaptive margin loss, L_S.
    pub margin: f64,
    /// The classes that the margin loss compares with a label.
    pub margins: Margins,
    /// λ, weight of the classification loss, L_C.
    pub classification: f64,
    /// τ, weight of the three quantization losses.
    pub quantization: f64,
    /// Weight of the soft distortion, L_soft; 1 in the paper.
    pub soft: f64,
    /// μ, weight of the hard distortion, L_hard.
    pub hard: f64,
    /// ν, weight of the joint centre, L_match.
    pub joint_center: f64,
    /// Share of the gradient of the quantization losses that reaches the features; 1 in the paper,
    /// 0 for none. Between them it is the commitment weight of van den Oord et al. (2017).
    #[serde(default = "full", skip_serializing_if = "is_full")]
    pub commitment: f64,
    /// Weight of the margin loss of the approximations by 1 to L levels, averaged over the levels.
    /// Its gradient passes straight through the choice of codewords to the features, and reaches
    /// the chosen codewords; 0 in the paper.
    #[serde(default, skip_serializing_if = "is_default")]
    pub prefix_margin: f64,
    /// Weight of the classification loss of the soft approximations by 1 to L levels, averaged over
    /// the levels. Needs [`Feature::Classified`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub prefix_classification: f64,
}

fn greedy() -> usize {
    1
}

fn is_greedy(beam: &usize) -> bool {
    *beam == greedy()
}

fn full() -> f64 {
    1.0
}

fn is_full(share: &f64) -> bool {
    *share == full()
}

/// Which classes j the margin loss compares with a label i of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Margins {
    /// Classes that the item does not have, as in the paper.
    Negatives,
    /// All classes, other labels of the item included, as in the authors' code. The same as
    /// `Negatives` with one label per item.
    All,
}

/// Augmentation of training images, see `Augment` and `View` of the data crate. None by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AugmentConfig {
    /// Pixels added on each side before a random crop to the original size; 0 for no crop.
    pub padding: usize,
    /// Mirrors half of the images.
    pub mirror: bool,
    /// Side of the blanked square in pixels; 0 for none.
    pub cutout: usize,
    /// Share of images with a blanked square.
    pub cutout_probability: f32,
    /// Random crops and colours on top.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<ViewConfig>,
}

/// A random view of an image. All numbers are from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ViewConfig {
    /// Minimum share of the area that a crop keeps; 1 for no crop.
    pub crop: f32,
    /// Maximum change of brightness, contrast and saturation.
    pub jitter: f32,
    /// Share of views with such changes.
    pub jitter_probability: f32,
    /// Share of gray views.
    pub grey: f32,
    /// Share of blurred views.
    pub blur: f32,
}

/// Validation on held-out training images. It does not change the model, which is always that of
/// the last epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationConfig {
    /// Number of held-out images, drawn at random; 0 for none.
    pub images: usize,
    /// Epochs from one validation to the next. The last epoch is always validated.
    pub every: usize,
}

impl TrainConfig {
    /// Returns the shape of training images in an epoch, given that of images afterwards.
    pub(crate) fn shape_in(&self, epoch: usize, [channels, height, width]: [usize; 3]) -> [usize; 3] {
        match self.network.first_input {
            Some(FirstInput { side, share }) if epoch < (share * self.epochs as f64) as usize => {
                [channels, side, side]
            }
            _ => [channels, height, width],
        }
    }

    /// Returns the number of equal parts of a feature that each have length 1 if the feature is
    /// [`Feature::Unit`].
    pub(crate) fn unit_parts(&self) -> usize {
        match self.quantizer.form {
            Form::Progressive => 1,
            Form::Product => self.quantizer.levels,
        }
    }

    /// Returns an error for a configuration that cannot be trained.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let share = |x: f64| (0.0..1.0).contains(&x);
        let at_least_0 = |x: f64| (0.0..f64::INFINITY).contains(&x);
        let above_0 = |x: f64| x > 0.0 && x.is_finite();
        let (network, quantizer, loss) = (&self.network, &self.quantizer, &self.loss);
        let features_first = match self.schedule {
            Schedule::Joint { features_first } | Schedule::Alternating { features_first } => features_first,
            Schedule::TwoStep => 0.0,
        };
        let [prefix, commitment] = [loss.prefix_margin, loss.commitment];
        let weights =
            [loss.margin, loss.classification, loss.quantization, prefix, loss.prefix_classification];
        let quantization = [loss.soft, loss.hard, loss.joint_center];
        let teaches = loss.margin > 0.0 || loss.classification > 0.0;
        let quantizes = self.schedule == Schedule::TwoStep
            || loss.quantization > 0.0 && quantization.iter().any(|&w| w > 0.0);
        let learns_classes = self.objective.needs_labels();
        let (teaches, quantizes) = (teaches || !learns_classes, quantizes || !learns_classes);
        let fits_schedule = learns_classes || !matches!(self.schedule, Schedule::Alternating { .. });
        let fits_feature = match self.objective {
            Objective::Dpq => network.feature.has_classifier(),
            Objective::Mopq(_) => network.feature == Feature::Linear,
            Objective::Mecoq(_) => network.feature == Feature::Unit,
        };
        let one_start = self.schedule != Schedule::TwoStep || quantizer.start == Start::ResidualKmeans;
        let one_fit = self.schedule != Schedule::TwoStep || quantizer.codebooks == Sharing::Separate;
        let is_product = quantizer.form == Form::Product;
        let unit_fit = self.schedule != Schedule::TwoStep && is_product || !quantizer.unit_codewords;
        let is_greedy = quantizer.beam == 1 && quantizer.refine == 0;
        let fits_beam = is_greedy
            || quantizer.assignment == Assignment::Euclidean
                && quantizer.codebooks == Sharing::Separate
                && !is_product;
        let mirrors_features = self.mirror_average && network.body == Body::Features;
        let cutout = self.augment.cutout_probability;
        let fits_view = self.augment.view.is_none_or(|view| {
            let ViewConfig { crop, jitter, jitter_probability, grey, blur } = view;
            let shares = [crop, jitter, jitter_probability, grey, blur];
            crop > 0.0 && shares.iter().all(|x| (0.0..=1.0).contains(x))
        });
        let checks = [
            (self.epochs >= 1, "epochs", "at least 1"),
            (self.batch_size >= 2, "batch_size", "at least 2, for batch normalisation"),
            (share(features_first), "schedule.features_first", "a share in [0, 1)"),
            (!mirrors_features, "mirror_average", "false for stored features"),
            ((1..=255).contains(&quantizer.levels), "quantizer.levels", "1 to 255"),
            ((1..=256).contains(&quantizer.codewords), "quantizer.codewords", "1 to 256"),
            (
                !is_product || network.dim.is_multiple_of(quantizer.levels),
                "quantizer.levels",
                "a divisor of `network.dim` for product codebooks",
            ),
            (
                !is_product || quantizer.codebooks == Sharing::Separate,
                "quantizer.codebooks",
                "`separate` for product codebooks",
            ),
            (
                unit_fit,
                "quantizer.unit_codewords",
                "false for two-step training, and unless codebooks are product codebooks",
            ),
            (
                quantizer.attention.is_none_or(|t| (1..=quantizer.codewords).contains(&t)),
                "quantizer.attention",
                "1 to `quantizer.codewords`",
            ),
            (above_0(quantizer.softness), "quantizer.softness", "a finite number above 0"),
            (quantizer.kmeans_iterations >= 1, "quantizer.kmeans_iterations", "at least 1"),
            ((1..=256).contains(&quantizer.beam), "quantizer.beam", "1 to 256"),
            (
                fits_beam || quantizer.beam == 1,
                "quantizer.beam",
                "1 unless codebooks are progressive, separate and Euclidean",
            ),
            (fits_beam, "quantizer.refine", "0 unless codebooks are progressive, separate and Euclidean"),
            (one_start, "quantizer.start", "`residual-kmeans` for two-step training"),
            (one_fit, "quantizer.codebooks", "`separate` for two-step training"),
            (
                weights.iter().chain(&quantization).all(|&w| at_least_0(w)),
                "loss",
                "finite weights of at least 0",
            ),
            (
                loss.prefix_classification == 0.0 || network.feature == Feature::Classified,
                "loss.prefix_classification",
                "0, unless `network.feature` is `classified`",
            ),
            ((0.0..=1.0).contains(&commitment), "loss.commitment", "a share in [0, 1]"),
            (teaches, "loss", "`margin` or `classification` above 0, to learn labels"),
            (quantizes, "loss", "a quantization loss above 0, to learn codewords"),
            (fits_schedule, "schedule", "`joint` or `two-step` for the objectives `mopq` and `mecoq`"),
            (
                fits_feature,
                "network.feature",
                "`linear` for the objective `mopq`, `unit` for `mecoq`, and another for `dpq`",
            ),
            ((0.0..=1.0).contains(&cutout), "augment.cutout_probability", "a share in [0, 1]"),
            (fits_view, "augment.view", "shares in [0, 1] and a `crop` above 0"),
            (self.validation.images != 1, "validation.images", "0 or at least 2, which rank each other"),
            (self.validation.every >= 1, "validation.every", "at least 1"),
        ];
        check_all(&checks)?;
        self.objective.check()?;
        network.check()?;
        self.network_optimizer.check("network_optimizer")?;
        self.codebook_optimizer.check("codebook_optimizer")
    }
}

/// Returns an error for the first check that does not hold.
fn check_all(checks: &[(bool, &'static str, &'static str)]) -> Result<(), Error> {
    match checks.iter().find(|(holds, ..)| !holds) {
        Some(&(_, key, expected)) => Err(Error::Config { key, expected }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
