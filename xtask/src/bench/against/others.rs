//! The sections of what was compared with PyTorch, NumPy and USearch.

use super::results::{Evaluations, Rates, Run, VectorSearches};
use super::{count, microseconds, ratio};
use crate::table::{Table, line};

pub(super) fn training(run: &Run<Rates>) -> String {
    let Rates { device, threads, rounds, epochs, rates } = &run.results;
    let rows = rates.iter().map(|rate| {
        let (ours, theirs) = (rate.ours_per_second, rate.torch_per_second);
        let name = format!("{}, batches of {}", rate.work, rate.batch);
        line(&name, [count(ours.round() as u64), count(theirs.round() as u64), ratio(ours / theirs)])
    });
    let table = Table {
        header: line("images a second", ["dpq", "PyTorch", "ratio"].map(str::to_owned)),
        rows: rows.collect(),
    };
    let note = "`crates/dpq-model/benches/torch/small_network.py`: same layers, losses, optimiser, batches and images. dpq \
                reads and augments its images; PyTorch trains on floats in memory. Encoding averages over image and mirror; \
                dpq's is with reading images and with codes";
    let turns = format!("{threads} threads a side, device {device}; {rounds} rounds of {epochs} epochs each");
    [
        "## Training and encoding images: PyTorch".to_owned(),
        "The network of preset `best` on Fashion-MNIST, median of all epochs but each round's first."
            .to_owned(),
        table.to_string(),
        run.how(&[note.to_owned(), turns]),
    ]
    .join("\n\n")
}

pub(super) fn evaluation(run: &Run<Evaluations>) -> String {
    let results = &run.results;
    let seconds =
        |name: &str, wall: f64, cpu: f64| line(name, [format!("{wall:.1} s"), format!("{cpu:.1} s")]);
    let times = Table {
        header: line("", ["time", "time of the CPU"].map(str::to_owned)),
        rows: vec![
            seconds("script", results.numpy_seconds, results.numpy_cpu_seconds),
            seconds("`dpq eval`", results.ours_seconds, results.ours_cpu_seconds),
            line(
                "ratio",
                [
                    ratio(results.numpy_seconds / results.ours_seconds),
                    ratio(results.numpy_cpu_seconds / results.ours_cpu_seconds),
                ],
            ),
        ],
    };
    let maps = Table {
        header: line(
            "mAP@all",
            ["script", "`dpq eval`", "ties at their worst", "at their best"].map(str::to_owned),
        ),
        rows: (results.lengths.iter())
            .map(|row| {
                let maps = [row.numpy_map, row.map, row.map_min, row.map_max];
                line(&format!("{} bits", row.bits), maps.map(|map| format!("{map:.5}")))
            })
            .collect(),
    };
    let note = "`crates/dpq-eval/benches/numpy/compare.py`: the script takes products with decoded features, sorts by \
                `numpy.argsort` and sums one mean average precision; it is timed without reading and decoding. `dpq eval` is \
                the whole command, on all cores, with every other figure that it reports";
    [
        "## Evaluating: NumPy".to_owned(),
        format!(
            "Whole rankings of {} items for {} queries, D = {}, at {} lengths, median of {} rounds.",
            count(results.items as u64),
            count(results.queries as u64),
            results.dim,
            results.lengths.len(),
            results.rounds
        ),
        times.to_string(),
        maps.to_string(),
        run.how(&[note.to_owned()]),
    ]
    .join("\n\n")
}

pub(super) fn vectors(run: &Run<VectorSearches>) -> String {
    let results = &run.results;
    let rows = results.searches.iter().map(|search| {
        line(
            &search.name,
            [
                format!("{:.1}", search.bytes_an_item),
                search.build_seconds.map_or(String::new(), |seconds| format!("{seconds:.1} s")),
                microseconds(search.ns),
                format!("{:.3}", search.recall),
                format!("{:.3}", search.precision),
            ],
        )
    });
    let header = ["bytes a vector", "build", "µs a query", "recall", "precision"];
    let table = Table { header: line("", header.map(str::to_owned)), rows: rows.collect() };
    let queries = || results.searches.iter().map(|search| search.queries);
    let k = results.k;
    [
        "## Search of vectors: USearch".to_owned(),
        format!(
            "USearch keeps the vectors, dpq their codes, so the two do not answer alike. {} features of preset `quick` on \
             Fashion-MNIST, D = {}, inner product, k = {k}. Recall is the share of the {k} nearest vectors that is found, \
             precision the share of what is found that has the query's class.",
            count(results.items as u64),
            results.dim
        ),
        table.to_string(),
        run.how(&[
            format!(
                "`crates/dpq-index/benches/usearch/compare.py`: one query at a time, one thread, median of {} rounds of \
                 {} queries (scans of vectors: {}); dpq with its lookup table",
                results.rounds,
                count(queries().max().unwrap_or(0)),
                queries().min().unwrap_or(0),
            ),
            "Building is on all cores: a graph, or encoding and the index, process start and files included. Bytes are \
             those of the file over the number of vectors; dpq's serves all lengths and holds the codebooks"
                .to_owned(),
        ]),
    ]
    .join("\n\n")
}
