//! Variants of a preset, which show the effect of each of its parts.

use dpq_report::POSTERIOR;

/// A preset with one change.
pub(super) struct Variant {
    /// The name of the row in the report.
    pub(super) name: &'static str,
    /// The folder of its stages.
    pub(super) slug: &'static str,
    pub(super) change: Change,
}

pub(super) enum Change {
    /// Lines of `dpq train --set` for a training of its own.
    Train(&'static [&'static str]),
    /// Options of `dpq features` for other features by the preset's trainings, with codebooks
    /// fitted to them.
    Features(&'static str),
}
use Change::{Features, Train};

/// The first row of Table 2, by the start of the backbone. The paper's is pretrained.
const FROZEN_RANDOM: Variant =
    variant("E: frozen random backbone", "frozen-random", Train(&["network.backbone=\"frozen\""]));
const FROZEN_PRETRAINED: Variant =
    Variant { name: "E: frozen pretrained backbone", slug: "frozen-pretrained", ..FROZEN_RANDOM };

const fn variant(name: &'static str, slug: &'static str, change: Change) -> Variant {
    Variant { name, slug, change }
}

/// The other rows of Table 2, in the order of the paper.
const TABLE_2: [Variant; 4] = [
    variant("without L_C", "no-classification", Train(&["loss.classification=0.0"])),
    variant("without L_S", "no-margin", Train(&["loss.margin=0.0"])),
    variant("Two-Step", "two-step", Train(&["schedule=\"two-step\""])),
    variant("No-Soft", "no-soft", Train(&["loss.soft=0.0", "loss.joint_center=0.0"])),
];

/// One training per length. The preset itself has four levels.
const ONE_LENGTH: [Variant; 3] = [
    variant("1 level", "1-level", Train(&["quantizer.levels=1"])),
    variant("2 levels", "2-levels", Train(&["quantizer.levels=2"])),
    variant("3 levels", "3-levels", Train(&["quantizer.levels=3"])),
];

/// `best` without each of its ingredients.
const INGREDIENTS: [Variant; 3] = [
    variant("no cutout", "no-cutout", Train(&["augment.cutout=0", "augment.cutout_probability=0.0"])),
    variant("32 epochs", "32-epochs", Train(&["epochs=32"])),
    variant("λ = 0.1", "lambda-01", Train(&["loss.classification=0.1"])),
];

/// `pretrained` with the features of the paper, and trained end to end.
const PRETRAINED: [Variant; 2] = [
    variant("x = tanh(W f + w)", "tanh", Train(&["network.feature=\"tanh\""])),
    variant(
        "Joint",
        "joint",
        Train(&[
            "schedule.joint.features_first=0.5",
            "loss.commitment=0.0",
            "loss.quantization=1.0",
            "loss.soft=0.0",
            "loss.joint_center=0.0",
            "codebook_optimizer.rate_schedule.warmup-cosine.warmup=0.1",
        ]),
    ),
];

/// Other features by the trainings of `best`, which need no training.
const FEATURES: [Variant; 2] = [
    variant("no mirror averaging", "no-mirror-average", Features("--mirror-average false")),
    // The temperature was chosen on held-out training images (docs/deviations.md).
    variant(POSTERIOR, "posterior", Features("--posterior=1.5")),
];

/// Returns the variants of a preset whose body starts from random or `pretrained` weights. Variants
/// that need trainings are included if `ablations`.
pub(super) fn variants(preset: &str, ablations: bool, pretrained: bool) -> Vec<&'static Variant> {
    let frozen = if pretrained { &FROZEN_PRETRAINED } else { &FROZEN_RANDOM };
    match (preset, ablations) {
        ("paper", true) => [frozen].into_iter().chain(&TABLE_2).chain(&ONE_LENGTH).collect(),
        ("best", true) => FEATURES.iter().chain(&INGREDIENTS).collect(),
        ("best", false) => FEATURES.iter().collect(),
        ("pretrained", true) => PRETRAINED.iter().collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn variants_have_folders_of_their_own_and_words_without_spaces() {
        for preset in ["paper", "best", "pretrained"] {
            let variants = variants(preset, true, false);
            let slugs: BTreeSet<&str> = variants.iter().map(|variant| variant.slug).collect();
            assert_eq!(slugs.len(), variants.len());
            for variant in variants {
                if let Train(lines) = variant.change {
                    assert!(lines.iter().all(|line| line.contains('=') && !line.contains(' ')), "{lines:?}");
                }
            }
        }
        assert!(variants("best", false, false).iter().all(|variant| matches!(variant.change, Features(_))));
        assert!(variants("quick", true, true).is_empty());
    }
}
