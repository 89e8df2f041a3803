//! The report: the numbers of `results.json` in words and tables, and the figures.

use super::docs::{QUERIES, TSNE};
use super::document::Block;
use super::dpq::Searched;
use super::results::{ByBits, MeanSd, Results};
use super::tables;
use crate::table::{Table, line};

/// The main table, for the terminal.
pub(crate) fn summary(results: &Results) -> String {
    format!("{}\n{}\n", title(results), main_table(results))
}

/// What a page of all reports says of one.
pub(crate) fn overview(results: &Results) -> String {
    format!("{}\n\n{}", protocol(results), main_table(results))
}

/// The whole report. Figures that need more than `results` are there if `has` says so of their file.
pub(crate) fn blocks(results: &Results, has: impl Fn(&str) -> bool) -> Vec<Block> {
    let text = |text: &str| Block::Text(text.to_owned());
    let table = |table: Table, caption: &str| Block::Table(table, caption.to_owned());
    let figure = |file: &'static str, caption: &str| Block::Figure(file, caption.to_owned());
    let drawn = |file: &'static str, caption: &str| has(file).then(|| figure(file, caption));
    let mut blocks = vec![
        text("Written by `cargo xtask reproduce-paper`: every number is read from what `dpq` measured."),
        Block::Text(protocol(results)),
        table(
            main_table(results),
            &format!(
                "Unquantised is the inner product with the features before quantization: the ceiling of the codes. Raw \
                 pixels{} are centred by the training mean and scaled to unit length, and coded by residual k-means \
                 without a network.",
                results.baseline.shape.map_or(String::new(), |[c, h, w]| format!(", {c}×{h}×{w},"))
            ),
        ),
        figure(
            "map.svg",
            "mAP@all by code length, with the standard deviation over seeds where there are several.",
        ),
    ];
    blocks.extend(tables::blocks(results));
    blocks.extend([
        Block::Heading("Rankings"),
        figure("precision-recall.svg", "Precision by recall, means over queries."),
        figure("precision-at.svg", "Precision within the first R items, means over queries."),
        text(
            "Items with equal scores have no order. mAP@all is the expectation over all orders; beside it the extremes \
             and the order by id. Precision and recall are expectations as well.",
        ),
        table(rankings(results), ""),
    ]);
    let sheet = drawn(
        QUERIES,
        "Queries and their ten nearest items at each code length, seed 1: the first query of each class, then those \
         whose lengths differ most in how many of the ten are relevant. A green bar marks a relevant item.",
    );
    blocks.extend(sheet.into_iter().flat_map(|sheet| [Block::Heading("Queries"), sheet]));
    blocks.extend([
        Block::Heading("Codes of the gallery"),
        figure(
            "distortion.svg",
            "Mean squared error of the reconstruction over the mean squared norm of the feature.",
        ),
        figure(
            "usage.svg",
            "Codewords of each level that any item of the gallery has, and the perplexity of their use.",
        ),
        table(codes(results), ""),
    ]);
    blocks.extend(drawn(
        TSNE,
        "t-SNE (perplexity 50, started from the two principal components of the features) of gallery items, seed 1: \
         features and their reconstructions at each code length. The colour is the class or, where items have several \
         labels, their number. Neighbours are near each other; distances between groups mean little.",
    ));
    blocks.extend([
        Block::Heading("Times and memory"),
        table(times(results), ""),
        search_table(results),
        Block::Heading("Each training"),
        table(each_seed(results), ""),
        Block::Heading("How"),
        how(results),
        text("The configuration of seed 1:"),
        Block::Code(serde_json::to_string_pretty(&results.config).unwrap_or_default()),
    ]);
    blocks
}

