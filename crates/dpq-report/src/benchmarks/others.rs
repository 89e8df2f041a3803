//! The comparisons with PyTorch, PIL, NumPy and USearch.

use super::results::{
    Evaluations, FolderRate, FolderRates, Rate, Rates, ResidualRate, ResidualRates, Run, VectorSearches,
};
use super::words::{Section, count, microseconds, ratio};
use crate::table::{Table, line};

pub(super) fn training(run: &Run<Rates>) -> Section {
    let Rates { device, threads, rounds, epochs, rates } = &run.results;
    let name = |rate: &Rate| format!("{}, batches of {}", rate.work, rate.batch);
    let times_faster = |rate: &Rate| rate.ours_per_second / rate.torch_per_second;
    let rows = rates.iter().map(|rate| {
        let [ours, theirs] =
            [rate.ours_per_second, rate.torch_per_second].map(|images| count(images.round() as u64));
        line(&name(rate), [ours, theirs, ratio(times_faster(rate)), rate.torch_layout.clone()])
    });
    let table = Table::new("images per second", ["dpq", "PyTorch", "ratio", "PyTorch's layout"], rows);
    let note = "`crates/dpq-model/benches/torch/small_network.py`: same layers, losses, optimiser, batches and images. dpq \
                reads and augments its images; PyTorch trains on floats in memory, in the layout that was faster in a short \
                trial. Encoding averages over image and mirror image; the time of dpq includes reading images and computing codes";
    let turns = format!(
        "{threads} threads per side, device {device}; {rounds} rounds; in training, {} epochs of each side per round",
        epochs + 1
    );
    let text = [
        "The network of preset `best` on Fashion-MNIST, median of all epochs except the first of each round."
            .to_owned(),
        table.to_string(),
        run.how(&[note.to_owned(), turns]),
    ];
    let ratios = rates.iter().map(|rate| (name(rate), times_faster(rate))).collect();
    Section::new("Training and encoding images: PyTorch", &text, ratios)
}

pub(super) fn residual(run: &Run<ResidualRates>) -> Section {
    let ResidualRates { rounds, batch, rates } = &run.results;
    let name = |rate: &ResidualRate| {
        let work = if rate.work == "train" { "training" } else { "features" };
        let threads =
            if rate.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", rate.threads) };
        let classes = match rate.classes {
            10 => String::new(),
            n => format!(", {} classes", count(n as u64)),
        };
        format!("{work} at {0}×{0}{classes}, {threads}", rate.side)
    };
    let times_faster = |rate: &ResidualRate| rate.ours_per_second / rate.torch_per_second;
    let rows = rates.iter().map(|rate| {
        let [ours, theirs] =
            [rate.ours_per_second, rate.torch_per_second].map(|images| format!("{images:.1}"));
        line(&name(rate), [ours, theirs, ratio(times_faster(rate)), rate.torch_layout.clone()])
    });
    let table = Table::new("images per second", ["dpq", "PyTorch", "ratio", "PyTorch's layout"], rows);
    let note = "`crates/dpq-model/benches/torch/residual_network.py`: same layers, losses, optimiser and batches, on made \
                images in memory. Both fold batch normalisation into convolutions for features. dpq has the settings of \
                memory and threads of its command, converts bytes to floats, and fits codebooks outside the measured time; \
                PyTorch has floats in the layout that was faster in a short trial";
    let text = [
        format!(
            "A residual network of 2, 2, 2 and 3 basic blocks with random weights, 10 classes unless a row has \
             more, batches of {batch}, median of {rounds} rounds by turns."
        ),
        table.to_string(),
        run.how(&[note.to_owned()]),
    ];
    let ratios = rates.iter().map(|rate| (name(rate), times_faster(rate))).collect();
    Section::new("A residual network: PyTorch", &text, ratios)
}

