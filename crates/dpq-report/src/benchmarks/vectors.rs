//! The comparison with faiss and turbovec on real vectors.

use super::results::{RealVectors, Run, VectorCode, VectorSet};
use super::words::{Section, count, microseconds, ratio};
use crate::plot::{Axis, Chart, Curve, heights, range};
use crate::table::{Table, line};

/// The searches that a figure shows: the library, the beginning of a name, and the line style.
const SHOWN: [(&str, &str, &str, usize); 6] = [
    ("dpq, exact", "dpq", "exact", 1),
    ("dpq, shortlists", "dpq", "", 2),
    ("faiss, PQ", "faiss", "PQ", 4),
    ("faiss, OPQ", "faiss", "OPQ", 5),
    ("faiss, RaBitQ", "faiss", "RR", 3),
    ("turbovec", "turbovec", "", 0),
];

/// Returns exact searches at equal bytes, which come first on the page.
pub(super) fn overview(run: &Run<RealVectors>) -> String {
    let results = &run.results;
    let mut parts = vec![
        "## Search of real vectors".to_owned(),
        format!(
            "Each library codes the same vectors in its own way, so recall differs, too: the share of the {k} nearest \
             vectors among the first {k} hits. One thread, k = {k}, lookup table included, sides in turns. Shortlists \
             `N@BITS`, as `dpq search --shortlist` takes them, are the best N at so many bits, ranked again by the \
             long code; all other searches are exact. \
             [Everything](#search-of-real-vectors-faiss-and-turbovec).",
            k = results.k
        ),
    ];
    for set in &results.sets {
        let label = format!("{} {}, D = {}, {}", count(set.items), set.name, set.dim, metric(&set.metric));
        let [first, second] = [0, 1].map(|i| set.kernels.get(i).map_or("", String::as_str));
        let second = format!("{second}, µs");
        let header = [
            "dpq, µs",
            &second,
            "lookup table, µs",
            "recall",
            "faiss `IndexPQ`, µs",
            "recall",
            "faiss over dpq",
        ];
        let rows = set.pairs().map(|(ours, theirs)| {
            let table = set.tables.iter().find(|table| ours.name == EXACT && Some(table.code) == ours.code);
            line(
                &name(ours),
                [
                    microseconds(ours.ns[0][0]),
                    ours.second_ns.map_or(String::new(), microseconds),
                    table.map_or(String::new(), |table| microseconds(table.ns)),
                    share(ours.recall[0].get(1)),
                    microseconds(theirs.ns[0][0]),
                    share(theirs.recall[0].get(1)),
                    ratio(times_faster(ours, theirs)),
                ],
            )
        });
        let ways = format!("dpq: {first}; faiss: {}", set.faiss_simd);
        parts.extend([format!("{label} ({ways}):"), Table::new("bytes of code", header, rows).to_string()]);
    }
    parts.join("\n\n") + "\n"
}

/// Returns all measurements.
pub(super) fn section(run: &Run<RealVectors>) -> Section {
    let results = &run.results;
    let mut parts = vec![format!(
        "recall@R is the share of the R nearest vectors, by an exact search, among the first R hits; {} queries. *Rescored* \
         searches rank the first {} hits again by the vectors, which need 4·D bytes more per vector. Times are medians \
         of {} rounds of {} queries, in µs per query with k = {}: one query at a time with one thread, and batches of {} \
         with two. Bytes per vector include what a code needs beside it, as norms; dpq keeps all lengths in one file.",
        count(results.queries as u64),
        results.depth,
        results.rounds,
        results.timed,
        results.k,
        results.batch
    )];
    for set in &results.sets {
        parts.push(format!(
            "### {} {}, D = {}, {}",
            count(set.items),
            set.name,
            set.dim,
            metric(&set.metric)
        ));
        parts.push(format!("![Time by recall, {}]({})", set.name, figure_file(set)));
        parts.push(table(set).to_string());
    }
    let left_out = results.left_out.iter().map(|(what, why)| format!("Left out: {what} ({why})"));
    let mut notes = vec![
        "`crates/dpq-index/benches/vectors/compare.py`; names of faiss's codes are those of its index factory. Padded vectors \
         (`Pad`) serve lengths that do not divide the dimension"
            .to_owned(),
        format!(
            "Trained on the vectors that are searched, by the defaults of each library, with 64 levels for dpq. OPQ has {} \
             rounds, RQ plain k-means, and all but PQ {} evenly spaced vectors. turbovec is calibrated by 1,024, as it \
             advises",
            results.opq_rounds,
            count(results.sample as u64)
        ),
        "Pixels are those of Fashion-MNIST by `dpq data export`, of unit length. Features are those of CIFAR-10 by `dpq \
         features`, from a residual network of 2, 2, 2 and 3 blocks that learnt ImageNet, at 64×64, scaled to unit length. Sentences are the \
         descriptions of Debian's packages by all-MiniLM-L6-v2, of unit length, and queries are the packages' summaries. \
         turbovec ranks by inner product, which has the same order at unit length"
            .to_owned(),
    ];
    notes.extend(left_out);
    notes.extend(results.sets.iter().map(note));
    parts.extend(["### How".to_owned(), run.how(&notes)]);
    let ratios = results.sets.iter().flat_map(|set| {
        set.pairs().map(|(ours, theirs)| {
            (format!("{}, {}, IndexPQ", set.name, bytes_of(ours)), times_faster(ours, theirs))
        })
    });
    let ratios = ratios.collect();
    Section::new("Search of real vectors: faiss and turbovec", &parts, ratios)
}

