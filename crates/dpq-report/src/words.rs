//! Names and numbers in the words that every part of a report shares.

use crate::results::{About, MeanSd, Results};

/// Returns the title of a report.
pub(crate) fn title(results: &Results) -> String {
    format!("Results on {}", name(results))
}

/// Returns what was trained, and the seeds.
pub(crate) fn name(results: &Results) -> String {
    let seeds: Vec<String> = results.per_seed.iter().map(|seed| seed.seed.to_string()).collect();
    let are_counted = results.per_seed.iter().zip(1..).all(|(seed, n)| seed.seed == n);
    let seeds = match &seeds[..] {
        [seed] => format!("seed {seed}"),
        [.., last] if are_counted => format!("seeds 1 to {last}"),
        seeds => format!("seeds {}", seeds.join(", ")),
    };
    let about = &results.about;
    let pretrained = if about.weights.is_some() { ", pretrained weights" } else { "" };
    let embeddings = if about.embeddings_file.is_some() { ", label embeddings given" } else { "" };
    let kind = if about.preset.ends_with(".toml") { "configuration" } else { "preset" };
    format!("{}, {kind} {}{pretrained}{embeddings}, {seeds}", about.dataset, preset(about))
}

/// Returns the preset and its changes.
pub(crate) fn preset(about: &About) -> String {
    match &about.changes[..] {
        [] => about.preset.clone(),
        changes => format!("{} changed by {}", about.preset, changes.join(" ")),
    }
}

/// Returns the body of the network and the size of its images, if the configuration names both.
pub(crate) fn network(about: &About) -> Option<String> {
    let network = &about.config["network"];
    let (input, body) = (network["input"].as_u64()?, network["body"].as_object()?);
    let (name, body) = body.iter().next()?;
    let blocks = body["blocks"].as_array().map(|blocks| {
        let blocks: Vec<String> = blocks.iter().map(ToString::to_string).collect();
        format!(" of {} {} blocks", blocks.join(", "), body["block"].as_str().unwrap_or_default())
    });
    Some(format!("{name}{} on {input}×{input}", blocks.unwrap_or_default()))
}

/// Returns the header of a column for each code length.
pub(crate) fn lengths(results: &Results) -> impl Iterator<Item = String> + use<'_> {
    results.map_all.keys().map(|bits| format!("{bits} bits"))
}

/// Returns the last values by level, as many as code lengths: product codes have one, the last.
pub(crate) fn of_lengths<'a, T>(results: &Results, by_level: &'a [T]) -> &'a [T] {
    &by_level[by_level.len().saturating_sub(results.map_all.len())..]
}

/// Writes a mean, and the deviation if there are several trainings.
pub(crate) fn spread(results: &Results, [mean, sd]: &MeanSd) -> String {
    if results.seeds == 1 { format!("{mean:.4}") } else { format!("{mean:.4} ± {sd:.4}") }
}

/// Writes a difference with its sign.
pub(crate) fn signed(x: f64) -> String {
    // Minus zero is not a loss.
    if x.abs() < 0.00005 { "0.0000".to_owned() } else { format!("{x:+.4}").replace('-', "−") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_data;

    #[test]
    fn differences_have_signs() {
        assert_eq!(
            [-0.0049, 0.00001, -0.00001, 0.012].map(signed),
            ["−0.0049", "0.0000", "0.0000", "+0.0120"]
        );
    }

    #[test]
    fn names_state_changes_and_seeds() {
        let mut results = test_data::results(1);
        results.about.changes = ["epochs=2", "quantizer.codewords=16"].map(str::to_owned).into();
        assert_eq!(
            title(&results),
            "Results on fashion-mnist, preset quick changed by epochs=2 quantizer.codewords=16, seed 1"
        );
        let mut results = test_data::results(3);
        assert_eq!(name(&results), "fashion-mnist, preset quick, seeds 1 to 3");
        results.per_seed[1].seed = 7;
        results.about.preset = "mine.toml".to_owned();
        results.about.embeddings_file = Some("glove.txt".to_owned());
        assert_eq!(
            name(&results),
            "fashion-mnist, configuration mine.toml, label embeddings given, seeds 1, 7, 3"
        );
    }
}
