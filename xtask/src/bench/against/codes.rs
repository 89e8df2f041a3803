//! `docs/codes.md`, and the rates of fitting and encoding beside faiss.

use super::results::{Codes, CodesOf, Length, Run};
use super::{Section, count, ratio, unique};
use crate::reproduce::plot::{Axis, Chart, Curve};
use crate::table::{Table, line};

/// The codes of the figures, and the line of each.
const SHOWN: [(&str, usize); 5] = [
    ("dpq, greedy", 1),
    ("dpq, refined for every length, beam 5", 2),
    ("dpq, refined for the longest, beam 5", 3),
    ("faiss, beam 1", 4),
    ("faiss, beam 5", 5),
];
const GREEDY: &str = SHOWN[0].0;
const REFINED: &str = SHOWN[1].0;

pub(super) fn rates(run: &Run<Codes>) -> Section {
    let (mut rows, mut ratios) = (Vec::new(), Vec::new());
    let mut row = |name: String, [ours, theirs]: [String; 2], times_faster, left| {
        rows.push(line(&name, [ours, theirs, ratio(times_faster), left]));
        ratios.push((name, times_faster));
    };
    for fit in &run.results.fitting {
        row(
            format!("{}: residual k-means; {}", fit.set, fit.way),
            [fit.ours_ns, fit.faiss_ns].map(seconds),
            fit.faiss_ns as f64 / fit.ours_ns as f64,
            format!("distortion {:.5}, faiss {:.5}", fit.ours_distortion, fit.faiss_distortion),
        );
    }
    for encoding in &run.results.encoding {
        let rates = [encoding.ours_per_second, encoding.faiss_per_second];
        row(
            format!("{}: encoding, beam {}", encoding.set, encoding.width),
            rates.map(|rate| format!("{} /s", count(rate.round() as u64))),
            rates[0] / rates[1],
            format!("{:.2} % of codes equal", 100.0 * encoding.equal_codes),
        );
    }
    let table = Table { header: line("", ["dpq", "faiss", "ratio", ""].map(str::to_owned)), rows };
    let text = [
        format!(
            "Four levels of residual quantization, time of the CPU, one thread a side, by turns. k-means takes {} rounds a \
             level where no other number is named, ours once it has all codewords; faiss's default takes them ten times, \
             for more and more principal directions. Encoding is with the same codebooks; faiss's rate is the better of its \
             two ways, products with residuals and tables. What the codes are worth: [codes.md](codes.md).",
            run.results.iterations
        ),
        table.to_string(),
        run.how(&["`crates/dpq-codebook/benches/faiss/compare.py`, both on one core".to_owned()]),
    ];
    Section { title: "Fitting codebooks and encoding: faiss", text: text.join("\n\n"), ratios }
}

/// The whole of `docs/codes.md`.
pub(super) fn page(run: &Run<Codes>) -> String {
    let Codes { codewords, iterations, rounds, faiss_rounds, jobs, codes, .. } = &run.results;
    let mut sections = vec![
        "# Codes: greedy, by beam search, refined, and faiss's".to_owned(),
        format!(
            "Written by `{}`, and every number is what that run measured. Codebooks of {codewords} codewords a level are \
             fitted to items by {iterations} rounds of k-means, refined ones by {rounds} rounds more. Distortion is the mean \
             squared error over the mean squared norm, of the items fitted and of others that were not. recall@R is the share \
             of queries whose nearest item of those fitted, by exact Euclidean distance, is among the first R.",
            run.command
        ),
        format!(
            "Fitted for every length is `dpq codebook train --beam 5`, refined is `--refine {rounds}` beside it; the beam named is \
             that of `dpq encode`. For the longest is `--length-weights 0,..,0,1`, which counts only the error of the longest \
             code. faiss fits and encodes with the beam named, for the longest code alone: its prefixes are codes too, but \
             nothing has made them good ones. It fits as it does by default, by progressive dimensions \
             (`Train_progressive_dim`); top of the beam adds `Train_top_beam`, by which only the best of a beam is fitted to, \
             and refined adds `Train_refine_codebook`: \
             {faiss_rounds} rounds, its default, of encoding and least squares over all levels at once."
        ),
    ];
    for set in unique(codes.iter().map(|codes| &codes.set)) {
        let of_set = || codes.iter().filter(|codes| codes.set == *set);
        if let Some(CodesOf { items, others, queries, dim, .. }) = of_set().next() {
            let each = *items as f64 / *codewords as f64;
            let [items, others, queries] = [items, others, queries].map(|&n| count(n as u64));
            sections.push(format!("## {}", capital(set)));
            sections.push(format!(
                "{items} items, {each:.0} for each codeword of a level; {others} others; {queries} queries; D = {dim}."
            ));
            sections.push(format!("![Distortion by length, {set}](benchmarks/{})", figure(set)));
        }
        for levels in unique(of_set().map(|codes| codes.levels)) {
            let rows: Vec<_> = of_set().filter(|codes| codes.levels == levels).collect();
            let bits = 8 * levels;
            for (of, distortion) in DISTORTIONS {
                sections.push(format!("### {}, {bits} bits: distortion of each length, {of}", capital(set)));
                sections.push(distortions(&rows, distortion).to_string());
                sections.extend(gain(&rows, distortion));
            }
            sections.push(format!("### {}, {bits} bits: time of the items fitted", capital(set)));
            sections.push(times(&rows).to_string());
            sections.push(format!("### {}, {bits} bits: recall@1, @10, @100 of each length", capital(set)));
            sections.push(recalls(&rows).to_string());
        }
    }
    let note = format!(
        "The pixels are those of Fashion-MNIST's training images, the features those that preset `quick` makes of its gallery. \
         Times of fitting and encoding are of the CPU, one thread; {jobs} sets and lengths were worked on at once"
    );
    sections.extend(["## How".to_owned(), run.how(&[note])]);
    sections.join("\n\n") + "\n"
}

