//! `results.csv`: every measured accuracy as one long table with one number per line.

use crate::results::{ByBits, ByRank, MeanSd, Results};
use crate::words::preset;

const HEADER: &str = "dataset,preset,seed,variant,metric,bits,value,sd\n";

/// Returns the table.
///
/// `preset` includes the changes. `seed` is a number or `mean`. `variant` is `dpq`, the name of a
/// variant, or `raw pixels`. `bits` is `unquantised` for features. `sd` may be empty.
pub(crate) fn csv(results: &Results) -> String {
    let mut rows =
        Rows { text: HEADER.to_owned(), start: [results.about.dataset.clone(), preset(&results.about)] };
    let spread = |map: &MeanSd| (map[0], (results.seeds > 1).then_some(map[1]));
    rows.by_bits("mean", "dpq", "mAP@all", &results.map_all, spread);
    rows.row("mean", "dpq", "mAP@all", UNQUANTISED, spread(&results.feature_map_all));
    rows.by_bits("mean", "dpq", "mAP@5000", &results.map_at_5000, spread);
    rows.row("mean", "dpq", "mAP@5000", UNQUANTISED, spread(&results.feature_map_at_5000));
    for (metric, by_bits) in [("precision", &results.precision_at), ("recall", &results.recall_at)] {
        for (bits, by_rank) in by_bits {
            rows.by_rank("mean", "dpq", metric, &bits.to_string(), by_rank);
        }
    }
    if let Some(by_rank) = &results.feature_precision_at {
        rows.by_rank("mean", "dpq", "precision", UNQUANTISED, by_rank);
    }
    for (metric, accuracy) in
        [("accuracy, gallery", results.accuracy), ("accuracy, queries", results.query_accuracy)]
    {
        accuracy.iter().for_each(|accuracy| rows.row("mean", "dpq", metric, "", spread(accuracy)));
    }
    for (level, usage) in results.usage.iter().enumerate() {
        let bits = (8 * (level + 1)).to_string();
        let values = [
            ("distortion", results.distortion[level]),
            ("codewords used", usage.used),
            ("perplexity", usage.perplexity),
            ("distinct codes", usage.distinct),
        ];
        values.into_iter().for_each(|(metric, value)| rows.row("mean", "dpq", metric, &bits, (value, None)));
    }
    for seed in &results.per_seed {
        let name = seed.seed.to_string();
        rows.by_bits(&name, "dpq", "mAP@all", &seed.map_all, |&map| (map, None));
        rows.row(&name, "dpq", "mAP@all", UNQUANTISED, (seed.feature_map_all, None));
        rows.by_bits(&name, "dpq", "mAP@5000", &seed.map_at_5000, |&map| (map, None));
    }
    for variant in &results.variants {
        rows.by_bits("mean", &variant.name, "mAP@all", &variant.map_all, spread);
        rows.row("mean", &variant.name, "mAP@all", UNQUANTISED, spread(&variant.feature_map_all));
        rows.by_bits("mean", &variant.name, "mAP@5000", &variant.map_at_5000, spread);
        if let Some(accuracy) = &variant.accuracy {
            rows.row("mean", &variant.name, "accuracy, gallery", "", spread(accuracy));
        }
        for (seed, maps) in results.per_seed.iter().zip(&variant.per_seed) {
            rows.by_bits(&seed.seed.to_string(), &variant.name, "mAP@all", maps, |&map| (map, None));
        }
    }
    if let Some(baseline) = &results.baseline {
        rows.by_bits("1", "raw pixels", "mAP@all", &baseline.map_all, |&map| (map, None));
        rows.row("1", "raw pixels", "mAP@all", UNQUANTISED, (baseline.feature_map_all, None));
        rows.by_bits("1", "raw pixels", "mAP@5000", &baseline.map_at_5000, |&map| (map, None));
        rows.row("1", "raw pixels", "mAP@5000", UNQUANTISED, (baseline.feature_map_at_5000, None));
        if let Some(by_rank) = &baseline.feature_precision_at {
            rows.by_rank("1", "raw pixels", "precision", UNQUANTISED, by_rank);
        }
        for (level, &distortion) in baseline.distortion.iter().enumerate() {
            rows.row("1", "raw pixels", "distortion", &(8 * (level + 1)).to_string(), (distortion, None));
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
    fn row(&mut self, seed: &str, variant: &str, metric: &str, bits: &str, (value, sd): (f64, Option<f64>)) {
        let [dataset, preset] = &self.start;
        let fields = [
            dataset,
            preset,
            seed,
            variant,
            metric,
            bits,
            &format!("{value:.6}"),
            &sd.map_or(String::new(), |sd| format!("{sd:.6}")),
        ];
        let quoted = fields.iter().map(|field| match field.contains([',', '"']) {
            true => format!("\"{}\"", field.replace('"', "\"\"")),
            false => (*field).to_owned(),
        });
        self.text += &(quoted.collect::<Vec<_>>().join(",") + "\n");
    }

    fn by_bits<T>(
        &mut self,
        seed: &str,
        variant: &str,
        metric: &str,
        by_bits: &ByBits<T>,
        value: impl Fn(&T) -> (f64, Option<f64>),
    ) {
        for (bits, found) in by_bits {
            self.row(seed, variant, metric, &bits.to_string(), value(found));
        }
    }

    fn by_rank(&mut self, seed: &str, variant: &str, metric: &str, bits: &str, by_rank: &ByRank<f64>) {
        for (rank, &value) in by_rank {
            self.row(seed, variant, &format!("{metric}@{rank}"), bits, (value, None));
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
