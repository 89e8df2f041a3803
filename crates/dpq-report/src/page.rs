//! The page of a report: its numbers in words and tables, and its figures.

use crate::document::Block;
use crate::paper;
use crate::results::{ByBits, Items, MeanSd, Results, Searched};
use crate::table::{Table, line};
use crate::words::{lengths, of_lengths, signed, spread, title};

/// The figures that need more than numbers. A report may lack them.
pub(crate) const TSNE: &str = "tsne.svg";
pub(crate) const QUERIES: &str = "queries.svg";

/// Returns the title, the main table and that of other codes, for the terminal.
pub(crate) fn summary(results: &Results) -> String {
    let others = paper::other_codes(results);
    let others = others.map(|table| format!("\n{}:\n{table}\n", paper::OTHER_CODES));
    format!("{}\n{}\n{}", title(results), main_table(results), others.unwrap_or_default())
}

/// Returns the part of a report that an overview of several reports shows.
pub(crate) fn overview(results: &Results) -> String {
    format!("{}\n\n{}", protocol(results), main_table(results))
}

/// Returns the whole page. `has` returns true for the files of the optional figures that exist.
pub(crate) fn blocks(results: &Results, has: impl Fn(&str) -> bool) -> Vec<Block> {
    let text = |text: &str| Block::Text(text.to_owned());
    let table = |table: Table, caption: &str| Block::Table(table, caption.to_owned());
    let figure = |file: &'static str, caption: &str| Block::Figure(file, caption.to_owned());
    let drawn = |file: &'static str, caption: &str| has(file).then(|| figure(file, caption));
    let seed = results.per_seed.first().map_or(1, |first| first.seed);
    let pixels = results.baseline.as_ref().map(|baseline| {
        let shape = baseline.shape.map_or(String::new(), |[c, h, w]| format!(", {c}×{h}×{w},"));
        format!(
            " Raw pixels{shape} are centred by the training mean, scaled to unit length, and coded by residual k-means \
             without a network."
        )
    });
    let mut blocks = vec![
        text("`dpq` measured every number on this page."),
        Block::Text(protocol(results)),
        table(
            main_table(results),
            &format!(
                "Unquantised is the inner product with the features before quantization.{}",
                pixels.unwrap_or_default()
            ),
        ),
        figure("map.svg", "mAP@all by code length, with the standard deviation over several seeds."),
    ];
    blocks.extend(paper::blocks(results));
    blocks.extend([
        Block::Heading("Rankings".into()),
        figure("precision-recall.svg", "Precision by recall, means over queries."),
        figure("precision-at.svg", "Precision within the first R items, means over queries."),
        text(
            "Items with equal scores have no order. mAP@all is the expectation over all orders. The table also has the \
             minimum, the maximum and the order by id. Precision and recall are expectations, too.",
        ),
        table(rankings(results), ""),
    ]);
    let sheet = drawn(
        QUERIES,
        &format!(
            "Queries and their ten nearest items at each code length, seed {seed}: the first query of each class, then the \
             queries whose number of relevant items differs most between lengths. A green bar marks a relevant item."
        ),
    );
    blocks.extend(sheet.into_iter().flat_map(|sheet| [Block::Heading("Queries".into()), sheet]));
    blocks.extend([
        Block::Heading("Codes of the gallery".into()),
        figure(
            "distortion.svg",
            "Distortion: mean squared error of the reconstruction over the mean squared norm of the feature.",
        ),
        figure(
            "usage.svg",
            "Codewords of each level that the gallery uses, and the perplexity of their use.",
        ),
        table(codes(results), ""),
    ]);
    blocks.extend(drawn(
        TSNE,
        &format!(
            "t-SNE (perplexity 50, started from the two principal components of the features) of gallery items, seed \
             {seed}: features and their reconstructions at each code length. The colour shows the class or, if items \
             have several labels, the number of labels. Neighbours are close to each other; distances between groups \
             mean little."
        ),
    ));
    blocks.extend([
        Block::Heading("Times and memory".into()),
        table(times(results), ""),
        search_table(results),
        Block::Heading("Each training".into()),
        table(each_seed(results), ""),
        Block::Heading("How".into()),
        how(results),
        Block::Text(format!("The configuration of seed {seed}:")),
        Block::Code(serde_json::to_string_pretty(&results.about.config).unwrap_or_default()),
    ]);
    blocks
}