fn protocol(results: &Results) -> String {
    let (items, left_out) = (&results.items, &results.left_out);
    let unreadable = format!(
        " Left out, because they cannot be read: training images {}, queries {}, of the gallery {}.",
        left_out.train, left_out.query, left_out.gallery
    );
    format!(
        "One training gives all code lengths. {} training images, {} queries, {} images in the gallery.{} Rule: {}.{}",
        items.train,
        items.query,
        items.gallery,
        if left_out.is_empty() { "" } else { &unreadable },
        results.map_rule.get("text").and_then(|text| text.as_str()).unwrap_or("none stated"),
        if results.seeds > 1 { " A number after ± is the standard deviation over the seeds." } else { "" }
    )
}

pub(crate) fn title(results: &Results) -> String {
    format!("Results on {}", name(results))
}

/// What was trained, and how often.
pub(crate) fn name(results: &Results) -> String {
    let seeds = match results.seeds {
        1 => "seed 1".to_owned(),
        n => format!("seeds 1 to {n}"),
    };
    let pretrained = if results.weights.is_some() { ", pretrained" } else { "" };
    let embeddings = if results.embeddings_file.is_some() { ", label embeddings given" } else { "" };
    format!("{}, preset {}{pretrained}{embeddings}, {seeds}", results.dataset, preset(results))
}

/// The preset and what of it was changed.
pub(crate) fn preset(results: &Results) -> String {
    match &results.changes[..] {
        [] => results.preset.clone(),
        changes => format!("{} changed by {}", results.preset, changes.join(" ")),
    }
}

fn main_table(results: &Results) -> Table {
    let baseline = &results.baseline;
    let spread = |value: &MeanSd| match results.seeds {
        1 => format!("{:.4}", value[0]),
        _ => format!("{:.4} ± {:.4}", value[0], value[1]),
    };
    let gap = |map: &ByBits<MeanSd>, features: &MeanSd| {
        map.values().map(|map| signed(map[0] - features[0])).collect::<Vec<_>>()
    };
    let row = |name: &str, map: &ByBits<MeanSd>, features: &MeanSd| {
        line(name, map.values().chain([features]).map(spread))
    };
    let plain = |name: &str, map: &ByBits<f64>, features: f64| {
        line(name, map.values().chain([&features]).map(|map| format!("{map:.4}")))
    };
    Table {
        header: line("", lengths(results).chain(["unquantised".to_owned()])),
        rows: vec![
            row("mAP@all", &results.map_all, &results.feature_map_all),
            line("against unquantised", gap(&results.map_all, &results.feature_map_all)),
            row("mAP@5000", &results.map_at_5000, &results.feature_map_at_5000),
            line("against unquantised", gap(&results.map_at_5000, &results.feature_map_at_5000)),
            plain("raw pixels, mAP@all", &baseline.map_all, baseline.feature_map_all),
            plain("raw pixels, mAP@5000", &baseline.map_at_5000, baseline.feature_map_at_5000),
        ],
    }
}

fn rankings(results: &Results) -> Table {
    let mut rows = vec![
        line("mAP@all, ties at worst", results.ties.values().map(|ties| format!("{:.4}", ties.worst))),
        line("mAP@all, ties by id", results.ties.values().map(|ties| format!("{:.4}", ties.by_id))),
        line("mAP@all, expectation", results.map_all.values().map(|map| format!("{:.4}", map[0]))),
        line("mAP@all, ties at best", results.ties.values().map(|ties| format!("{:.4}", ties.best))),
    ];
    for (name, by_bits) in [("precision", &results.precision_at), ("recall", &results.recall_at)] {
        let ranks = by_bits.values().next().into_iter().flat_map(|by_rank| by_rank.keys());
        rows.extend(ranks.map(|rank| {
            line(&format!("{name}@{rank}"), by_bits.values().map(|by_rank| format!("{:.4}", by_rank[rank])))
        }));
    }
    Table { header: line("", lengths(results)), rows }
}

fn codes(results: &Results) -> Table {
    let usage = &results.usage;
    Table {
        header: line("", lengths(results)),
        rows: vec![
            line("distortion", results.distortion.iter().map(|x| format!("{x:.5}"))),
            line("distortion, raw pixels", results.baseline.distortion.iter().map(|x| format!("{x:.5}"))),
            line("codewords used, last byte", usage.iter().map(|level| format!("{:.0}", level.used))),
            line("perplexity, last byte", usage.iter().map(|level| format!("{:.1}", level.perplexity))),
            line("distinct codes", usage.iter().map(|level| format!("{:.0}", level.distinct))),
        ],
    }
}

