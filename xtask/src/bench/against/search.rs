//! The section of searches beside faiss.

use super::results::{Batch, FastScan, InARow, Ranking, Run, Search, Searches};
use super::{Section, count, microseconds, unique};
use crate::reproduce::plot::{Axis, Chart, Curve};
use crate::table::{Table, line};

/// What was measured, in words and tables.
pub(super) fn section(run: &Run<Searches>) -> Section {
    let results = &run.results;
    let mut sections = vec![
        format!(
            "One thread, D = {} dimensions, K = {} codewords a level, L = 4 levels, lookup table included, median of {} \
             queries.",
            results.dim, results.codewords, results.queries
        ),
        "### How many times faster".to_owned(),
        "A cell is the time of the fastest exact scan of the same codes in faiss over that of dpq-index, which is \
         in parentheses. By turns, every search of dpq-index comes after a scan of faiss has gone through the \
         caches; in a row, each side answers all queries alone."
            .to_owned(),
        format!("![Time of a query by code length](benchmarks/{FIGURE})"),
    ];
    for (items, metric) in unique(results.searches.iter().map(|search| (search.items, &search.metric))) {
        let rows =
            || results.searches.iter().filter(|search| search.items == items && search.metric == *metric);
        let name = |search: &Search| (search_name(search), search.k);
        let by_turns = rows().map(|search| (name(search), (faiss(search), ours(results, search))));
        let in_a_row =
            rows().map(|search| (name(search), (search.in_a_row.faiss_ns, search.in_a_row.ours_ns)));
        let title = format!("#### {} items, {}", count(items), metric_name(metric));
        sections.extend([format!("{title}, by turns"), by_k(by_turns).to_string()]);
        sections.extend([format!("{title}, in a row"), by_k(in_a_row).to_string()]);
    }
    sections.extend([
        "### Batches".to_owned(),
        format!(
            "{} queries in one call of both, inner product, one thread, µs a query; faiss is `IndexPQ`.",
            results.batch
        ),
    ]);
    for items in unique(results.batches.iter().map(|batch| batch.items)) {
        sections.push(format!("#### {} items", count(items)));
        let rows = results.batches.iter().filter(|batch| batch.items == items);
        let cells = rows.map(|batch| {
            ((format!("{}, {} bits", batch.shape, batch.bits), batch.k), (batch.faiss_ns, batch.ours_ns))
        });
        sections.push(by_k(cells).to_string());
    }
    sections.extend([
        "### Whole rankings".to_owned(),
        format!(
            "All {} items of shape clustered in order, for {} queries, inner product.",
            count(results.ranking_items as u64),
            count(results.ranking_queries as u64)
        ),
        rankings(results).to_string(),
        "### Files, memory, building".to_owned(),
        "One file answers at all four lengths. faiss has an index a length, 1 + 2 + 3 + 4 bytes an item, and four \
         more in each for Euclidean distance. Building is sorting with row numbers as ids, writing and syncing the \
         file, one thread; its memory is the peak beyond the codes given. Opening, the median of nine times, takes \
         the file from the page cache. Memory is what the process holds more than before, pages of the mapped file \
         included, once open and after all searches of this page."
            .to_owned(),
        files(results).to_string(),
        "### FastScan".to_owned(),
        "Faster scans in faiss take 16 codewords a sub-vector, so they cannot search these codes. \
         `IndexPQFastScan`, with 32 bits too, encodes the vectors that the codes stand for once more. Recall is the \
         share of its answer whose exact score is at least that of the k-th best; that of the exact scans is 1."
            .to_owned(),
        fast_scans(results).to_string(),
        "### Every search".to_owned(),
        "By turns, µs a query. The last column is the time of the scalar kernel over that of the fastest.".to_owned(),
    ]);
    for (items, metric) in unique(results.searches.iter().map(|search| (search.items, &search.metric))) {
        sections.push(format!("#### {} items, {}, µs", count(items), metric_name(metric)));
        sections.push(searches(results, items, metric).to_string());
    }
    sections.extend(["### How".to_owned(), run.how(&how(results))]);
    Section { title: "Search of codes: faiss", text: sections.join("\n\n"), ratios: ratios(results) }
}