/// Draws time by recall for each set. Returns figures by file name.
pub(super) fn figures(run: &Run<RealVectors>) -> impl Iterator<Item = (String, String)> {
    run.results.sets.iter().map(|set| {
        let curve = |(name, library, beginning, drawn): (&str, &str, &str, usize)| {
            let is_shown = |row: &&VectorCode| {
                let is_other = library == "dpq" && beginning.is_empty() && row.name == EXACT;
                row.program == library
                    && row.name.starts_with(beginning)
                    && !is_other
                    && !row.name.ends_with("fs")
            };
            let shown = set.rows.iter().filter(|row| row.metric == set.metric).filter(is_shown);
            let points = shown.map(|row| [row.recall[0][1], row.ns[0][0] as f64 / 1e3]);
            Curve::new(name, points, drawn)
        };
        let curves = SHOWN.into_iter().map(curve).filter(|curve| !curve.points.is_empty());
        let curves: Vec<Curve> = curves.collect();
        let recalls = curves.iter().flat_map(|curve| &curve.points).map(|point| point[0]);
        let (x, y) =
            (Axis::linear("recall@10", range(recalls)), Axis::logarithmic("µs per query", heights(&curves)));
        (figure_file(set), Chart { title: format!("Time by recall, {}", set.name), x, y, curves }.svg())
    })
}

fn figure_file(set: &VectorSet) -> String {
    format!("benchmarks/vectors-{}.svg", set.name)
}

fn table(set: &VectorSet) -> Table {
    let header = [
        "bytes",
        "recall@1",
        "@10",
        "@100",
        "µs",
        "µs, 2 threads",
        "rescored: recall@1",
        "@10",
        "µs",
        "µs, 2 threads",
        "file, MB",
    ];
    let rows = set.rows.iter().map(|row| {
        let [[one, one_rescored], [two, two_rescored]] = row.ns;
        let name = match (&*row.program, row.metric == set.metric) {
            ("dpq", true) => format!("dpq, {}", bytes_of(row)),
            ("dpq", false) => format!("dpq, {}, {}", metric(&row.metric), bytes_of(row)),
            (library, _) => format!("{library}, `{}`", row.name),
        };
        let [plain, rescored] = &row.recall;
        let mut cells = vec![row.bytes.to_string()];
        cells.extend((0..3).map(|i| share(plain.get(i))));
        cells.extend([microseconds(one), microseconds(two)]);
        cells.extend((0..2).map(|i| share(rescored.get(i))));
        cells.extend([microseconds(one_rescored), microseconds(two_rescored)]);
        cells.push(megabytes(row.file_bytes));
        line(&name, cells)
    });
    Table::new("", header, rows)
}

fn note(set: &VectorSet) -> String {
    let seconds = set.seconds.iter().map(|(what, seconds)| format!("{what} {seconds:.0} s"));
    let codebooks = 32 * 256 * 4 * set.dim as u64;
    format!(
        "{}: dpq with {}, faiss with {}; a call of faiss without a search takes {} µs. A file of dpq with 32 levels has \
         {} MB, of them {} MB codebooks, and {:.1} bytes more per vector: code, norms at several lengths, order. Making \
         each index with all cores: {}",
        set.name,
        set.kernels.first().map_or("", |kernel| kernel),
        set.faiss_simd,
        microseconds(set.empty_call_ns),
        megabytes(set.file_bytes_of_32),
        megabytes(codebooks),
        set.file_bytes_of_32.saturating_sub(codebooks) as f64 / set.items as f64,
        seconds.collect::<Vec<_>>().join(", ")
    )
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

const EXACT: &str = "exact";

impl VectorSet {
    /// Returns searches of dpq and the product quantizer of faiss whose codes are as long.
    fn pairs(&self) -> impl Iterator<Item = (&VectorCode, &VectorCode)> {
        let ours = self.rows.iter().filter(|row| row.program == "dpq" && row.metric == self.metric);
        ours.filter_map(|ours| {
            let is_as_long = |row: &&VectorCode| row.program == "faiss" && row.code == ours.code;
            Some((ours, self.rows.iter().find(is_as_long)?))
        })
    }
}

fn name(row: &VectorCode) -> String {
    bytes_of(row).replace(" bytes", "").replace(" byte", "")
}

fn bytes_of(row: &VectorCode) -> String {
    let bytes = row.code.unwrap_or(row.bytes);
    let Some((n, at)) = row.name.split_once('@') else {
        return format!("{bytes} byte{}", if bytes == 1 { "" } else { "s" });
    };
    let end = if at.ends_with('!') { " continued until exact" } else { "" };
    // Measured names count bytes; the option counts bits.
    let bits =
        at.trim_end_matches('!').parse::<u64>().map_or_else(|_| at.to_owned(), |at| (8 * at).to_string());
    format!("{bytes} bytes, shortlist `{n}@{bits}`{end}")
}

fn times_faster(ours: &VectorCode, theirs: &VectorCode) -> f64 {
    theirs.ns[0][0] as f64 / ours.ns[0][0] as f64
}

fn share(share: Option<&f64>) -> String {
    share.map_or(String::new(), |share| format!("{share:.3}"))
}

fn metric(metric: &str) -> &str {
    super::search::metric_name(metric)
}
