//! The comparison of search with faiss.

use super::results::{Batch, FastScan, InARow, Ranking, Run, Search, Searches};
use super::words::{self, Section, count, microseconds, unique};
use crate::plot::{Axis, Chart, Curve, heights, range};
use crate::table::{Table, line};

/// Returns the range of the interleaved ratios for each kind of data, which comes first on the
/// page.
pub(super) fn overview(run: &Run<Searches>) -> String {
    let results = &run.results;
    let columns = unique(results.searches.iter().map(|search| (search.items, &search.metric)));
    let header =
        columns.iter().map(|&(items, metric)| format!("{} items, {}", count(items), metric_name(metric)));
    let row = |shape: &String| {
        let cell = |&(items, metric): &(u64, &String)| {
            let searches =
                results.searches.iter().filter(|search| (search.items, &search.metric) == (items, metric));
            let ratios = searches.filter(|search| search.shape == *shape);
            let ratios = ratios.map(|search| faiss(search) as f64 / ours(results, search) as f64);
            let [low, high] = range(ratios);
            if low > high { String::new() } else { [low, high].map(words::ratio).join(" to ") }
        };
        line(shape, columns.iter().map(cell))
    };
    let rows = unique(results.searches.iter().map(|search| &search.shape)).into_iter().map(row);
    let table = Table::new("", header, rows);
    format!(
        "## A study of scaling: exact search of made-up codes\n\nThe same codes in dpq-index and in faiss, one thread, \
         queries of both sides interleaved: how many times faster dpq-index is than the fastest exact scan in faiss. Each \
         range covers four code lengths and three numbers of hits. *Clustered* and *collapsed* codes come from mixtures of \
         Gaussians; *uniform* codes are random, so no index can skip many of them. [Details](#search-of-codes-faiss).\
         \n\n{table}\n"
    )
}

