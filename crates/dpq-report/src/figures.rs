//! The figures that need nothing but the results.

use crate::plot::{Axis, BASELINE, Chart, Curve, REFERENCE, length_line};
use crate::results::{ByRank, NamedCurve, Results};

/// Draws precision by recall.
pub(crate) fn precision_recall(results: &Results) -> Chart {
    let curves = &results.precision_recall;
    let n_lengths = results.map_all.len();
    let curve = |(i, curve): (usize, &NamedCurve)| {
        let line = if i < n_lengths { length_line(i, n_lengths) } else { REFERENCE + i - n_lengths };
        let points = curves.recall.iter().zip(&curve.precision).map(|(&x, &y)| [x, y]).collect();
        Curve { name: curve.name.clone(), points, spread: Vec::new(), line }
    };
    Chart {
        title: "Precision by recall".to_owned(),
        x: Axis::linear("recall", 0.0, 1.0),
        y: Axis::linear("precision", 0.0, 1.0),
        curves: curves.curves.iter().enumerate().map(curve).collect(),
    }
}

/// Draws precision within the first R ranks, by R.
pub(crate) fn precision_at(results: &Results) -> Chart {
    let curve = |name: String, line: usize, by_rank: &ByRank<f64>| {
        let points = by_rank.iter().map(|(&rank, &precision)| [rank.into(), precision]).collect();
        Curve { name, points, spread: Vec::new(), line }
    };
    let lengths = results.precision_at.iter().enumerate();
    let line = |i| length_line(i, results.precision_at.len());
    let mut curves: Vec<Curve> =
        lengths.map(|(i, (bits, by_rank))| curve(format!("{bits} bits"), line(i), by_rank)).collect();
    let pixels = results.baseline.as_ref().and_then(|baseline| baseline.feature_precision_at.as_ref());
    let references = [
        ("unquantised", REFERENCE, results.feature_precision_at.as_ref()),
        ("raw pixels, unquantised", BASELINE, pixels),
    ];
    for (name, line, by_rank) in references {
        curves.extend(by_rank.iter().map(|by_rank| curve(name.to_owned(), line, by_rank)));
    }
    let last = curves.iter().flat_map(|curve| &curve.points).map(|point| point[0]).fold(10.0, f64::max);
    Chart {
        title: "Precision at R".to_owned(),
        x: Axis::logarithmic("R, items retrieved", 1.0, last),
        y: Axis::linear("precision@R", 0.0, 1.0),
        curves,
    }
}

/// Draws mAP@all by code length, with the deviation over seeds.
pub(crate) fn map_by_bits(results: &Results) -> Chart {
    let bits: Vec<f64> = results.map_all.keys().map(|&bits| bits.into()).collect();
    let codes = Curve {
        name: "codes".to_owned(),
        points: bits.iter().zip(results.map_all.values()).map(|(&bits, map)| [bits, map[0]]).collect(),
        spread: results.map_all.values().map(|map| map[1]).collect(),
        line: 2,
    };
    let [features, _] = results.feature_map_all;
    let unquantised = Curve {
        name: "unquantised".to_owned(),
        points: bits.iter().map(|&bits| [bits, features]).collect(),
        spread: Vec::new(),
        line: REFERENCE,
    };
    let ends = results.map_all.values().flat_map(|[mean, sd]| [mean - sd, mean + sd]).chain([features]);
    let (low, high) = ends.fold((f64::MAX, f64::MIN), |(low, high), end| (low.min(end), high.max(end)));
    Chart {
        title: "mAP@all by code length".to_owned(),
        x: Axis::steps("bits", bits),
        y: Axis::linear("mAP@all", low, high),
        curves: vec![codes, unquantised],
    }
}

/// Draws relative distortion by code length.
pub(crate) fn distortion(results: &Results) -> Chart {
    let bits = bits_by_level(results);
    let curve = |name: &str, line: usize, distortion: &[f64]| Curve {
        name: name.to_owned(),
        points: bits.iter().zip(distortion).map(|(&bits, &x)| [bits, x]).collect(),
        spread: Vec::new(),
        line,
    };
    let mut curves = vec![curve("features", 2, &results.distortion)];
    curves.extend(results.baseline.iter().map(|pixels| curve("raw pixels", BASELINE, &pixels.distortion)));
    let values = || curves.iter().flat_map(|curve| &curve.points).map(|point| point[1]);
    let y =
        Axis::logarithmic("distortion", values().fold(f64::MAX, f64::min), values().fold(f64::MIN, f64::max));
    Chart { title: "Distortion by code length".to_owned(), x: Axis::steps("bits", bits), y, curves }
}

/// Draws how many codewords of each level are used, and their perplexity.
pub(crate) fn usage(results: &Results) -> Chart {
    let bits = bits_by_level(results);
    let curve = |name: &str, line: usize, values: Vec<f64>| Curve {
        name: name.to_owned(),
        points: bits.iter().zip(values).map(|(&bits, y)| [bits, y]).collect(),
        spread: Vec::new(),
        line,
    };
    let curves = vec![
        curve("codewords used", REFERENCE, results.usage.iter().map(|level| level.used).collect()),
        curve("perplexity", 2, results.usage.iter().map(|level| level.perplexity).collect()),
    ];
    let n_codewords = results.about.config["quantizer"]["codewords"].as_f64().unwrap_or(256.0);
    Chart {
        title: "Codewords used and perplexity, by level".to_owned(),
        x: Axis::steps("level, as the bits up to it", bits),
        y: Axis::linear("codewords", 0.0, n_codewords),
        curves,
    }
}

fn bits_by_level(results: &Results) -> Vec<f64> {
    (1..=results.distortion.len()).map(|level| 8.0 * level as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_data;

    #[test]
    fn figures_have_their_curves() {
        let results = test_data::results(3);
        let names =
            |chart: Chart| chart.curves.into_iter().map(|curve| curve.name).collect::<Vec<_>>().join(", ");
        assert_eq!(
            names(precision_recall(&results)),
            "8 bits, 16 bits, 24 bits, 32 bits, unquantised, raw pixels, 32 bits"
        );
        assert_eq!(
            names(precision_at(&results)),
            "8 bits, 16 bits, 24 bits, 32 bits, unquantised, raw pixels, unquantised"
        );
        assert_eq!(names(map_by_bits(&results)), "codes, unquantised");
        assert_eq!(names(distortion(&results)), "features, raw pixels");
        assert_eq!(names(usage(&results)), "codewords used, perplexity");
    }

    #[test]
    fn numbers_are_drawn_where_they_belong() {
        let results = test_data::results(3);
        let chart = map_by_bits(&results);
        assert_eq!(chart.curves[0].points[3], [32.0, results.map_all[&32][0]]);
        assert_eq!(chart.curves[0].spread[3], results.map_all[&32][1]);
        assert_eq!(distortion(&results).curves[0].points[1], [16.0, results.distortion[1]]);
    }
}
