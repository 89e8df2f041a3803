//! `docs/codes.md`, and the speed of fitting and encoding beside faiss.

use super::results::{Codes, CodesOf, Length, Run};
use super::words::{Section, count, ratio, unique};
use crate::files::Files;
use crate::plot::{Axis, Chart, Curve, heights};
use crate::table::{Table, line};

/// The codes of the figures, and the line style of each.
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
    let table = Table::new("", ["dpq", "faiss", "ratio", ""], rows);
    let text = [
        format!(
            "Four levels of residual quantization, CPU time, one thread per side, interleaved. k-means takes {} rounds per \
             level unless the row names another number; dpq counts them from the round that has all codewords, and the \
             default of faiss takes them ten times, for an increasing number of principal directions. Encoding uses the \
             same codebooks; the rate of faiss is the better of its two ways, products with residuals and tables. \
             [codes.md](codes.md) compares the quality of the codes.",
            run.results.iterations
        ),
        table.to_string(),
        run.how(&["`crates/dpq-codebook/benches/faiss/compare.py`, both sides on one core".to_owned()]),
    ];
    Section::new("Fitting codebooks and encoding: faiss", &text, ratios)
}

/// Returns `docs/codes.md`.
pub(super) fn page(run: &Run<Codes>) -> String {
    let Codes { codewords, iterations, rounds, faiss_rounds, jobs, codes, .. } = &run.results;
    // Its items and queries are those of searches, not of this page.
    let command = run.command.split(" --items").next().unwrap_or_default();
    let mut sections = vec![
        "# Codes: greedy, beam search, refined, and faiss".to_owned(),
        format!(
            "`{command}` measured every number on this page. Codebooks of {codewords} codewords per level are fitted to items by \
             {iterations} rounds of k-means; refined codebooks take {rounds} more rounds. Distortion is the mean squared \
             error over the mean squared norm, for the items that were fitted and for held-out items. recall@R is the share \
             of queries whose nearest fitted item, by exact Euclidean distance, is among the first R hits."
        ),
        format!(
            "*Fitted for every length* is `dpq codebook train --beam 5`, and *refined* adds `--refine {rounds}`; the row names \
             the beam of `dpq encode`. *For the longest* is `--length-weights 0,..,0,1`, which counts only the error of the \
             longest code. faiss fits and encodes with the beam in the row, for the longest code only: prefixes of its codes \
             are codes, but nothing optimizes them. It fits by its default, progressive dimensions \
             (`Train_progressive_dim`). *Top of the beam* adds `Train_top_beam`, which fits only to the best entry of the \
             beam. *Refined* adds `Train_refine_codebook`: {faiss_rounds} rounds, the default, of encoding and least squares \
             over all levels at once."
        ),
    ];
    for set in unique(codes.iter().map(|codes| &codes.set)) {
        let of_set = || codes.iter().filter(|codes| codes.set == *set);
        if let Some(CodesOf { items, others, queries, dim, .. }) = of_set().next() {
            let each = *items as f64 / *codewords as f64;
            let [items, others, queries] = [items, others, queries].map(|&n| count(n as u64));
            sections.push(format!("## {}", capital(set)));
            sections.push(format!(
                "{items} items, {each:.0} per codeword of a level; {others} held-out items; {queries} queries; D = {dim}."
            ));
            sections.push(format!("![Distortion by length, {set}]({})", figure(set)));
        }
        for levels in unique(of_set().map(|codes| codes.levels)) {
            let rows: Vec<_> = of_set().filter(|codes| codes.levels == levels).collect();
            let bits = 8 * levels;
            for (of, distortion) in DISTORTIONS {
                sections.push(format!("### {}, {bits} bits: distortion of each length, {of}", capital(set)));
                sections.push(distortions(&rows, distortion).to_string());
                sections.extend(gain(&rows, distortion));
            }
            sections.push(format!(
                "### {}, {bits} bits: time to fit and to encode the fitted items",
                capital(set)
            ));
            sections.push(times(&rows).to_string());
            sections.push(format!("### {}, {bits} bits: recall@1, @10, @100 of each length", capital(set)));
            sections.push(recalls(&rows).to_string());
        }
    }
    let note = format!(
        "Pixels are Fashion-MNIST's training images; features are those of its gallery by preset `quick`. Fitting and \
         encoding are CPU times with one thread; {jobs} sets and lengths ran at the same time"
    );
    sections.extend(["## How".to_owned(), run.how(&[note])]);
    sections.join("\n\n") + "\n"
}