/// Those of all tables but the last ones, which are of kernels of ours.
fn ratios(results: &Searches) -> Vec<(String, f64)> {
    let times_faster = |theirs: u64, ours: u64| theirs as f64 / ours as f64;
    let mut ratios = Vec::new();
    for search in &results.searches {
        let (items, metric) = (count(search.items), metric_name(&search.metric));
        let name = format!("{items} items, {metric}, {}, k = {}", search_name(search), search.k);
        let InARow { faiss_ns, ours_ns } = search.in_a_row;
        ratios.push((format!("{name}, by turns"), times_faster(faiss(search), ours(results, search))));
        ratios.push((format!("{name}, in a row"), times_faster(faiss_ns, ours_ns)));
    }
    ratios.extend(results.batches.iter().map(|Batch { items, shape, bits, k, faiss_ns, ours_ns }| {
        let name = format!("batches, {} items, {shape}, {bits} bits, k = {k}", count(*items));
        (name, times_faster(*faiss_ns, *ours_ns))
    }));
    ratios.extend(results.rankings.iter().map(|Ranking { bits, faiss_ns, ours_ns }| {
        (format!("whole rankings, {bits} bits"), times_faster(*faiss_ns, *ours_ns))
    }));
    ratios.extend(results.fast_scans.iter().filter_map(|scan| {
        let name = format!("FastScan, {} {}, k = {}", count(scan.items), scan.shape, scan.k);
        Some((name, times_faster(scan.ns, exact(results, scan)?)))
    }));
    ratios
}

/// Of the file of [`figure`].
pub(super) const FIGURE: &str = "search.svg";

/// Times in a row by code length, for the most items of shape clustered, and the least and the most hits.
pub(super) fn figure(run: &Run<Searches>) -> String {
    let most = run.results.searches.iter().map(|search| search.items).max().unwrap_or(0);
    let shown: Vec<&Search> = (run.results.searches.iter())
        .filter(|search| (search.items, &*search.shape, &*search.metric) == (most, "clustered", "ip"))
        .collect();
    let ks = shown.iter().map(|search| search.k);
    let ends = [ks.clone().min(), ks.max()].into_iter().flatten();
    let curve = |k: usize, name: &str, line: usize, ns: fn(&Search) -> u64| Curve {
        name: format!("{name}, k = {k}"),
        points: (shown.iter().filter(|search| search.k == k))
            .map(|search| [search.bits.into(), ns(search) as f64 / 1e3])
            .collect(),
        spread: Vec::new(),
        line,
    };
    let curves: Vec<Curve> = (ends.enumerate())
        .flat_map(|(i, k)| {
            [
                curve(k, "dpq", 1 + i, |search| search.in_a_row.ours_ns),
                curve(k, "faiss", 4 + i, |search| search.in_a_row.faiss_ns),
            ]
        })
        .collect();
    let times = || curves.iter().flat_map(|curve| &curve.points).map(|&[_, us]| us);
    Chart {
        title: format!("Time of a query by code length, {} items", count(most)),
        x: Axis::steps("bits", unique(shown.iter().map(|search| f64::from(search.bits)))),
        y: Axis::logarithmic(
            "µs a query",
            times().fold(f64::MAX, f64::min),
            times().fold(f64::MIN, f64::max),
        ),
        curves,
    }
    .svg()
}

/// Ratios and times, a row each name and a column each k, of (nanoseconds of faiss, nanoseconds of ours).
fn by_k(cells: impl Iterator<Item = ((String, usize), (u64, u64))>) -> Table {
    let cells: Vec<_> = cells.collect();
    let ks = unique(cells.iter().map(|((_, k), _)| k));
    let cell = |(faiss, ours)| format!("{} ({} µs)", ratio(faiss, ours), microseconds(ours));
    let row = |name: &String| {
        line(name, cells.iter().filter(|((row, _), _)| row == name).map(|&(_, times)| cell(times)))
    };
    Table {
        header: line("", ks.iter().map(|k| format!("k = {k}"))),
        rows: unique(cells.iter().map(|((name, _), _)| name)).into_iter().map(row).collect(),
    }
}

fn searches(results: &Searches, items: u64, metric: &str) -> Table {
    let of_table =
        || results.searches.iter().filter(|search| search.items == items && search.metric == metric);
    let theirs =
        unique(of_table().flat_map(|search| search.by_turns_ns.keys()).filter(|side| is_faiss(side)));
    let sides: Vec<&String> = theirs.into_iter().chain(&results.kernels).collect();
    let rows = of_table().map(|search| {
        let mut row = line(&search_name(search), [search.k.to_string()]);
        row.extend(sides.iter().map(|&side| microseconds(search.by_turns_ns[side])));
        row.push(ratio(
            search.by_turns_ns[results.kernels.last().expect("there is a kernel")],
            ours(results, search),
        ));
        row
    });
    let mut header = line("", ["k".to_owned()]);
    header.extend(
        sides.iter().map(|side| if is_faiss(side) { side.to_string() } else { format!("dpq, {side}") }),
    );
    header.push("scalar/best".to_owned());
    Table { header, rows: rows.collect() }
}