fn times(results: &Results) -> Table {
    let (seconds, memory) = (&results.seconds, &results.peak_memory_bytes);
    let row = |name: &str, seconds: f64, memory: Option<u64>, what: String| {
        let memory = memory.map_or(String::new(), |bytes| format!("{:.0} MiB", bytes as f64 / 1048576.0));
        line(name, [format!("{seconds:.1} s"), memory, what])
    };
    let images = results.items.query + results.items.gallery;
    let run = results.run_wall_seconds.map(|seconds| {
        row("whole run", seconds, None, "all trainings and variants, raw pixels and figures".to_owned())
    });
    Table {
        header: line("stage, one training", ["wall time", "peak memory", ""].map(str::to_owned)),
        rows: [
            row(
                "train",
                seconds.train,
                memory.train,
                format!("{:.0} images a second", results.train_images_per_second),
            ),
            row(
                "encode",
                seconds.encode,
                memory.encode,
                format!("{images} images, {:.0} a second", results.encode_images_per_second),
            ),
            row("index", seconds.index, None, format!("{:.2} bytes an item", results.bytes_per_item)),
            row("search", seconds.search, None, format!("whole rankings of {} queries", results.items.query)),
            row("evaluate", seconds.evaluate, memory.evaluate, "the same, at all lengths".to_owned()),
            row(
                "all commands",
                results.wall_seconds,
                None,
                "files and unquantised features included".to_owned(),
            ),
        ]
        .into_iter()
        .chain(run)
        .collect(),
    }
}

/// Latencies differ by length; threads, kernel and k do not.
fn search_table(results: &Results) -> Block {
    let microseconds = |ns: u64| format!("{:.0} µs", ns as f64 / 1e3);
    let row = |name: &str, ns: fn(&Searched) -> u64| {
        line(name, results.search.values().map(|searched| microseconds(ns(searched))))
    };
    let table = Table {
        header: line("", lengths(results)),
        rows: vec![
            row("one query, median", |searched| searched.ns_per_query_median),
            row("one query, 99th percentile", |searched| searched.ns_per_query_p99),
        ],
    };
    let how = results.search.values().next().map_or(String::new(), |first| {
        format!(
            "The {} nearest of {} items, lookup table included, threads: {}, kernel: {}.",
            first.k, results.items.gallery, first.threads, first.kernel
        )
    });
    Block::Table(table, how)
}

fn each_seed(results: &Results) -> Table {
    let mut header = line("seed", lengths(results).map(|bits| format!("mAP@all, {bits}")));
    header.extend(["unquantised", "accuracy", "training", "codebooks"].map(str::to_owned));
    let rows = results.per_seed.iter().map(|seed| {
        let mut row = line(&seed.seed.to_string(), seed.map_all.values().map(|map| format!("{map:.4}")));
        row.push(format!("{:.4}", seed.feature_map_all));
        row.push(seed.accuracy.map_or(String::new(), |accuracy| format!("{accuracy:.4}")));
        row.extend([format!("{:.0} s", seed.seconds.train), format!("`{}`", seed.fingerprint)]);
        row
    });
    Table { header, rows: rows.collect() }
}

fn how(results: &Results) -> Block {
    let machine = &results.machine;
    let accuracy = |value: &Option<MeanSd>| value.map_or("none".to_owned(), |[mean, _]| format!("{mean:.4}"));
    let mut lines = vec![
        format!("Commit: `{}`", results.commit),
        format!("Machine: {}, {} cores, {}", machine.cpu, machine.cores, machine.system),
        format!("Trained on: {}", results.device),
        format!(
            "Accuracy of the classifier: {} on the gallery, {} on the queries",
            accuracy(&results.accuracy),
            accuracy(&results.query_accuracy)
        ),
    ];
    lines.extend(results.classification_loss.iter().map(|loss| format!("Loss of the classifier: {loss}")));
    lines.extend(results.embeddings.iter().map(|embeddings| {
        let from = results.embeddings_file.iter().map(|file| format!(", from `{file}`"));
        format!("Label embeddings: {embeddings}{}", from.collect::<String>())
    }));
    lines.extend(results.weights.iter().map(|weights| format!("Pretrained weights: `{weights}`")));
    Block::List(lines)
}