/// Draws the distortion of every prefix of the longest codes on the fitted items. Returns figures
/// by file name.
pub(super) fn figures(run: &Run<Codes>) -> Files {
    let codes = &run.results.codes;
    let chart = |set: &String| {
        let of_set = || codes.iter().filter(|codes| codes.set == *set);
        let longest = of_set().map(|codes| codes.levels).max();
        let curve = |(name, drawn): (&str, usize)| {
            let found = of_set().find(|codes| codes.codes == name && Some(codes.levels) == longest)?;
            let points = found.lengths.iter().map(|length| [length.bits.into(), length.distortion]);
            Some(Curve::new(name, points, drawn))
        };
        let curves: Vec<Curve> = SHOWN.into_iter().filter_map(curve).collect();
        let bits = (1..=longest.unwrap_or(1)).map(|levels| 8.0 * levels as f64).collect();
        let title = format!("Distortion by code length, {set} fitted");
        let (x, y) = (Axis::steps("bits", bits), Axis::logarithmic("distortion", heights(&curves)));
        (figure(set), Chart { title, x, y, curves }.svg())
    };
    unique(codes.iter().map(|codes| &codes.set)).into_iter().map(chart).collect()
}

fn figure(set: &str) -> String {
    format!("benchmarks/distortion-{set}.svg")
}

/// The items whose distortion is shown.
const DISTORTIONS: [(&str, Distortion); 2] =
    [("fitted items", |length| length.distortion), ("held-out items", |length| length.others_distortion)];
type Distortion = fn(&Length) -> f64;

fn distortions(codes: &[&CodesOf], distortion: Distortion) -> Table {
    let row = |codes: &&CodesOf| {
        let lengths = codes.lengths.iter().map(|length| format!("{:.5}", distortion(length)));
        line(&codes.codes, lengths)
    };
    Table::new("", lengths(codes), codes.iter().map(row))
}

fn times(codes: &[&CodesOf]) -> Table {
    let row = |codes: &&CodesOf| line(&codes.codes, [codes.fit_ns, codes.encode_ns].map(seconds));
    Table::new("", ["fitting", "encoding"], codes.iter().map(row))
}

fn recalls(codes: &[&CodesOf]) -> Table {
    let row = |codes: &&CodesOf| {
        let recalls = codes.lengths.iter().map(|length| {
            length.recall.values().map(|recall| format!("{recall:.3}")).collect::<Vec<_>>().join(" ")
        });
        line(&codes.codes, recalls)
    };
    Table::new("", lengths(codes), codes.iter().map(row))
}

fn seconds(ns: u64) -> String {
    format!("{:.2} s", ns as f64 / 1e9)
}

/// Returns the header of a column for each length.
fn lengths(codes: &[&CodesOf]) -> impl Iterator<Item = String> {
    codes.iter().take(1).flat_map(|codes| &codes.lengths).map(|length| format!("{} bits", length.bits))
}

/// Compares codes refined for every length with greedy codes.
fn gain(codes: &[&CodesOf], distortion: Distortion) -> Option<String> {
    let find = |name: &str| codes.iter().find(|codes| codes.codes == name);
    let (greedy, refined) = (find(GREEDY)?, find(REFINED)?);
    let pairs = greedy.lengths.iter().zip(&refined.lengths);
    let changes: Vec<f64> = pairs.map(|(a, b)| 100.0 * (distortion(b) / distortion(a) - 1.0)).collect();
    let (longest, prefixes) = changes.split_last()?;
    let worst = prefixes.iter().copied().max_by(f64::total_cmp)?;
    Some(format!(
        "Codes refined for every length (beam 5) have {longest:+.1} % distortion compared with greedy codes at the full \
         length, and at worst {worst:+.1} % at a shorter length."
    ))
}

fn capital(name: &str) -> String {
    let (first, rest) = name.split_at(name.chars().next().map_or(0, char::len_utf8));
    first.to_uppercase() + rest
}
