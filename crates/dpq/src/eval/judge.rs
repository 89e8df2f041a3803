//! Which items are relevant to a query, and the rankings that are counted.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dpq_eval::{Evaluator, Labels, MapRule, QueryResult, Ranker, Report, Ties};
use dpq_formats::{Matrix, read_ids};
use rayon::prelude::*;

use super::rows::Rows;
use super::{Args, CUTOFFS, RECALL_STEPS};
use crate::labels::LabelFile;
use crate::output;

/// What decides relevance, and the rules that count it.
pub(super) struct Judge {
    queries: Labels,
    pub(super) gallery: Labels,
    /// The id of each row of the gallery.
    pub(super) ids: Vec<u64>,
    /// The row of each id.
    rows: Rows,
    query_ids: Option<Vec<u64>>,
    pub(super) rules: Vec<MapRule>,
}

/// Items in runs, as [`Ranker`] takes them.
pub(super) struct Gallery<'a> {
    pub(super) starts: &'a [u32],
    pub(super) ids: &'a [u64],
    /// Queries that are worked on at a time; their results are kept until they are added in order.
    pub(super) batch: usize,
}

impl Judge {
    pub(super) fn read(args: &Args, n_queries: usize) -> Result<Self> {
        let (queries, gallery) = read_labels(&args.query_labels, &args.gallery_labels)?;
        ensure!(
            queries.n_classes() == gallery.n_classes(),
            "{} has {} classes, {} has {}",
            args.query_labels.display(),
            queries.n_classes(),
            args.gallery_labels.display(),
            gallery.n_classes()
        );
        ensure!(
            queries.len() == n_queries,
            "{} has {} rows, {} has {n_queries} queries",
            args.query_labels.display(),
            queries.len(),
            args.queries.display()
        );
        let ids = match &args.gallery_ids {
            Some(path) => read_ids(path)?,
            None => (0..gallery.len() as u64).collect(),
        };
        ensure!(
            ids.len() == gallery.len(),
            "{} gallery ids, but {} has {} rows, give the labels of this gallery",
            ids.len(),
            args.gallery_labels.display(),
            gallery.len()
        );
        let rows = Rows::new(&ids).context("the gallery's ids are not unique")?;
        let query_ids = args.query_ids.as_deref().map(read_ids).transpose()?;
        if let Some(query_ids) = &query_ids {
            ensure!(query_ids.len() == n_queries, "{} query ids for {n_queries} queries", query_ids.len());
        }
        let preset = if args.rule == "standard" { MapRule::standard() } else { MapRule::dpq() };
        let rule = MapRule { exclude_self: query_ids.is_some(), ..preset };
        let ties = [Ties::ById, Ties::Minimum, Ties::Maximum].map(|ties| MapRule { ties, ..rule });
        let cutoffs = args.at.iter().map(|&cutoff| MapRule { cutoff: Some(cutoff), ..rule });
        let rules = [rule].into_iter().chain(ties).chain(cutoffs).collect();
        Ok(Self { queries, gallery, ids, rows, query_ids, rules })
    }

    /// Ranks the gallery for every query and counts; adds to the seconds of searching and evaluating.
    ///
    /// `prepare` gets a batch of queries; `score` what that made, the place of a query in the batch and the query, and writes
    /// the score of each run.
    pub(super) fn evaluate<P: Sync>(
        &self,
        gallery: &Gallery<'_>,
        queries: &Matrix<f32>,
        prepare: impl Fn(&[f32]) -> Result<P>,
        score: impl Fn(&P, usize, &[f32], &mut [f32]) -> Result<()> + Sync,
        seconds: &mut [Duration; 2],
    ) -> Result<Report> {
        let start = Instant::now();
        let rows: Option<Vec<u32>> = gallery.ids.iter().map(|&id| self.rows.get(id)).collect();
        let rows = rows.context(
            "the index has an id that is not among the gallery's ids, give them with --gallery-ids",
        )?;
        let (mut preparing, mut cpu) = (Duration::ZERO, [Duration::ZERO; 2]);
        let mut evaluator = Evaluator::new(&self.rules, &CUTOFFS, RECALL_STEPS)?;
        let bar = output::progress(queries.rows, "queries");
        let columns = queries.columns;
        for (first, batch) in (0..).step_by(gallery.batch).zip(queries.values.chunks(gallery.batch * columns))
        {
            let begin = Instant::now();
            let prepared = prepare(batch)?;
            preparing += begin.elapsed();
            let query = |q: usize| &batch[(q - first) * columns..][..columns];
            let results = self
                .alike(first..first + batch.len() / columns)
                .par_iter()
                .map(|alike| {
                    let start = Instant::now();
                    let by_row = self.queries.relevant(alike[0], &self.gallery)?;
                    let relevant: Vec<bool> = rows.iter().map(|&row| by_row[row as usize]).collect();
                    let ranker = Ranker::new(gallery.starts, gallery.ids, &relevant);
                    let mut scores = vec![0.0; gallery.starts.len() - 1];
                    let mut searching = Duration::ZERO;
                    let result = |&q: &usize| -> Result<(usize, QueryResult)> {
                        let start = Instant::now();
                        score(&prepared, q - first, query(q), &mut scores)?;
                        searching += start.elapsed();
                        let ranking = ranker.rank(&scores, self.query_ids.as_ref().map(|ids| ids[q]))?;
                        bar.inc(1);
                        Ok((q, evaluator.query(&ranking)))
                    };
                    let results = alike.iter().map(result).collect::<Result<Vec<_>>>()?;
                    Ok((results, searching, start.elapsed() - searching))
                })
                .collect::<Result<Vec<_>>>()?;
            let mut in_order = Vec::new();
            for (results, searched, evaluated) in results {
                in_order.extend(results);
                cpu[0] += searched;
                cpu[1] += evaluated;
            }
            in_order.sort_unstable_by_key(|&(q, _)| q);
            in_order.iter().for_each(|(_, result)| evaluator.add(result));
        }
        bar.finish_and_clear();
        let share = cpu[0].as_secs_f64() / (cpu[0] + cpu[1]).as_secs_f64().max(f64::MIN_POSITIVE);
        let wall = start.elapsed() - preparing;
        seconds[0] += preparing + wall.mul_f64(share);
        seconds[1] += wall.mul_f64(1.0 - share);
        Ok(evaluator.finish()?)
    }

    /// Sorts queries into groups of the same classes, which share what is relevant; a large one into several, so that every
    /// thread has some.
    fn alike(&self, queries: Range<usize>) -> Vec<Vec<usize>> {
        const MOST: usize = 32;
        let mut alike: BTreeMap<&[u64], Vec<usize>> = BTreeMap::new();
        for q in queries {
            alike.entry(self.queries.classes(q)).or_default().push(q);
        }
        alike.values().flat_map(|group| group.chunks(MOST)).map(<[usize]>::to_vec).collect()
    }
}

/// The labels of both sides; class numbers make as many columns as either side has.
fn read_labels(of_queries: &Path, of_gallery: &Path) -> Result<(Labels, Labels)> {
    let (queries, gallery) = (LabelFile::read(of_queries)?, LabelFile::read(of_gallery)?);
    let n_classes = queries.n_classes().max(gallery.n_classes());
    let labels = |file: LabelFile, path: &Path| {
        let labels = file.into_multi_hot(n_classes);
        Labels::from_multi_hot(&labels.values, labels.columns).with_context(|| path.display().to_string())
    };
    Ok((labels(queries, of_queries)?, labels(gallery, of_gallery)?))
}