fn protocol(results: &Results) -> String {
    let Items { train, query, gallery } = results.about.left_out;
    let unreadable = format!(
        " Unreadable images were left out: {train} training images, {query} queries, {gallery} of the gallery."
    );
    let unreadable = if results.about.left_out.is_empty() { "" } else { &unreadable };
    let rule = results.about.map_rule["text"].as_str().unwrap_or("none stated");
    let several = " Numbers after ± are standard deviations over the seeds.";
    let several = if results.seeds > 1 { several } else { "" };
    let Items { train, query, gallery } = results.about.items;
    format!(
        "One training makes all code lengths. {train} training images, {query} queries, {gallery} images in the \
         gallery.{unreadable} Rule: {rule}.{several}"
    )
}

fn main_table(results: &Results) -> Table {
    let gap = |map: &ByBits<MeanSd>, features: &MeanSd| {
        map.values().map(|map| signed(map[0] - features[0])).collect::<Vec<_>>()
    };
    let row = |name: &str, map: &ByBits<MeanSd>, features: &MeanSd| {
        line(name, map.values().chain([features]).map(|map| spread(results, map)))
    };
    let plain = |name: &str, map: &ByBits<f64>, features: f64| {
        let maps = results.map_all.keys().map(|bits| map.get(bits)).chain([Some(&features)]);
        line(name, maps.map(|map| map.map_or(String::new(), |map| format!("{map:.4}"))))
    };
    let mut rows = vec![
        row("mAP@all", &results.map_all, &results.feature_map_all),
        line("minus unquantised", gap(&results.map_all, &results.feature_map_all)),
    ];
    // In a smaller gallery it is mAP@all.
    let is_cut = results.about.items.gallery > 5000;
    if is_cut {
        rows.push(row("mAP@5000", &results.map_at_5000, &results.feature_map_at_5000));
        rows.push(line("minus unquantised", gap(&results.map_at_5000, &results.feature_map_at_5000)));
    }
    if let Some(baseline) = &results.baseline {
        rows.push(plain("raw pixels, mAP@all", &baseline.map_all, baseline.feature_map_all));
        if is_cut {
            rows.push(plain("raw pixels, mAP@5000", &baseline.map_at_5000, baseline.feature_map_at_5000));
        }
    }
    Table::new("", lengths(results).chain(["unquantised".to_owned()]), rows)
}

fn rankings(results: &Results) -> Table {
    let mut rows = vec![
        line("mAP@all, ties: minimum", results.ties.values().map(|ties| format!("{:.4}", ties.worst))),
        line("mAP@all, ties: by id", results.ties.values().map(|ties| format!("{:.4}", ties.by_id))),
        line("mAP@all, ties: expectation", results.map_all.values().map(|map| format!("{:.4}", map[0]))),
        line("mAP@all, ties: maximum", results.ties.values().map(|ties| format!("{:.4}", ties.best))),
    ];
    for (name, by_bits) in [("precision", &results.precision_at), ("recall", &results.recall_at)] {
        let ranks = by_bits.values().next().into_iter().flat_map(|by_rank| by_rank.keys());
        rows.extend(ranks.map(|rank| {
            line(&format!("{name}@{rank}"), by_bits.values().map(|by_rank| format!("{:.4}", by_rank[rank])))
        }));
    }
    Table::new("", lengths(results), rows)
}

fn codes(results: &Results) -> Table {
    let (usage, distortion) = (of_lengths(results, &results.usage), |x: &f64| format!("{x:.5}"));
    let mut rows = vec![line("distortion", results.distortion.iter().map(distortion))];
    rows.extend(results.baseline.iter().map(|pixels| {
        let by_bits: ByBits<&f64> = pixels.map_all.keys().copied().zip(&pixels.distortion).collect();
        let values = results.map_all.keys().map(|bits| by_bits.get(bits).copied());
        line("distortion, raw pixels", values.map(|value| value.map_or(String::new(), distortion)))
    }));
    rows.extend([
        line("codewords used, last byte", usage.iter().map(|level| format!("{:.0}", level.used))),
        line("perplexity, last byte", usage.iter().map(|level| format!("{:.1}", level.perplexity))),
        line("distinct codes", usage.iter().map(|level| format!("{:.0}", level.distinct))),
    ]);
    Table::new("", lengths(results), rows)
}