/// Returns all measurements.
pub(super) fn section(run: &Run<Searches>) -> Section {
    let results = &run.results;
    let mut sections = vec![
        format!(
            "One thread, D = {} dimensions, K = {} codewords per level, L = 4 levels, lookup table included, median of {} \
             queries.",
            results.dim, results.codewords, results.queries
        ),
        "### How many times faster".to_owned(),
        "Each cell divides the time of the fastest exact scan of the same codes in faiss by the time of dpq-index, \
         which is in parentheses. Interleaved: each search of dpq-index follows a scan of faiss, which has evicted the \
         caches. Back to back: each side answers all queries before the other starts."
            .to_owned(),
        format!("![Time per query by code length]({FIGURE})"),
    ];
    for (items, metric) in unique(results.searches.iter().map(|search| (search.items, &search.metric))) {
        let rows =
            || results.searches.iter().filter(|search| search.items == items && search.metric == *metric);
        let name = |search: &Search| (search_name(search), search.k);
        let interleaved = rows().map(|search| (name(search), (faiss(search), ours(results, search))));
        let back_to_back =
            rows().map(|search| (name(search), (search.in_a_row.faiss_ns, search.in_a_row.ours_ns)));
        let title = format!("#### {} items, {}", count(items), metric_name(metric));
        sections.extend([format!("{title}, interleaved"), by_k(interleaved).to_string()]);
        sections.extend([format!("{title}, back to back"), by_k(back_to_back).to_string()]);
    }
    sections.extend([
        "### Batches".to_owned(),
        format!(
            "{} queries in one call on both sides, inner product, one thread, µs per query; faiss is `IndexPQ`.",
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
        "### Complete rankings".to_owned(),
        format!(
            "All {} clustered items in order, for {} queries, inner product.",
            count(results.ranking_items as u64),
            count(results.ranking_queries as u64)
        ),
        rankings(results).to_string(),
        "### Files, memory, building".to_owned(),
        "One file serves all four lengths. faiss needs one index per length, 1 + 2 + 3 + 4 bytes per item, and four \
         more bytes in each for Euclidean distance. Building includes sorting with row numbers as ids, writing and \
         syncing the file, with one thread; its memory is the peak in addition to the codes. Opening is the median of \
         nine times, with the file in the page cache. Memory is the growth of the process, mapped pages included, \
         after opening and after all searches of this page."
            .to_owned(),
        files(results).to_string(),
        "### FastScan".to_owned(),
        "The faster scans of faiss need 16 codewords per sub-vector, so they cannot search these codes. \
         `IndexPQFastScan`, also with 32 bits, encodes the decoded vectors again. Recall is the share of its hits whose \
         exact score is at least the k-th best; exact scans have a recall of 1."
            .to_owned(),
        fast_scans(results).to_string(),
        "### Every search".to_owned(),
        "Interleaved, µs per query. The last column divides the time of the scalar kernel by the time of the fastest \
         kernel."
            .to_owned(),
    ]);
    for (items, metric) in unique(results.searches.iter().map(|search| (search.items, &search.metric))) {
        sections.push(format!("#### {} items, {}, µs", count(items), metric_name(metric)));
        sections.push(searches(results, items, metric).to_string());
    }
    sections.extend(["### How".to_owned(), run.how(&how(results))]);
    Section::new("Search of codes: faiss", &sections, ratios(results))
}

/// Returns the ratios of all tables except the last ones, which compare kernels of dpq-index.
fn ratios(results: &Searches) -> Vec<(String, f64)> {
    let times_faster = |theirs: u64, ours: u64| theirs as f64 / ours as f64;
    let mut ratios = Vec::new();
    for search in &results.searches {
        let (items, metric) = (count(search.items), metric_name(&search.metric));
        let name = format!("{items} items, {metric}, {}, k = {}", search_name(search), search.k);
        let InARow { faiss_ns, ours_ns } = search.in_a_row;
        ratios.push((format!("{name}, interleaved"), times_faster(faiss(search), ours(results, search))));
        ratios.push((format!("{name}, back to back"), times_faster(faiss_ns, ours_ns)));
    }
    ratios.extend(results.batches.iter().map(|Batch { items, shape, bits, k, faiss_ns, ours_ns }| {
        let name = format!("batches, {} items, {shape}, {bits} bits, k = {k}", count(*items));
        (name, times_faster(*faiss_ns, *ours_ns))
    }));
    ratios.extend(results.rankings.iter().map(|Ranking { bits, faiss_ns, ours_ns }| {
        (format!("complete rankings, {bits} bits"), times_faster(*faiss_ns, *ours_ns))
    }));
    ratios.extend(results.fast_scans.iter().filter_map(|scan| {
        let name = format!("FastScan, {} {}, k = {}", count(scan.items), scan.shape, scan.k);
        Some((name, times_faster(scan.ns, exact(results, scan)?)))
    }));
    ratios
}

/// The file of [`figure`].
pub(super) const FIGURE: &str = "benchmarks/search.svg";

/// Draws interleaved times by code length, for the largest clustered index and for the fewest and
/// the most hits.
pub(super) fn figure(run: &Run<Searches>) -> String {
    let largest = run.results.searches.iter().map(|search| search.items).max().unwrap_or(0);
    let shown: Vec<&Search> = (run.results.searches.iter())
        .filter(|search| (search.items, &*search.shape, &*search.metric) == (largest, "clustered", "ip"))
        .collect();
    let ks = shown.iter().map(|search| search.k);
    let ends = [ks.clone().min(), ks.max()].into_iter().flatten();
    let ours_of = |search: &Search| ours(&run.results, search);
    let curve = |k: usize, name: &str, line: usize, ns: &dyn Fn(&Search) -> u64| {
        let shown = shown.iter().filter(|search| search.k == k);
        let points = shown.map(|search| [search.bits.into(), ns(search) as f64 / 1e3]);
        Curve::new(format!("{name}, k = {k}"), points, line)
    };
    let curves: Vec<Curve> = (ends.enumerate())
        .flat_map(|(i, k)| [curve(k, "dpq", 1 + i, &ours_of), curve(k, "faiss", 4 + i, &faiss)])
        .collect();
    Chart {
        title: format!("Time per query by code length, {} items, interleaved", count(largest)),
        x: Axis::steps("bits", unique(shown.iter().map(|search| f64::from(search.bits)))),
        y: Axis::logarithmic("µs per query", heights(&curves)),
        curves,
    }
    .svg()
}

/// Returns ratios and times of (nanoseconds of faiss, nanoseconds of dpq), with a row per name and
/// a column per k.
fn by_k(cells: impl Iterator<Item = ((String, usize), (u64, u64))>) -> Table {
    let cells: Vec<_> = cells.collect();
    let ks = unique(cells.iter().map(|((_, k), _)| k));
    let cell = |(faiss, ours)| format!("{} ({} µs)", ratio(faiss, ours), microseconds(ours));
    let row = |name: &String| {
        line(name, cells.iter().filter(|((row, _), _)| row == name).map(|&(_, times)| cell(times)))
    };
    let rows = unique(cells.iter().map(|((name, _), _)| name)).into_iter().map(row);
    Table::new("", ks.iter().map(|k| format!("k = {k}")), rows)
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
    let names =
        sides.iter().map(|side| if is_faiss(side) { side.to_string() } else { format!("dpq, {side}") });
    let header = ["k".to_owned()].into_iter().chain(names).chain(["scalar/best".to_owned()]);
    Table::new("", header, rows)
}

fn rankings(results: &Searches) -> Table {
    let row = |name: &str, ns: fn(&Ranking) -> u64| {
        let seconds = |ns: u64| format!("{:.1} s", ns as f64 * results.ranking_queries as f64 / 1e9);
        line(name, results.rankings.iter().map(|ranking| seconds(ns(ranking))))
    };
    let rows = [
        row("faiss `IndexPQ`", |ranking| ranking.faiss_ns),
        row("dpq-index", |ranking| ranking.ours_ns),
        line("ratio", results.rankings.iter().map(|ranking| ratio(ranking.faiss_ns, ranking.ours_ns))),
    ];
    Table::new("", results.rankings.iter().map(|ranking| format!("{} bits", ranking.bits)), rows)
}

fn files(results: &Searches) -> Table {
    let header = [
        "distinct codes",
        "bytes per item",
        "build",
        "build, bytes per item",
        "open",
        "memory, open",
        "memory, searched",
    ];
    let rows = results.files.iter().map(|file| {
        let per_item = |bytes: u64| format!("{:.1}", bytes as f64 / file.items as f64);
        let mebibytes = |bytes: u64| format!("{:.0} MiB", bytes as f64 / 1048576.0);
        line(
            &format!("{} {}, {}", count(file.items), file.shape, metric_name(&file.metric)),
            [
                count(file.distinct),
                per_item(file.file_bytes),
                format!("{:.2} s", file.build_ns as f64 / 1e9),
                per_item(file.build_bytes),
                format!("{} µs", microseconds(file.open_ns)),
                mebibytes(file.open_bytes),
                mebibytes(file.resident_bytes),
            ],
        )
    });
    Table::new("", header, rows)
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
    Table::new("", header, rows)
}

/// Returns the time of dpq-index for the search that a FastScan approximates.
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
            "Both sides ran on core {} with one thread each, timed by CLOCK_MONOTONIC. Interleaved, each query \
             alternates a scan of faiss and a search of dpq-index until both scans of faiss and all kernels of \
             dpq-index have answered it. Batches are medians of three alternating rounds.",
            results.core
        ),
        "faiss gets the codes and codebooks of dpq. `IndexPQ` has d = L·D and M = L, the codebooks as centroids and \
         the query repeated L times. `IndexResidualQuantizer` adds codewords, with `ST_LUT_nonorm` for inner products \
         and `ST_norm_float` for Euclidean distances, for which `IndexPQ` cannot compute the same scores."
            .to_owned(),
        "Each interleaved answer was checked: scores are equal rank by rank to 1e-5, relative to the score (for \
         Euclidean distances, to the larger of score and the query's squared norm), and ids are equal outside groups \
         of equal scores. Among equal scores dpq-index returns the smallest ids; faiss has no fixed order."
            .to_owned(),
        "Kinds of data (`crates/dpq-index/benches/data`): *clustered* encodes a mixture of 100 Gaussians with \
         decaying spectrum by codebooks of residual k-means. *Collapsed* is the same with each item near the mean of \
         its class, as trained features are. *Uniform* has uniform codes and codebooks of one scale; no training \
         makes them, and no bound prunes them well."
            .to_owned(),
    ]
}

/// Returns the time of the fastest scan of faiss.
fn faiss(search: &Search) -> u64 {
    let times = search.by_turns_ns.iter().filter(|(side, _)| is_faiss(side)).map(|(_, &ns)| ns);
    times.min().expect("faiss searched too")
}

/// Returns the time of dpq-index with the fastest kernel.
fn ours(results: &Searches, search: &Search) -> u64 {
    search.by_turns_ns[&results.kernels[0]]
}

fn is_faiss(side: &str) -> bool {
    side.starts_with("Index")
}

fn search_name(search: &Search) -> String {
    format!("{}, {} bits", search.shape, search.bits)
}

pub(super) fn metric_name(metric: &str) -> &str {
    match metric {
        "ip" => "inner product",
        "l2" => "Euclidean",
        other => other,
    }
}

fn ratio(theirs: u64, ours: u64) -> String {
    words::ratio(theirs as f64 / ours as f64)
}
