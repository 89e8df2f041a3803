//! `results.csv`: every measured accuracy as one long table with one number per line.

use crate::results::{ByBits, ByRank, MeanSd, Results};
use crate::words::{of_lengths, preset};

const HEADER: &str = "dataset,preset,seed,variant,metric,bits,value,sd\n";

/// Returns the table.
///
/// `preset` includes the changes. `seed` is a number or `mean`. `variant` is `dpq`, the name of a
/// variant, or `raw pixels`. `bits` is `unquantised` for features. `sd` may be empty.
pub(crate) fn csv(results: &Results) -> String {
    let mut rows =
        Rows { text: HEADER.to_owned(), start: [results.about.dataset.clone(), preset(&results.about)] };
    let spread = |map: &MeanSd| (map[0], (results.seeds > 1).then_some(map[1]));
    let single = |&map: &f64| (map, None);
    rows.maps(["mean", "dpq", "mAP@all"], &results.map_all, Some(&results.feature_map_all), spread);
    rows.maps(["mean", "dpq", "mAP@5000"], &results.map_at_5000, Some(&results.feature_map_at_5000), spread);
    for (metric, by_bits) in [("precision", &results.precision_at), ("recall", &results.recall_at)] {
        by_bits.iter().for_each(|(bits, by_rank)| rows.by_rank(["mean", "dpq", metric], bits, by_rank));
    }
    rows.by_rank(["mean", "dpq", "precision"], UNQUANTISED, &results.feature_precision_at);
    let accuracies = [("accuracy, gallery", results.accuracy), ("accuracy, queries", results.query_accuracy)];
    for (metric, accuracy) in accuracies {
        accuracy.iter().for_each(|accuracy| rows.row(["mean", "dpq", metric], "", spread(accuracy)));
    }
    let usage = of_lengths(results, &results.usage);
    for ((bits, usage), distortion) in results.map_all.keys().zip(usage).zip(&results.distortion) {
        let values = [
            ("distortion", *distortion),
            ("codewords used", usage.used),
            ("perplexity", usage.perplexity),
            ("distinct codes", usage.distinct),
        ];
        values.iter().for_each(|(metric, value)| rows.row(["mean", "dpq", metric], bits, single(value)));
    }
    for seed in &results.per_seed {
        let name = &*seed.seed.to_string();
        rows.maps([name, "dpq", "mAP@all"], &seed.map_all, Some(&seed.feature_map_all), single);
        rows.maps([name, "dpq", "mAP@5000"], &seed.map_at_5000, None, single);
    }
    for variant in results.baselines.iter().chain(&results.variants) {
        let name = &*variant.name;
        rows.maps(["mean", name, "mAP@all"], &variant.map_all, Some(&variant.feature_map_all), spread);
        rows.maps(["mean", name, "mAP@5000"], &variant.map_at_5000, None, spread);
        let accuracy = variant.accuracy.iter();
        accuracy.for_each(|accuracy| rows.row(["mean", name, "accuracy, gallery"], "", spread(accuracy)));
        for (seed, maps) in results.per_seed.iter().zip(&variant.per_seed) {
            rows.maps([&seed.seed.to_string(), name, "mAP@all"], maps, None, single);
        }
    }
    if let Some(pixels) = &results.baseline {
        let of = |metric| ["1", "raw pixels", metric];
        rows.maps(of("mAP@all"), &pixels.map_all, Some(&pixels.feature_map_all), single);
        rows.maps(of("mAP@5000"), &pixels.map_at_5000, Some(&pixels.feature_map_at_5000), single);
        rows.by_rank(of("precision"), UNQUANTISED, &pixels.feature_precision_at);
        for (bits, distortion) in pixels.map_all.keys().zip(&pixels.distortion) {
            rows.row(of("distortion"), bits, single(distortion));
        }
    }
    rows.text
}

const UNQUANTISED: &str = "unquantised";