/// Figures by name: the distortion of every prefix of the longest codes, items fitted.
pub(super) fn figures(run: &Run<Codes>) -> Vec<(String, String)> {
    let codes = &run.results.codes;
    let chart = |set: &String| {
        let of_set = || codes.iter().filter(|codes| codes.set == *set);
        let most = of_set().map(|codes| codes.levels).max();
        let curve = |(name, drawn): (&str, usize)| {
            let found = of_set().find(|codes| codes.codes == name && Some(codes.levels) == most)?;
            let points = found.lengths.iter().map(|length| [length.bits.into(), length.distortion]).collect();
            Some(Curve { name: name.to_owned(), points, spread: Vec::new(), line: drawn })
        };
        let curves: Vec<Curve> = SHOWN.into_iter().filter_map(curve).collect();
        let points = || curves.iter().flat_map(|curve| &curve.points);
        let (low, high) =
            points().fold((f64::MAX, f64::MIN), |(low, high), [_, y]| (low.min(*y), high.max(*y)));
        let bits = (1..=most.unwrap_or(1)).map(|levels| 8.0 * levels as f64).collect();
        let title = format!("Distortion by code length, {set} fitted");
        let (x, y) = (Axis::steps("bits", bits), Axis::logarithmic("distortion", low, high));
        (figure(set), Chart { title, x, y, curves }.svg())
    };
    unique(codes.iter().map(|codes| &codes.set)).into_iter().map(chart).collect()
}

fn figure(set: &str) -> String {
    format!("distortion-{set}.svg")
}

/// A distortion, and of what.
const DISTORTIONS: [(&str, Distortion); 2] =
    [("items fitted", |length| length.distortion), ("others", |length| length.others_distortion)];
type Distortion = fn(&Length) -> f64;

fn distortions(codes: &[&CodesOf], distortion: Distortion) -> Table {
    let row = |codes: &&CodesOf| {
        let lengths = codes.lengths.iter().map(|length| format!("{:.5}", distortion(length)));
        line(&codes.codes, lengths)
    };
    Table { header: lengths(codes), rows: codes.iter().map(row).collect() }
}

fn times(codes: &[&CodesOf]) -> Table {
    let row = |codes: &&CodesOf| line(&codes.codes, [codes.fit_ns, codes.encode_ns].map(seconds));
    let header = line("", ["fitting", "encoding"].map(str::to_owned));
    Table { header, rows: codes.iter().map(row).collect() }
}

fn recalls(codes: &[&CodesOf]) -> Table {
    let row = |codes: &&CodesOf| {
        let recalls = codes.lengths.iter().map(|length| {
            length.recall.values().map(|recall| format!("{recall:.3}")).collect::<Vec<_>>().join(" ")
        });
        line(&codes.codes, recalls)
    };
    Table { header: lengths(codes), rows: codes.iter().map(row).collect() }
}

fn seconds(ns: u64) -> String {
    format!("{:.2} s", ns as f64 / 1e9)
}

/// A header: the lengths.
fn lengths(codes: &[&CodesOf]) -> Vec<String> {
    let lengths = codes.iter().take(1).flat_map(|codes| &codes.lengths);
    line("", lengths.map(|length| format!("{} bits", length.bits)))
}

/// What refinement for every length is worth beside greedy codes.
fn gain(codes: &[&CodesOf], distortion: Distortion) -> Option<String> {
    let find = |name: &str| codes.iter().find(|codes| codes.codes == name);
    let (greedy, refined) = (find(GREEDY)?, find(REFINED)?);
    let pairs = greedy.lengths.iter().zip(&refined.lengths);
    let changes: Vec<f64> = pairs.map(|(a, b)| 100.0 * (distortion(b) / distortion(a) - 1.0)).collect();
    let (longest, prefixes) = changes.split_last()?;
    let worst = prefixes.iter().copied().max_by(f64::total_cmp)?;
    Some(format!(
        "Distortion of codes refined for every length (beam 5) beside the greedy ones: {longest:+.1} % at the full length, at \
         worst {worst:+.1} % at a shorter one."
    ))
}

fn capital(name: &str) -> String {
    let (first, rest) = name.split_at(name.chars().next().map_or(0, char::len_utf8));
    first.to_uppercase() + rest
}
