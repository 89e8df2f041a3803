//! Checks of the repository's quick runs, on Fashion-MNIST and on collages of it.
//!
//! The floors lie 0.008 below the worst of four seeds of preset `quick`, which reached 0.793 to
//! 0.806 at 8 bits, 0.797 to 0.809 unquantised, and an accuracy of 0.865 to 0.871. Seeds differ by
//! that much, and processors may, too. The floors of collages lie about 0.02 below the one seed
//! that was trained.

use std::ops::RangeBounds;

use crate::results::{Results, Usage};

/// Minimum mAP@all at 8, 16, 24 and 32 bits and of unquantised features.
const FLOORS: [f64; 5] = [0.785, 0.787, 0.788, 0.788, 0.788];

/// Minimum accuracy of the classifier on the gallery.
const ACCURACY: f64 = 0.855;

/// Measured mAP@all of raw pixels at 8, 16, 24 and 32 bits and unquantised. An independent
/// implementation reaches 0.478, 0.472, 0.471, 0.473 and 0.475 on another split.
const PIXELS: [f64; 5] = [0.4810, 0.4763, 0.4768, 0.4764, 0.4775];

/// Maximum difference from [`PIXELS`].
const PIXELS_TOLERANCE: f64 = 0.004;

/// Minimum mAP@all of collages at 8, 16, 24 and 32 bits; 0.782, 0.791, 0.793 and 0.793 were
/// measured.
const COLLAGES: [f64; 4] = [0.762, 0.770, 0.772, 0.773];

/// Minimum difference between mAP@all of collages and of their raw pixels.
const ABOVE_PIXELS: f64 = 0.2;

/// Maximum mAP that codes may lose against their features, by length.
const LOSS: [f64; 4] = [0.006, 0.002, 0.002, 0.002];

/// Maximum mAP that may be lost from one length to the next.
const NOISE: f64 = 0.001;

const NAMES: [&str; 5] = ["8 bits", "16 bits", "24 bits", "32 bits", "unquantised"];

#[derive(Default)]
struct Complaints(Vec<String>);

impl Complaints {
    fn expect(&mut self, holds: bool, complaint: impl FnOnce() -> String) {
        self.0.extend((!holds).then(complaint));
    }

    /// Expects a value in a range, which never has NaN.
    fn within(&mut self, name: &str, value: f64, range: impl RangeBounds<f64>) {
        let [low, high] = [range.start_bound(), range.end_bound()];
        self.expect(range.contains(&value), || format!("{name} is {value:.4}, expected {low:?} to {high:?}"));
    }

    /// Checks what both runs must show.
    fn of(results: &Results, n_gallery: usize) -> Self {
        let mut found = Self::default();
        let items = results.about.items;
        let counts = [items.query, items.train, items.gallery];
        found.expect(counts == [1000, 5000, n_gallery], || {
            format!("queries, training and gallery images are {counts:?}")
        });
        let n = results.map_all.len();
        found.expect(n == 4, || format!("{n} code lengths instead of 4"));
        let distortion = &results.distortion;
        let falls = distortion.windows(2).all(|pair| pair[1] < pair[0]);
        found.expect(falls && distortion.iter().all(|x| (0.0..1.0).contains(x)), || {
            format!("distortion does not fall level by level: {distortion:.5?}")
        });
        for (name, maps) in [("mAP@all", &results.map_all), ("mAP@5000", &results.map_at_5000)] {
            let maps: Vec<f64> = maps.values().map(|map| map[0]).collect();
            for (pair, bits) in maps.windows(2).zip(&NAMES[1..]) {
                let holds = pair[1] >= pair[0] - NOISE;
                found.expect(holds, || format!("{name} falls to {:.4} at {bits}: {maps:.4?}", pair[1]));
            }
        }
        found.expect(results.baseline.is_some(), || "raw pixels are missing".to_owned());
        found
    }
}

/// Returns everything that a quick run on collages should show and `results` do not.
pub fn collages(results: &Results) -> Vec<String> {
    let mut found = Complaints::of(results, 20_000);
    let pixels = results.baseline.iter().flat_map(|baseline| baseline.map_all.values());
    for (((name, map), floor), pixels) in NAMES.iter().zip(results.map_all.values()).zip(COLLAGES).zip(pixels)
    {
        found.within(&format!("mAP@all at {name}"), map[0], floor.max(pixels + ABOVE_PIXELS)..1.0);
    }
    found.0
}