fn times(results: &Results) -> Table {
    let (seconds, memory) = (&results.seconds, &results.peak_memory_bytes);
    let items = &results.about.items;
    let train = format!("{:.0} images per second", results.train_images_per_second);
    let encode =
        format!("{} images, {:.0} per second", items.query + items.gallery, results.encode_images_per_second);
    let index = format!("{:.2} bytes per item", results.bytes_per_item);
    let search = format!("complete rankings for {} queries", items.query);
    let stages = [
        ("train", seconds.train, memory.train, &*train),
        ("encode", seconds.encode, memory.encode, &encode),
        ("index", seconds.index, None, &index),
        ("search", seconds.search, None, &search),
        ("evaluate", seconds.evaluate, memory.evaluate, "the same rankings, at all lengths"),
        ("all stages", results.wall_seconds, None, "evaluation of unquantised features included"),
    ];
    let everything = |seconds| ("everything", seconds, None, "all trainings, variants and figures");
    let rows = stages.into_iter().chain(results.run_wall_seconds.map(everything));
    let rows = rows.map(|(name, seconds, memory, what)| {
        let memory = memory.map_or(String::new(), |bytes| format!("{:.0} MiB", bytes as f64 / 1048576.0));
        line(name, [format!("{seconds:.1} s"), memory, what.to_owned()])
    });
    Table::new("stage, one training", ["wall time", "peak memory", ""], rows)
}

/// Returns latencies by length. Threads, kernel and k are the same for all lengths.
fn search_table(results: &Results) -> Block {
    let microseconds = |ns: u64| format!("{:.0} µs", ns as f64 / 1e3);
    let row = |name: &str, ns: fn(&Searched) -> u64| {
        line(name, results.search.values().map(|searched| microseconds(ns(searched))))
    };
    let rows = [
        row("one query, median", |searched| searched.ns_per_query_median),
        row("one query, 99th percentile", |searched| searched.ns_per_query_p99),
        row("in a batch, per query", |searched| searched.batch_ns_per_query),
    ];
    let how = results.search.values().next().map_or(String::new(), |first| {
        format!(
            "Search for the {} nearest of {} items, lookup table included, threads: {}, kernel: {}.",
            first.k, results.about.items.gallery, first.threads, first.kernel
        )
    });
    Block::Table(Table::new("", lengths(results), rows), how)
}

fn each_seed(results: &Results) -> Table {
    let maps = lengths(results).map(|bits| format!("mAP@all, {bits}"));
    let header = maps.chain(["unquantised", "accuracy", "training", "codebooks"].map(str::to_owned));
    let rows = results.per_seed.iter().map(|seed| {
        let mut row = line(&seed.seed.to_string(), seed.map_all.values().map(|map| format!("{map:.4}")));
        row.push(format!("{:.4}", seed.feature_map_all));
        row.push(seed.accuracy.map_or(String::new(), |accuracy| format!("{accuracy:.4}")));
        row.extend([format!("{:.0} s", seed.seconds.train), format!("`{}`", seed.fingerprint)]);
        row
    });
    Table::new("seed", header, rows)
}

fn how(results: &Results) -> Block {
    let (about, machine) = (&results.about, &results.about.machine);
    let accuracy = |value: &Option<MeanSd>| value.map_or("none".to_owned(), |[mean, _]| format!("{mean:.4}"));
    let mut lines = vec![
        format!("Commit: `{}`", about.commit),
        format!("Machine: {machine}"),
        format!("Trained on: {}", about.device),
        format!(
            "Accuracy of the classifier: {} on the gallery, {} on the queries",
            accuracy(&results.accuracy),
            accuracy(&results.query_accuracy)
        ),
    ];
    lines.extend(about.images.iter().map(|images| format!("Images: {images}")));
    lines.extend(about.classification_loss.iter().map(|loss| format!("Loss of the classifier: {loss}")));
    lines.extend(about.embeddings.iter().map(|embeddings| {
        let from = about.embeddings_file.iter().map(|file| format!(", from `{file}`"));
        format!("Label embeddings: {embeddings}{}", from.collect::<String>())
    }));
    lines.extend(about.weights.iter().map(|weights| format!("Pretrained weights: `{weights}`")));
    let input = about.config.pointer("/network/input");
    lines.extend(input.map(|side| format!("Images: resized to {side}×{side} pixels")));
    Block::List(lines)
}

#[cfg(test)]
mod tests {
    use expect_test::{expect, expect_file};

    use super::*;
    use crate::document::markdown;
    use crate::results::VariantResults;
    use crate::{test_data, words};

    fn page(results: &Results) -> String {
        markdown(&words::title(results), &blocks(results, |_| true))
    }

    #[test]
    fn report() {
        expect_file!["test_data/one-seed.txt"].assert_eq(&page(&test_data::results(1)));
    }

