//! The paper's tables: its numbers beside ours, and the effect of each part of a preset.

use crate::document::Block;
use crate::results::{ByBits, Items, MeanSd, Results, UnseenResults, VariantResults};
use crate::table::{Table, line};
use crate::words::{lengths, network, preset, signed, spread};

/// The name of the variant whose features are class posteriors. Its row has a caveat.
pub const POSTERIOR: &str = "class posterior as the feature";

/// The row of the classifier's probabilities, ranked and quantized as they are.
pub const CLASS_POSTERIOR: &str = "class posterior";

/// A method's mAP at 8, 16, 24 and 32 bits, as printed, on CIFAR-10 (mAP@all) and NUS-WIDE
/// (mAP@5000).
type PaperRow = (&'static str, [&'static str; 4], [&'static str; 4]);

/// Table 1 of the paper. [`MARKS`] states the source of each row.
const TABLE_1: [PaperRow; 10] = [
    ("ITQ-CCA (R)", [".315*", ".354*", ".371*", ".414*"], [".526*", ".575", ".572", ".594"]),
    ("KSH (R)", [".489", ".524", ".534", ".558"], [".618", ".651", ".672", ".682"]),
    ("SDH (R)", [".356", ".461", ".496", ".520"], [".645", ".688", ".704", ".711"]),
    ("SQ (R)", [".567", ".583", ".602", ".615"], [".653", ".691", ".698", ".716"]),
    ("CNNH (R)", [".461", ".476", ".476", ".472"], [".586", ".609", ".628", ".635"]),
    ("DNNH (R)", [".525", ".559", ".566", ".558"], [".638", ".652", ".667", ".687"]),
    ("DHN (R)", [".512", ".568", ".594", ".603"], [".668", ".702", ".713", ".716"]),
    ("DSH (R)", [".592", ".625", ".651", ".659"], [".653", ".688", ".695", ".699"]),
    ("DVSQ (R)", [".715", ".727", ".730", ".733"], [".780", ".790", ".792", ".797"]),
    ("DPQ (V)", [".814", ".833", ".834", ".831"], [".786", ".821", ".832", ".834"]),
];

const MARKS: &str = "The paper's rows: (R) quoted from memory from the paper on DVSQ; numbers with * were read in a text \
    by the authors; (V) derived with high confidence: the row of DVSQ plus the gains that the paper prints.";

/// The sizes of the paper's protocols, in the order of the columns.
const PROTOCOLS: [Items; 2] = [
    Items { train: 5000, query: 1000, gallery: 54_000 },
    Items { train: 10_000, query: 5000, gallery: 190_834 },
];

const FROM_RANDOM: &str = " The paper fine-tunes a pretrained AlexNet. Ours starts from random weights, which explains a part of the gap.";

/// mAP of codes and of features.
type Maps<'a> = (&'a ByBits<MeanSd>, &'a MeanSd);

/// Returns the name of the mAP that the paper reports on a data set, and a function that finds it
/// for codes and features.
fn judged(results: &Results) -> (&'static str, fn(&VariantResults) -> Maps<'_>) {
    match results.about.dataset.as_str() {
        "nus-wide-21" | "imagenet-100" => ("mAP@5000", |of| (&of.map_at_5000, &of.feature_map_at_5000)),
        _ => ("mAP@all", |of| (&of.map_all, &of.feature_map_all)),
    }
}

/// Returns the tables that apply to these results.
pub(crate) fn blocks(results: &Results) -> Vec<Block> {
    let whole = whole(results);
    let mut blocks: Vec<Block> = table_1(results, &whole)
        .into_iter()
        .flat_map(|table| [Block::Heading("Beside the paper".into()), table])
        .collect();
    if let Some(table) = other_codes(results) {
        blocks.push(Block::Heading(OTHER_CODES.into()));
        blocks.push(Block::Table(table, BASELINES.to_owned()));
    }
    if let Some(unseen) = &results.unseen {
        blocks.push(Block::Heading("Classes that were not trained".into()));
        blocks.push(unseen_classes(results, unseen));
    }
    let (changes, lengths): (Vec<&VariantResults>, Vec<_>) =
        results.variants.iter().partition(|variant| variant.map_all.len() == results.map_all.len());
    if !changes.is_empty() {
        let heading = if results.about.preset == "paper" {
            "Table 2: parts removed"
        } else {
            "The effect of each part"
        };
        blocks.push(Block::Heading(heading.into()));
        blocks.push(Block::Table(changed(results, &whole, &changes), changed_caption(results, &changes)));
        blocks.push(Block::Table(differences(results, &whole, &changes), differences_caption(results)));
        if changes.iter().any(|variant| variant.name == POSTERIOR) {
            let several = if results.is_multi_label() { SEVERAL_LABELS } else { "" };
            blocks.push(Block::Text(format!("{CAVEAT}{several}")));
        }
    }
    if !lengths.is_empty() {
        blocks.push(Block::Heading("One model against one model per length".into()));
        blocks.push(one_against_four(results, &whole, &lengths));
    }
    blocks
}

fn whole(results: &Results) -> VariantResults {
    let name = match results.about.preset.as_str() {
        "paper" => "DPQ, whole".to_owned(),
        preset => format!("{preset}, whole"),
    };
    VariantResults::of_trainings(&name, "", results.clone())
}

pub(crate) const OTHER_CODES: &str = "Other codes of the same features";

/// Returns the table of [`OTHER_CODES`], if they were measured.
pub(crate) fn other_codes(results: &Results) -> Option<Table> {
    let rows: Vec<&VariantResults> = results.baselines.iter().collect();
    let compared = || compared(results, &whole(results), &rows);
    (!rows.is_empty()).then(|| Table::new(judged(results).0, columns(results), compared()))
}

const CAVEAT: &str = "The class posterior as the feature is x = W·softmax(logits / T), with W fixed orthogonal unit vectors \
    and T the number after `--posterior` (default 1). It is the classifier in a form that can be indexed. It does not rank \
    within a class, cannot represent classes that were not trained, and is not part of the paper's method. It is shown for \
    comparison, not as a replacement of the feature.";

const SEVERAL_LABELS: &str = " Items of this data set have several labels, and each logit is trained by a sigmoid, so the \
    softmax of the logits is not a posterior.";

fn table_1(results: &Results, whole: &VariantResults) -> Option<Block> {
    let column = match results.about.dataset.as_str() {
        "cifar-10" => 0,
        "nus-wide-21" => 1,
        "imagenet-100" => {
            return Some(Block::Text("The paper's row for ImageNet is not known here.".to_owned()));
        }
        _ => return None,
    };
    let (rule, judged) = judged(results);
    let (ours, _) = judged(whole);
    let theirs = |row: &PaperRow| if column == 0 { row.1 } else { row.2 };
    let mut rows: Vec<Vec<String>> = TABLE_1.iter().map(|row| line(row.0, theirs(row))).collect();
    rows.push(line(
        &format!("ours, preset {}", preset(&results.about)),
        ours.values().map(|map| spread(results, map)),
    ));
    let dpq = theirs(&TABLE_1[TABLE_1.len() - 1]).map(|map| map.parse::<f64>().unwrap_or(f64::NAN));
    rows.push(line("ours against DPQ", ours.values().zip(dpq).map(|(map, paper)| signed(map[0] - paper))));
    let mut caption = MARKS.to_owned();
    match network(&results.about) {
        _ if results.about.weights.is_none() => caption += FROM_RANDOM,
        Some(ours) => caption += &format!(" The paper fine-tunes AlexNet on 227×227 pixels, ours {ours}."),
        None => {}
    }
    let (paper, here) = (PROTOCOLS[column], results.about.items);
    if paper != here {
        caption += &format!(
            " The paper's protocol has {} training images, {} queries and {} images in the gallery; here they are {}, {} \
             and {}.",
            paper.train, paper.query, paper.gallery, here.train, here.query, here.gallery
        );
    }
    Some(Block::Table(Table::new(rule, lengths(results), rows), caption))
}

fn changed(results: &Results, whole: &VariantResults, variants: &[&VariantResults]) -> Table {
    let seconds = variants
        .iter()
        .chain([&whole])
        .map(|variant| variant.train_seconds.map_or(String::new(), |[mean, _]| format!("{mean:.0} s")));
    let rows = compared(results, whole, variants).into_iter().zip(seconds).map(|(mut row, seconds)| {
        row.push(seconds);
        row
    });
    Table::new(judged(results).0, columns(results).chain(["training".to_owned()]), rows)
}

/// Returns mAP of variants and of the whole, by codes and by features.
fn compared<'a>(
    results: &Results,
    whole: &'a VariantResults,
    variants: &[&'a VariantResults],
) -> Vec<Vec<String>> {
    let (_, judged) = judged(results);
    let row = |variant: &&VariantResults| {
        let (maps, features) = judged(variant);
        line(&variant.name, maps.values().chain([features]).map(|map| spread(results, map)))
    };
    variants.iter().chain([&whole]).map(row).collect()
}

fn columns(results: &Results) -> impl Iterator<Item = String> {
    lengths(results).chain(["unquantised".to_owned()])
}

fn unseen_classes(results: &Results, unseen: &UnseenResults) -> Block {
    let (rule, judged) = judged(results);
    let row = |variant: &VariantResults| {
        let (maps, features) = judged(variant);
        line(&variant.name, maps.values().chain([features]).map(|[mean, sd]| format!("{mean:.4} ± {sd:.4}")))
    };
    let caption = format!(
        "Queries and gallery are images of {} classes that have no training image. Mean and standard deviation over {} \
         splits, each with other such classes and seed 1.",
        unseen.classes, unseen.splits
    );
    Block::Table(Table::new(rule, columns(results), unseen.rows.iter().map(row)), caption)
}

const BASELINES: &str = "All codebooks are fitted to the training images. Product quantization has codebooks of its own for \
    each length, its optimized form (OPQ) also a rotation. The class posterior p(c|image) ranks by the sum of \
    p(c|query)·p(c|item) over the trained classes, after Sablayrolles and others, How should we evaluate supervised \
    hashing?, 2017; its codes are residual k-means of the probabilities.";

const NO_MARGIN: &str = " Without L_S, only the weak quantization losses train the feature's head, so that row shows a \
    nearly untrained projection.";

fn changed_caption(results: &Results, variants: &[&VariantResults]) -> String {
    let changes: Vec<String> =
        variants.iter().map(|variant| format!("{}: `{}`", variant.name, variant.change)).collect();
    let table_2 = "The rows follow the paper's Table 2, whose numbers are not known here. ";
    let random = "The paper's frozen backbone is pretrained; this one is random. ";
    let of_the_paper = results.about.preset == "paper";
    format!(
        "{}{}Each row changes one thing in the preset ({}).{}",
        if of_the_paper { table_2 } else { "" },
        if of_the_paper && results.about.weights.is_none() { random } else { "" },
        changes.join("; "),
        if variants.iter().any(|variant| variant.name == "without L_S") { NO_MARGIN } else { "" }
    )
}

/// Returns the difference between each change and the whole, marked if it exceeds noise.
fn differences(results: &Results, whole: &VariantResults, variants: &[&VariantResults]) -> Table {
    let cell = |[mean, sd]: &MeanSd, [whole, whole_sd]: &MeanSd| {
        let standard_error = ((sd * sd + whole_sd * whole_sd) / results.seeds as f64).sqrt();
        let exceeds_noise = results.seeds > 1 && (mean - whole).abs() > 2.0 * standard_error;
        format!("{}{}", signed(mean - whole), if exceeds_noise { " *" } else { "" })
    };
    let (_, judged) = judged(results);
    let (maps, features) = judged(whole);
    let rows = variants.iter().map(|variant| {
        let (of, of_features) = judged(variant);
        let pairs = of.values().chain([of_features]).zip(maps.values().chain([features]));
        line(&variant.name, pairs.map(|(map, whole)| cell(map, whole)))
    });
    Table::new("minus the whole", lengths(results).chain(["unquantised".to_owned()]), rows)
}

fn differences_caption(results: &Results) -> String {
    match results.seeds {
        1 => "A single seed does not show how much trainings differ by chance.".to_owned(),
        n => format!(
            "An asterisk marks a difference that exceeds seed noise: more than two standard errors of the difference \
             between two means over {n} seeds."
        ),
    }
}

/// Compares the lengths of one training with one training per length.
fn one_against_four(results: &Results, whole: &VariantResults, variants: &[&VariantResults]) -> Block {
    let (rule, judged) = judged(results);
    let (maps, _) = judged(whole);
    let own = |variant: &&VariantResults| judged(variant).0.last_key_value().map(|(_, map)| *map);
    let longest = maps.values().copied().skip(variants.len());
    let own: Vec<MeanSd> = variants.iter().filter_map(own).chain(longest).collect();
    let seconds: f64 =
        variants.iter().filter_map(|variant| variant.train_seconds).map(|seconds| seconds[0]).sum();
    let row = |name: &str, maps: &mut dyn Iterator<Item = &MeanSd>, seconds: f64| {
        let mut row = line(name, maps.map(|map| spread(results, map)));
        row.push(format!("{seconds:.0} s"));
        row
    };
    let one = results.seconds.train;
    let gaps = maps.values().zip(&own).map(|(one, own)| signed(one[0] - own[0]));
    let rows = vec![
        row("one model", &mut maps.values(), one),
        row("one model per length", &mut own.iter(), one + seconds),
        line("difference", gaps.chain([format!("{:.1} times", (one + seconds) / one)])),
    ];
    let header = lengths(results).chain(["training".to_owned()]);
    let caption = "One model per length means that each model has as many levels as its length has bytes and is \
        evaluated at that length. The model of the longest length is the one model itself. Times are sums over the trainings.";
    Block::Table(Table::new(rule, header, rows), caption.to_owned())
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;
    use serde_json::json;

    use super::*;
    use crate::document::markdown;
    use crate::test_data;

    const TABLE_2: [&str; 8] = [
        "E: frozen random backbone",
        "without L_C",
        "without L_S",
        "Two-Step",
        "No-Soft",
        "1 level",
        "2 levels",
        "3 levels",
    ];

    /// Returns results of a preset in which each variant loses more than the one before.
    fn results(preset: &str, names: &[&str]) -> Results {
        let mut results = test_data::results(3);
        results.about.preset = preset.to_owned();
        for (i, &name) in names.iter().enumerate() {
            let n_lengths = if name.contains("level") { name[..1].parse().unwrap() } else { 4 };
            let less = |map: &MeanSd| [map[0] - 0.001 * i as f64, map[1]];
            let maps = |maps: &ByBits<MeanSd>| {
                maps.iter().take(n_lengths).map(|(&bits, map)| (bits, less(map))).collect()
            };
            results.variants.push(VariantResults {
                name: name.to_owned(),
                change: "--set a=1".to_owned(),
                map_all: maps(&results.map_all),
                map_at_5000: maps(&results.map_at_5000),
                feature_map_all: less(&results.feature_map_all),
                feature_map_at_5000: less(&results.feature_map_at_5000),
                accuracy: None,
                train_seconds: (name != POSTERIOR).then_some([40.0, 0.0]),
                per_seed: Vec::new(),
            });
        }
        results
    }

    #[test]
    fn baselines_and_unseen_classes_have_tables_of_their_own() {
        let mut results = results("best", &["residual k-means", CLASS_POSTERIOR]);
        results.baselines = std::mem::take(&mut results.variants);
        results.unseen = Some(UnseenResults { classes: 3, splits: 5, rows: results.baselines.clone() });
        let text = markdown("Best", &blocks(&results));
        for expected in [
            "## Other codes of the same features",
            "| class posterior  | 0.8537 ± 0.0010",
            "## Classes that were not trained",
            "images of 3 classes that have no training image. Mean and standard deviation over 5 splits",
        ] {
            assert!(text.contains(expected), "{expected} is missing from {text}");
        }
    }

    #[test]
    fn table_2_and_one_model_per_length() {
        let results = results("paper", &TABLE_2);
        expect_file!["test_data/paper.txt"].assert_eq(&markdown("Paper", &blocks(&results)));
    }

    #[test]
    fn ingredients_and_the_posterior_with_its_caveat() {
        let results = results("best", &["no mirror averaging", POSTERIOR, "32 epochs"]);
        expect_file!["test_data/best.txt"].assert_eq(&markdown("Best", &blocks(&results)));
    }

    #[test]
    fn pretrained_weights_are_not_called_random() {
        let mut results = results("paper", &["E: frozen pretrained backbone"]);
        results.about.dataset = "cifar-10".to_owned();
        results.about.weights = Some("1a2b3c4d".to_owned());
        let text = markdown("Paper", &blocks(&results));
        assert!(text.contains("| E: frozen pretrained backbone |") && !text.contains("random"), "{text}");
        for (body, name) in [
            (
                json!({ "resnet": { "block": "basic", "blocks": [2, 2, 2, 3] } }),
                "resnet of 2, 2, 2, 3 basic blocks",
            ),
            (json!({ "alexnet": { "variant": "caffe" } }), "alexnet"),
        ] {
            results.about.config = json!({ "network": { "input": 112, "body": body } });
            let text = markdown("Paper", &blocks(&results));
            let sentence = format!("The paper fine-tunes AlexNet on 227×227 pixels, ours {name} on 112×112.");
            assert!(text.contains(&sentence), "{text}");
        }
    }

    #[test]
    fn larger_sets_are_judged_by_the_first_5000() {
        let mut results = results("paper", &TABLE_2);
        results.about.dataset = "imagenet-100".to_owned();
        let text = markdown("Paper", &blocks(&results));
        let rows = |start: &str| text.lines().filter(|row| row.starts_with(start)).collect::<Vec<_>>();
        assert_eq!(rows("| mAP@5000").len(), rows("| mAP").len());
        // Three lower than the whole's 0.8847, 0.8890, …, and its 0.8898 for features.
        let row = rows("| Two-Step ")[0];
        assert!(row.contains("| 0.8817 ± 0.0010 |") && row.contains("| 0.8868 ± 0.0010 |"), "{row}");
        let own = rows("| one model per length")[0];
        assert!(
            own.contains("| 0.8797 ± 0.0010 | 0.8830 ± 0.0010 | 0.8825 ± 0.0010 | 0.8897 ± 0.0010 |"),
            "{own}"
        );
    }

    #[test]
    fn the_softmax_of_sigmoids_is_not_a_posterior() {
        let mut results = results("best", &[POSTERIOR]);
        assert!(!markdown("Best", &blocks(&results)).contains("is not a posterior"));
        results.about.classification_loss = Some("sigmoid".to_owned());
        assert!(markdown("Best", &blocks(&results)).contains("is not a posterior"));
        results.about.classification_loss = None;
        results.about.dataset = "fashion-collage".to_owned();
        assert!(markdown("Best", &blocks(&results)).contains("is not a posterior"));
    }

    #[test]
    fn the_papers_rows_stand_beside_ours_on_its_data_sets_only() {
        let mut results = test_data::results(1);
        results.about.dataset = "nus-wide-21".to_owned();
        expect_file!["test_data/nus-wide.txt"].assert_eq(&markdown("NUS-WIDE", &blocks(&results)));
        results.about.items = PROTOCOLS[1];
        assert!(!markdown("NUS-WIDE", &blocks(&results)).contains("The paper's protocol has"));
        results.about.dataset = "fashion-collage".to_owned();
        assert!(blocks(&results).is_empty());
    }
}
