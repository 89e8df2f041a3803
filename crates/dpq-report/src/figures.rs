//! The figures that need nothing but the results.

use crate::plot::{Axis, BASELINE, Chart, Curve, REFERENCE, heights, length_line, range};
use crate::results::{ByBits, ByRank, NamedCurve, Results};
use crate::words::of_lengths;

/// Draws precision by recall.
pub(crate) fn precision_recall(results: &Results) -> Chart {
    let curves = &results.precision_recall;
    let n_lengths = results.map_all.len();
    let curve = |(i, curve): (usize, &NamedCurve)| {
        let line = if i < n_lengths { length_line(i, n_lengths) } else { REFERENCE + i - n_lengths };
        let points = curves.recall.iter().zip(&curve.precision).map(|(&x, &y)| [x, y]);
        Curve::new(&curve.name, points, line)
    };
    Chart {
        title: "Precision by recall".to_owned(),
        x: Axis::linear("recall", [0.0, 1.0]),
        y: Axis::linear("precision", [0.0, 1.0]),
        curves: curves.curves.iter().enumerate().map(curve).collect(),
    }
}

/// Draws precision within the first R ranks, by R.
pub(crate) fn precision_at(results: &Results) -> Chart {
    let curve = |name: String, line: usize, by_rank: &ByRank<f64>| {
        Curve::new(name, by_rank.iter().map(|(&rank, &precision)| [rank.into(), precision]), line)
    };
    let lengths = results.precision_at.iter().enumerate();
    let line = |i| length_line(i, results.precision_at.len());
    let mut curves: Vec<Curve> =
        lengths.map(|(i, (bits, by_rank))| curve(format!("{bits} bits"), line(i), by_rank)).collect();
    curves.push(curve("unquantised".to_owned(), REFERENCE, &results.feature_precision_at));
    curves.extend(
        results.baseline.iter().map(|pixels| {
            curve("raw pixels, unquantised".to_owned(), BASELINE, &pixels.feature_precision_at)
        }),
    );
    let last = curves.iter().flat_map(|curve| &curve.points).map(|point| point[0]).fold(10.0, f64::max);
    Chart {
        title: "Precision at R".to_owned(),
        x: Axis::logarithmic("R, items retrieved", [1.0, last]),
        y: Axis::linear("precision@R", [0.0, 1.0]),
        curves,
    }
}

/// Draws mAP@all by code length, with the deviation over seeds.
pub(crate) fn map_by_bits(results: &Results) -> Chart {
    let bits: Vec<f64> = results.map_all.keys().map(|&bits| bits.into()).collect();
    let maps = bits.iter().zip(results.map_all.values()).map(|(&bits, map)| [bits, map[0]]);
    let spread = results.map_all.values().map(|map| map[1]).collect();
    let codes = Curve { spread, ..Curve::new("codes", maps, 2) };
    let [features, _] = results.feature_map_all;
    let unquantised = Curve::new("unquantised", bits.iter().map(|&bits| [bits, features]), REFERENCE);
    let ends = results.map_all.values().flat_map(|[mean, sd]| [mean - sd, mean + sd]).chain([features]);
    Chart {
        title: "mAP@all by code length".to_owned(),
        y: Axis::linear("mAP@all", range(ends)),
        x: Axis::steps("bits", bits),
        curves: vec![codes, unquantised],
    }
}

/// Draws relative distortion by code length.
pub(crate) fn distortion(results: &Results) -> Chart {
    let pixels = results.baseline.iter();
    let pixels = pixels.map(|pixels| by_length(&pixels.map_all, "raw pixels", &pixels.distortion, BASELINE));
    let curves: Vec<_> =
        [by_length(&results.map_all, "features", &results.distortion, 2)].into_iter().chain(pixels).collect();
    Chart {
        title: "Distortion by code length".to_owned(),
        x: Axis::steps("bits", bits(results)),
        y: Axis::logarithmic("distortion", heights(&curves)),
        curves,
    }
}

/// Draws how many codewords of each level are used, and their perplexity.
pub(crate) fn usage(results: &Results) -> Chart {
    let levels = of_lengths(results, &results.usage).iter();
    let used: Vec<f64> = levels.clone().map(|level| level.used).collect();
    let perplexity: Vec<f64> = levels.map(|level| level.perplexity).collect();
    let curve = |name, values: &[f64], line| by_length(&results.map_all, name, values, line);
    let n_codewords = results.about.config["quantizer"]["codewords"].as_f64().unwrap_or(256.0);
    Chart {
        title: "Codewords used and perplexity, by level".to_owned(),
        x: Axis::steps("level, as the bits up to it", bits(results)),
        y: Axis::linear("codewords", [0.0, n_codewords]),
        curves: vec![curve("codewords used", &used, REFERENCE), curve("perplexity", &perplexity, 2)],
    }
}

/// Draws values by the lengths that `maps` has.
fn by_length<T>(maps: &ByBits<T>, name: &str, values: &[f64], line: usize) -> Curve {
    Curve::new(name, maps.keys().zip(values).map(|(&bits, &y)| [f64::from(bits), y]), line)
}

fn bits(results: &Results) -> Vec<f64> {
    results.map_all.keys().map(|&bits| f64::from(bits)).collect()
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