struct Rows {
    text: String,
    /// The first fields of every row: data set and preset.
    start: [String; 2],
}

impl Rows {
    /// Adds a row. `names` are seed, variant and metric.
    fn row(&mut self, names: [&str; 3], bits: impl ToString, (value, sd): (f64, Option<f64>)) {
        let sd = sd.map_or(String::new(), |sd| format!("{sd:.6}"));
        let numbers = [bits.to_string(), format!("{value:.6}"), sd];
        let start = self.start.iter().map(String::as_str);
        let fields = start.chain(names).chain(numbers.iter().map(String::as_str));
        let quoted = fields.map(|field| match field.contains([',', '"']) {
            true => format!("\"{}\"", field.replace('"', "\"\"")),
            false => field.to_owned(),
        });
        let row = quoted.collect::<Vec<_>>().join(",") + "\n";
        self.text += &row;
    }

    /// Adds a row per code length, then one of features before quantization if there is any.
    fn maps<T>(
        &mut self,
        names: [&str; 3],
        by_bits: &ByBits<T>,
        features: Option<&T>,
        value: impl Fn(&T) -> (f64, Option<f64>),
    ) {
        by_bits.iter().for_each(|(bits, map)| self.row(names, bits, value(map)));
        features.iter().for_each(|map| self.row(names, UNQUANTISED, value(map)));
    }

    fn by_rank(&mut self, [seed, variant, metric]: [&str; 3], bits: impl ToString, by_rank: &ByRank<f64>) {
        let bits = bits.to_string();
        for (rank, &value) in by_rank {
            self.row([seed, variant, &format!("{metric}@{rank}")], &bits, (value, None));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::VariantResults;
    use crate::test_data;

    #[test]
    fn every_row_has_all_columns() {
        let mut results = test_data::results(3);
        results.variants.push(VariantResults {
            name: "without L_C".to_owned(),
            change: "--set loss.classification=0.0".to_owned(),
            map_all: [(8, [0.5, 0.01])].into(),
            map_at_5000: [(8, [0.6, 0.02])].into(),
            feature_map_all: [0.7, 0.03],
            feature_map_at_5000: results.feature_map_at_5000,
            accuracy: None,
            train_seconds: None,
            per_seed: [0.49, 0.5, 0.51].map(|map| [(8, map)].into()).into(),
        });
        let text = csv(&results);
        let columns = |line: &str| line.replace("\"accuracy, ", "").matches(',').count();
        assert!(text.lines().all(|line| columns(line) == columns(HEADER.trim_end())), "{text}");
        for line in [
            "fashion-mnist,quick,mean,dpq,mAP@all,8,0.854700,0.001000",
            "fashion-mnist,quick,mean,dpq,mAP@all,unquantised,0.859800,0.001000",
            "fashion-mnist,quick,mean,dpq,precision@100,32,0.900000,",
            "fashion-mnist,quick,2,dpq,mAP@all,8,0.854700,",
            "fashion-mnist,quick,mean,dpq,perplexity,16,210.000000,",
            "fashion-mnist,quick,mean,dpq,\"accuracy, queries\",,0.910000,0.000000",
            "fashion-mnist,quick,1,raw pixels,mAP@all,24,0.476000,",
            "fashion-mnist,quick,mean,without L_C,mAP@5000,8,0.600000,0.020000",
            "fashion-mnist,quick,3,without L_C,mAP@all,8,0.510000,",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing from {text}");
        }
    }

    #[test]
    fn a_changed_preset_is_named_as_one() {
        let mut results = test_data::results(1);
        results.about.changes =
            ["epochs=2", "schedule=\"two-step\"", "a={b=1,c=2}"].map(str::to_owned).into();
        let text = csv(&results);
        let start = "fashion-mnist,\"quick changed by epochs=2 schedule=\"\"two-step\"\" a={b=1,c=2}\",";
        assert!(text.lines().skip(1).all(|line| line.starts_with(start)), "{text}");
    }
}