pub(super) fn folder(run: &Run<FolderRates>) -> Section {
    let FolderRates { images, set, side, threads, rounds, batch, least_cosine, ours, torch } = &run.results;
    let name = |rate: &FolderRate| match rate.workers {
        0 => "PIL and PyTorch, loading in the same process".to_owned(),
        1 => "PIL and PyTorch, 1 loading process".to_owned(),
        n => format!("PIL and PyTorch, {n} loading processes"),
    };
    let cells = |rate: &FolderRate, ratio: String| {
        [format!("{:.0}", rate.per_second), format!("{} MB", rate.peak_memory_bytes / 1_000_000), ratio]
    };
    let times_faster = |rate: &FolderRate| ours.per_second / rate.per_second;
    let rows = [line("dpq", cells(ours, String::new()))];
    let theirs = torch.iter().map(|rate| line(&name(rate), cells(rate, ratio(times_faster(rate)))));
    let table =
        Table::new("", ["images per second", "peak memory", "dpq over it"], rows.into_iter().chain(theirs));
    let note = format!(
        "`crates/dpq-model/benches/torch/folder.py`: the same files, pretrained weights, {threads} threads and resizing; both \
         fold batch normalisation into convolutions. The least cosine of a feature of one side with that of the other is \
         {least_cosine:.4}. PyTorch loads batches of {batch} by its DataLoader; two \
         loading processes were slower in a trial. Its time begins after all imports. The time of dpq is that of its whole \
         process, which also writes the features. Memory is the peak of the largest process of a side"
    );
    let text = [
        format!(
            "Decoding, resizing and features of {} photographs ({set}) at {side}×{side} by a residual network of 2, 2, 2 \
             and 3 basic blocks: `dpq features --weights --images` beside a loop over torch's DataLoader, median of \
             {rounds} rounds by turns. `dpq encode --images` reads images in the same way.",
            count(*images)
        ),
        table.to_string(),
        run.how(&[note]),
    ];
    let ratios = torch.iter().map(|rate| (name(rate), times_faster(rate))).collect();
    Section::new("A folder of images: PIL and PyTorch", &text, ratios)
}

pub(super) fn evaluation(run: &Run<Evaluations>) -> Section {
    let results = &run.results;
    let ratios = [
        ("time", results.numpy_seconds / results.ours_seconds),
        ("CPU time", results.numpy_cpu_seconds / results.ours_cpu_seconds),
    ];
    let seconds =
        |name: &str, wall: f64, cpu: f64| line(name, [format!("{wall:.1} s"), format!("{cpu:.1} s")]);
    let rows = [
        seconds("script", results.numpy_seconds, results.numpy_cpu_seconds),
        seconds("`dpq eval`", results.ours_seconds, results.ours_cpu_seconds),
        line("ratio", ratios.map(|(_, times_faster)| ratio(times_faster))),
    ];
    let times = Table::new("", ratios.map(|(name, _)| name), rows);
    let rows = results.lengths.iter().map(|row| {
        let maps = [row.numpy_map, row.map, row.map_min, row.map_max];
        line(&format!("{} bits", row.bits), maps.map(|map| format!("{map:.5}")))
    });
    let maps = Table::new("mAP@all", ["script", "`dpq eval`", "ties: minimum", "ties: maximum"], rows);
    let note = "`crates/dpq-eval/benches/numpy/compare.py`: the script multiplies by decoded features, sorts by \
                `numpy.argsort` and computes one mean average precision; its time excludes reading and decoding. `dpq eval` \
                is the whole command, on all cores, with every other metric that it reports";
    let text = [
        format!(
            "Complete rankings of {} items for {} queries, D = {}, at {} lengths, median of {} rounds.",
            count(results.items as u64),
            count(results.queries as u64),
            results.dim,
            results.lengths.len(),
            results.rounds
        ),
        times.to_string(),
        maps.to_string(),
        run.how(&[note.to_owned()]),
    ];
    let ratios = ratios.map(|(name, times_faster)| (name.to_owned(), times_faster));
    Section::new("Evaluating: NumPy", &text, ratios.into())
}

pub(super) fn vectors(run: &Run<VectorSearches>) -> Section {
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
    let header = ["bytes per vector", "build", "µs per query", "recall", "precision"];
    let table = Table::new("", header, rows);
    let queries = || results.searches.iter().map(|search| search.queries);
    let k = results.k;
    let text = [
        format!(
            "USearch stores vectors and dpq stores codes, so their answers differ. {} features of preset `quick` on \
             Fashion-MNIST, D = {}, inner product, k = {k}. Recall is the share of the {k} nearest vectors that is found, \
             precision the share of hits with the query's class.",
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
            format!(
                "The time of USearch includes its call from Python; a call without a search takes {} µs. dpq is timed inside \
                 its process, without a call from Python",
                microseconds(results.empty_call_ns)
            ),
            "Building uses all cores: a graph for USearch; encoding and the index for dpq, process start and files \
             included. Bytes per vector are the size of the file over the number of vectors; the file of dpq serves all \
             lengths and contains the codebooks"
                .to_owned(),
        ]),
    ];
    // The answers differ, so a ratio of the times would not show which is faster.
    Section::new("Search of vectors: USearch", &text, Vec::new())
}