    #[test]
    fn report_of_several_seeds_has_deviations() {
        expect![[r#"
            |                      |          8 bits |         16 bits |         24 bits |         32 bits |     unquantised |
            |----------------------|----------------:|----------------:|----------------:|----------------:|----------------:|
            | mAP@all              | 0.8547 ± 0.0010 | 0.8590 ± 0.0010 | 0.8595 ± 0.0010 | 0.8597 ± 0.0010 | 0.8598 ± 0.0010 |
            | minus unquantised    |         −0.0051 |         −0.0008 |         −0.0003 |         −0.0001 |                 |
            | mAP@5000             | 0.8847 ± 0.0010 | 0.8890 ± 0.0010 | 0.8895 ± 0.0010 | 0.8897 ± 0.0010 | 0.8898 ± 0.0010 |
            | minus unquantised    |         −0.0051 |         −0.0008 |         −0.0003 |         −0.0001 |                 |
            | raw pixels, mAP@all  |          0.4800 |          0.4750 |          0.4760 |          0.4750 |          0.4750 |
            | raw pixels, mAP@5000 |          0.5100 |          0.5050 |          0.5060 |          0.5050 |          0.5050 |
        "#]]
        .assert_eq(&format!("{}\n", main_table(&test_data::results(3))));
    }

    /// Product codes have one length, and the baseline has more.
    #[test]
    fn product_codes_have_the_column_of_their_length() {
        let mut results = test_data::results(1);
        results.map_all.retain(|&bits, _| bits == 32);
        results.map_at_5000.retain(|&bits, _| bits == 32);
        results.distortion.drain(..3);
        results.usage[3].used = 77.0;
        results.usage[3].perplexity = 55.5;
        let pixels = results.baseline.as_mut().unwrap();
        pixels.map_all.insert(32, 0.1234);
        pixels.distortion[3] = 0.54321;
        let cells = |table: &Table, name: &str| -> Vec<String> {
            let text = table.to_string();
            let row = text.lines().find(|row| row.starts_with(&format!("| {name} "))).unwrap().to_owned();
            row.split('|')
                .skip(2)
                .map(|cell| cell.trim().to_owned())
                .filter(|cell| !cell.is_empty())
                .collect()
        };
        assert_eq!(cells(&main_table(&results), "raw pixels, mAP@all"), ["0.1234", "0.4750"]);
        let codes = codes(&results);
        assert_eq!(cells(&codes, "distortion, raw pixels"), ["0.54321"]);
        assert_eq!(cells(&codes, "codewords used, last byte"), ["77"]);
        assert_eq!(cells(&codes, "perplexity, last byte"), ["55.5"]);
        let csv = crate::csv::csv(&results);
        assert!(csv.lines().any(|line| line.contains(",dpq,codewords used,32,77")), "{csv}");
        let figure = crate::figures::usage(&results);
        assert_eq!(figure.curves[0].points.last(), Some(&[32.0, 77.0]));
    }

    #[test]
    fn a_gallery_of_5000_or_fewer_has_one_map() {
        let mut results = test_data::results(1);
        results.about.items.gallery = 5000;
        let table = main_table(&results).to_string();
        assert!(table.contains("raw pixels, mAP@all") && !table.contains("5000"), "{table}");
    }

    #[test]
    fn the_summary_has_the_codes_that_were_compared() {
        let mut results = test_data::results(1);
        assert_eq!(summary(&results).matches("| mAP@all").count(), 1);
        let mut other = VariantResults::of_trainings("residual k-means", "", results.clone());
        other.map_all.values_mut().for_each(|map| map[0] = 0.7531);
        results.baselines.push(other);
        let text = summary(&results);
        assert!(text.contains("| residual k-means") && text.contains("0.7531"), "{text}");
    }

    #[test]
    fn a_report_without_a_baseline_has_no_raw_pixels() {
        let mut results = test_data::results(1);
        results.baseline = None;
        assert!(!page(&results).to_lowercase().contains("raw pixels"));
    }

    #[test]
    fn unreadable_images_and_given_embeddings_are_stated() {
        let mut results = test_data::results(1);
        results.about.left_out.gallery = 3;
        results.about.embeddings = Some("given, crc32c 0badcafe".to_owned());
        results.about.embeddings_file = Some("glove.txt".to_owned());
        results.about.images = Some("jpeg.zip, sha256 c0ffee".to_owned());
        let text = page(&serde_json::from_str(&results.to_json()).unwrap());
        for expected in [
            "preset quick, label embeddings given, seed 1",
            "Unreadable images were left out: 0 training images, 0 queries, 3 of the gallery.",
            "Images: jpeg.zip, sha256 c0ffee",
            "Label embeddings: given, crc32c 0badcafe, from `glove.txt`",
        ] {
            assert!(text.contains(expected), "{text}");
        }
    }
}