fn rankings(results: &Searches) -> Table {
    let row = |name: &str, ns: fn(&Ranking) -> u64| {
        let seconds = |ns: u64| format!("{:.1} s", ns as f64 * results.ranking_queries as f64 / 1e9);
        line(name, results.rankings.iter().map(|ranking| seconds(ns(ranking))))
    };
    Table {
        header: line("", results.rankings.iter().map(|ranking| format!("{} bits", ranking.bits))),
        rows: vec![
            row("faiss `IndexPQ`", |ranking| ranking.faiss_ns),
            row("dpq-index", |ranking| ranking.ours_ns),
            line("ratio", results.rankings.iter().map(|ranking| ratio(ranking.faiss_ns, ranking.ours_ns))),
        ],
    }
}

fn files(results: &Searches) -> Table {
    let header = [
        "distinct codes",
        "bytes an item",
        "build",
        "build, bytes an item",
        "open",
        "memory, open",
        "memory, searched",
    ];
    let rows = results.files.iter().map(|file| {
        let an_item = |bytes: u64| format!("{:.1}", bytes as f64 / file.items as f64);
        let mebibytes = |bytes: u64| format!("{:.0} MiB", bytes as f64 / 1048576.0);
        line(
            &format!("{} {}, {}", count(file.items), file.shape, metric_name(&file.metric)),
            [
                count(file.distinct),
                an_item(file.file_bytes),
                format!("{:.2} s", file.build_ns as f64 / 1e9),
                an_item(file.build_bytes),
                format!("{} µs", microseconds(file.open_ns)),
                mebibytes(file.open_bytes),
                mebibytes(file.resident_bytes),
            ],
        )
    });
    Table { header: line("", header.map(str::to_owned)), rows: rows.collect() }
}

fn fast_scans(results: &Searches) -> Table {
    let rows = results.fast_scans.iter().map(|scan| {
        let exact = exact(results, scan);
        let exact = exact.map_or([String::new(), String::new()], |ns| [microseconds(ns), ratio(scan.ns, ns)]);
        let mut row = line(&format!("{} {}", count(scan.items), scan.shape), [scan.k.to_string()]);
        row.extend([microseconds(scan.ns), format!("{:.3}", scan.recall)].into_iter().chain(exact));
        row
    });
    let header = ["k", "FastScan, µs", "recall", "dpq-index, µs", "ratio"];
    Table { header: line("", header.map(str::to_owned)), rows: rows.collect() }
}

/// Our time for what a FastScan searches.
fn exact(results: &Searches, scan: &FastScan) -> Option<u64> {
    let is_same = |search: &&Search| {
        let of_search = (search.items, &search.shape, search.k, search.bits, search.metric.as_str());
        of_search == (scan.items, &scan.shape, scan.k, 32, "ip")
    };
    results.searches.iter().find(is_same).map(|search| ours(results, search))
}

fn how(results: &Searches) -> [String; 4] {
    [
        format!(
            "Both sides ran on core {} with one thread each and were timed by CLOCK_MONOTONIC. By turns, each \
             query is a scan of faiss and a search of dpq-index, again and again until both scans of faiss and all \
             kernels of dpq-index have had their turn. Batches are medians of three rounds that alternate.",
            results.core
        ),
        "faiss is given our codes and codebooks. `IndexPQ` has d = L·D and M = L, the codebooks as centroids and \
         the query repeated L times; `IndexResidualQuantizer` adds codewords, `ST_LUT_nonorm` for inner products \
         and `ST_norm_float` for Euclidean distances, where `IndexPQ` has no way to the same scores."
            .to_owned(),
        "Each answer by turns was checked: scores equal rank by rank to 1e-5, relative to the score (for \
         Euclidean distances, to the larger of score and the query's squared norm), and the same ids outside groups \
         of equal scores. Among equal scores dpq-index returns the least ids; faiss promises no order."
            .to_owned(),
        "Shapes (`crates/dpq-index/benches/data`): clustered is encodings of a mixture of 100 Gaussians with \
         decaying spectrum by codebooks of residual k-means; collapsed is the same with every item near the mean of \
         its class, as training leaves features; uniform is uniform codes and codebooks of one scale, which no \
         training gives and nothing can prune well."
            .to_owned(),
    ]
}

/// The time of the fastest scan of faiss.
fn faiss(search: &Search) -> u64 {
    let times = search.by_turns_ns.iter().filter(|(side, _)| is_faiss(side)).map(|(_, &ns)| ns);
    times.min().expect("faiss searched too")
}

/// Our time with the fastest kernel.
fn ours(results: &Searches, search: &Search) -> u64 {
    search.by_turns_ns[&results.kernels[0]]
}

fn is_faiss(side: &str) -> bool {
    side.starts_with("Index")
}

fn search_name(search: &Search) -> String {
    format!("{}, {} bits", search.shape, search.bits)
}

fn metric_name(metric: &str) -> &str {
    match metric {
        "ip" => "inner product",
        "l2" => "Euclidean",
        other => other,
    }
}

fn ratio(theirs: u64, ours: u64) -> String {
    super::ratio(theirs as f64 / ours as f64)
}