/// Returns everything that a quick run on Fashion-MNIST should show and `results` do not.
pub fn fashion_mnist(results: &Results) -> Vec<String> {
    let mut found = Complaints::of(results, 64_000);
    let codes: Vec<f64> = results.map_all.values().map(|map| map[0]).collect();
    let at_5000 = results.map_at_5000.values().map(|map| map[0]);
    let features = results.feature_map_all[0];
    for ((name, &map), floor) in NAMES.iter().zip(codes.iter().chain([&features])).zip(FLOORS) {
        found.within(&format!("mAP@all at {name}"), map, floor..1.0);
    }
    for ((name, &map), loss) in NAMES.iter().zip(&codes).zip(LOSS) {
        found.within(&format!("the loss of mAP at {name}"), features - map, ..=loss);
    }
    for (((name, &map), at_5000), ties) in NAMES.iter().zip(&codes).zip(at_5000).zip(results.ties.values()) {
        found.within(&format!("mAP@5000 at {name}"), at_5000, map..1.0);
        found.within(&format!("mAP@all at {name}"), map, ties.worst..=ties.best);
        found.within(&format!("mAP@all by id at {name}"), ties.by_id, ties.worst..=ties.best);
    }
    for (level, &Usage { used, perplexity, .. }) in results.usage.iter().enumerate() {
        found.within(&format!("the number of codewords used at level {level}"), used, 230.0..=256.0);
        found.within(&format!("the perplexity at level {level}"), perplexity, 1.0..=used);
    }
    let nests = results.usage.windows(2).all(|pair| pair[1].distinct >= pair[0].distinct);
    found.expect(nests, || "a longer code distinguishes fewer items".to_owned());
    let accuracy = results.accuracy.map_or(0.0, |accuracy| accuracy[0]);
    found.within("accuracy", accuracy, ACCURACY..=1.0);

    if let Some(baseline) = &results.baseline {
        let pixels = baseline.map_all.values().chain([&baseline.feature_map_all]);
        for ((name, &map), expected) in NAMES.iter().zip(pixels).zip(PIXELS) {
            let range = expected - PIXELS_TOLERANCE..=expected + PIXELS_TOLERANCE;
            found.within(&format!("mAP@all of raw pixels at {name}"), map, range);
        }
    }
    found.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_data;

    fn good_collages() -> Results {
        let mut results = test_data::results(1);
        results.about.items.gallery = 20_000;
        results
    }

    #[test]
    fn good_results_pass() {
        assert_eq!(fashion_mnist(&test_data::results(1)), [""; 0]);
        assert_eq!(collages(&good_collages()), [""; 0]);
    }

    #[track_caller]
    fn check(found: fn(&Results) -> Vec<String>, results: Results, complaint: &str) {
        let found = found(&results).join("\n");
        assert!(found.contains(complaint), "{complaint} is missing from {found}");
    }

    #[test]
    fn each_flaw_of_collages_is_named() {
        let check = |spoil: fn(&mut Results), complaint: &str| {
            let mut results = good_collages();
            spoil(&mut results);
            check(collages, results, complaint);
        };
        check(|r| r.about.items.gallery = 64_000, "[1000, 5000, 64000]");
        check(|r| r.map_all.get_mut(&8).unwrap()[0] = 0.7, "mAP@all at 8 bits is 0.7000");
        check(
            |r| *r.baseline.as_mut().unwrap().map_all.get_mut(&16).unwrap() = 0.8,
            "mAP@all at 16 bits is 0.8580, expected Included(1.0)",
        );
        check(|r| r.map_all.get_mut(&24).unwrap()[0] = 0.87, "mAP@all falls to 0.8587 at 32 bits");
        check(|r| r.distortion[1] = 0.5, "distortion does not fall");
        check(|r| r.baseline = None, "raw pixels are missing");
    }

    #[test]
    fn each_flaw_is_named() {
        let check = |spoil: fn(&mut Results), complaint: &str| {
            let mut results = test_data::results(1);
            spoil(&mut results);
            check(fashion_mnist, results, complaint);
        };
        check(|r| r.about.items.train = 4999, "[1000, 4999, 64000]");
        check(|r| r.map_all.get_mut(&8).unwrap()[0] = 0.5, "mAP@all at 8 bits is 0.5000");
        check(|r| r.feature_map_all[0] += 0.004, "the loss of mAP at 16 bits is 0.0048");
        check(|r| r.map_all.get_mut(&24).unwrap()[0] = 0.86, "mAP@all falls to 0.8587 at 32 bits");
        check(|r| r.map_at_5000.get_mut(&32).unwrap()[0] = 0.87, "mAP@5000 falls to 0.8700 at 32 bits");
        check(|r| r.map_at_5000.get_mut(&8).unwrap()[0] = 0.8, "mAP@5000 at 8 bits is 0.8000");
        check(|r| r.ties.get_mut(&8).unwrap().best = 0.8, "mAP@all by id at 8 bits is 0.8537");
        check(|r| r.distortion[1] = 0.5, "distortion does not fall");
        check(|r| r.usage[0].used = 100.0, "used at level 0 is 100.0000");
        check(|r| r.usage[1].perplexity = 0.5, "perplexity at level 1 is 0.5000");
        check(|r| r.usage[3].distinct = 1.0, "distinguishes fewer items");
        check(|r| r.accuracy = None, "accuracy is 0.0000");
        check(|r| r.baseline = None, "raw pixels are missing");
        check(
            |r| *r.baseline.as_mut().unwrap().map_all.get_mut(&16).unwrap() = 0.4,
            "mAP@all of raw pixels at 16 bits is 0.4000",
        );
        check(|r| r.map_all.get_mut(&8).unwrap()[0] = f64::NAN, "mAP@all at 8 bits is NaN");
    }
}