pub(crate) fn lengths(results: &Results) -> impl Iterator<Item = String> + use<'_> {
    results.map_all.keys().map(|bits| format!("{bits} bits"))
}

pub(crate) fn signed(x: f64) -> String {
    // Minus zero is no loss.
    if x.abs() < 0.00005 { "0.0000".to_owned() } else { format!("{x:+.4}").replace('-', "−") }
}

#[cfg(test)]
mod tests {
    use expect_test::{expect, expect_file};

    use super::super::document::markdown;
    use super::super::test_data;
    use super::*;

    #[test]
    fn report() {
        expect_file!["test_data/one-seed.txt"].assert_eq(&{
            let results = test_data::results(1);
            markdown(&title(&results), &blocks(&results, |_| true))
        });
    }

    #[test]
    fn report_of_several_seeds_has_deviations() {
        expect![[r#"
            Results on fashion-mnist, preset quick, seeds 1 to 3
            |                      |          8 bits |         16 bits |         24 bits |         32 bits |     unquantised |
            |----------------------|----------------:|----------------:|----------------:|----------------:|----------------:|
            | mAP@all              | 0.8547 ± 0.0010 | 0.8590 ± 0.0010 | 0.8595 ± 0.0010 | 0.8597 ± 0.0010 | 0.8598 ± 0.0010 |
            | against unquantised  |         −0.0051 |         −0.0008 |         −0.0003 |         −0.0001 |                 |
            | mAP@5000             | 0.8847 ± 0.0010 | 0.8890 ± 0.0010 | 0.8895 ± 0.0010 | 0.8897 ± 0.0010 | 0.8898 ± 0.0010 |
            | against unquantised  |         −0.0051 |         −0.0008 |         −0.0003 |         −0.0001 |                 |
            | raw pixels, mAP@all  |          0.4800 |          0.4750 |          0.4760 |          0.4750 |          0.4750 |
            | raw pixels, mAP@5000 |          0.5100 |          0.5050 |          0.5060 |          0.5050 |          0.5050 |
        "#]].assert_eq(&summary(&test_data::results(3)));
    }

    #[test]
    fn a_changed_preset_is_named_as_one() {
        let mut results = test_data::results(1);
        results.changes = ["epochs=2", "quantizer.codewords=16"].map(str::to_owned).into();
        assert_eq!(
            title(&results),
            "Results on fashion-mnist, preset quick changed by epochs=2 quantizer.codewords=16, seed 1"
        );
        assert_eq!(Results::from_json(&results.to_json().unwrap()).unwrap().changes, results.changes);
    }

    #[test]
    fn images_left_out_and_given_embeddings_are_said() {
        let mut results = test_data::results(1);
        results.left_out.gallery = 3;
        results.embeddings = Some("given, crc32c 0badcafe".to_owned());
        results.embeddings_file = Some("glove.txt".to_owned());
        let results = Results::from_json(&results.to_json().unwrap()).unwrap();
        let text = markdown(&title(&results), &blocks(&results, |_| true));
        for said in [
            "preset quick, label embeddings given, seed 1",
            "cannot be read: training images 0, queries 0, of the gallery 3.",
            "Label embeddings: given, crc32c 0badcafe, from `glove.txt`",
        ] {
            assert!(text.contains(said), "{text}");
        }
    }

    #[test]
    fn differences_have_signs() {
        assert_eq!(
            [-0.0049, 0.00001, -0.00001, 0.012].map(signed),
            ["−0.0049", "0.0000", "0.0000", "+0.0120"]
        );
    }
}
