//! `pydpq.mean_average_precision`.

use dpq_eval::{Evaluator, Labels, MapRule, QueryResult, Ranker, Ranking};
use numpy::ndarray::IxDyn;
use numpy::{PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rayon::prelude::*;

use crate::array::{read, to_array, values};
use crate::error::raise;
use crate::threads::in_pieces;

/// Queries evaluated between two checks for Ctrl-C.
const QUERIES: usize = 64;

/// Computes the mean average precision of rankings under a named rule.
///
/// query_labels, gallery_labels: multi-hot, 0 and 1 or bool [q, C] and [n, C], or class numbers
/// from 0, [q] and [n]. An item is relevant to a query if they share a class. Id i is row i of
/// gallery_labels. Rankings are one of
///
/// - scores, float32 [q, n]: one score per item of the gallery; larger is nearer, equal scores tie;
/// - ids, int64 [q, m], and scores, float32 [q, m], as Index.search returns them; -1 ends a row;
/// - ids alone: in their order, without ties.
///
/// rule: "dpq" or "standard", as in `dpq eval`. "dpq" follows the protocol of the DPQ paper. It
/// divides the sum of precisions by the number of relevant items retrieved, counts a query without
/// relevant items as 0, and takes the exact expectation over all orders of tied items. "standard"
/// follows TREC. It divides by the number of all relevant items, skips queries without any, and
/// orders ties by ascending id. at: the maximum rank that counts, None for all. A truncated ranking
/// should end where a tie ends: under "dpq" pass every item (k = len(index)), or more ranks than
/// at.
#[pyfunction]
#[pyo3(signature = (query_labels, gallery_labels, *, ids = None, scores = None, rule = "dpq", at = None))]
pub(crate) fn mean_average_precision(
    py: Python<'_>,
    query_labels: &Bound<'_, PyAny>,
    gallery_labels: &Bound<'_, PyAny>,
    ids: Option<&Bound<'_, PyAny>>,
    scores: Option<&Bound<'_, PyAny>>,
    rule: &str,
    at: Option<usize>,
) -> PyResult<f64> {
    let rule = match rule {
        "dpq" => MapRule::dpq(),
        "standard" => MapRule::standard(),
        _ => return Err(invalid(format!("rule is `{rule}`, expected `dpq` or `standard`"))),
    };
    let mut evaluator = Evaluator::new(&[MapRule { cutoff: at, ..rule }], &[], 0).map_err(raise)?;
    let [queries, gallery] = labels([("query_labels", query_labels), ("gallery_labels", gallery_labels)])?;
    let ids: Option<PyReadonlyArray2<'_, i64>> = ids.map(|array| read("ids", array, "[q, m]")).transpose()?;
    let scores: Option<PyReadonlyArray2<'_, f32>> =
        scores.map(|array| read("scores", array, "[q, m]")).transpose()?;
    let shapes = [ids.as_ref().map(|ids| ids.shape()), scores.as_ref().map(|scores| scores.shape())];
    let expected = match (shapes, gallery.len()) {
        ([None, None], _) => {
            return Err(invalid("there are neither ids nor scores, expected one or both".to_owned()));
        }
        ([None, _], n) => [queries.len(), n],
        ([Some(ids), _], _) => [queries.len(), ids[1]],
    };
    for (what, shape) in ["ids", "scores"].iter().zip(shapes) {
        if let Some(found) = shape.filter(|&shape| shape != expected) {
            return Err(invalid(format!(
                "{what} has the shape {found:?}, expected {expected:?}: a row for each query, and where there are only \
                 scores, a column for each item of the gallery"
            )));
        }
    }

    let (ids, scores) = (ids.as_ref().map(values), scores.as_ref().map(values));
    let items: (Vec<u32>, Vec<u64>) =
        ((0..).take(gallery.len() + 1).collect(), (0..).take(gallery.len()).collect());
    let rankings =
        Rankings { queries: &queries, gallery: &gallery, items, ids, scores, columns: expected[1] };
    let all: Vec<usize> = (0..queries.len()).collect();
    in_pieces(py, &all, QUERIES, |piece| {
        let query = |&q: &usize| Ok(evaluator.query(&rankings.ranking(q)?));
        let results: PyResult<Vec<QueryResult>> = py.detach(|| piece.par_iter().map(query).collect());
        results?.iter().try_for_each(|result| evaluator.add(result)).map_err(raise)
    })?;
    Ok(evaluator.finish().map_err(raise)?.map[0].1)
}

/// The rankings and labels of all queries. ids and scores are [q, columns], and one of them may be
/// missing.
struct Rankings<'a> {
    queries: &'a Labels,
    gallery: &'a Labels,
    /// The gallery for a [`Ranker`], one group per item.
    items: (Vec<u32>, Vec<u64>),
    ids: Option<&'a [i64]>,
    scores: Option<&'a [f32]>,
    columns: usize,
}

impl Rankings<'_> {
    fn ranking(&self, q: usize) -> PyResult<Ranking> {
        let relevant = self.queries.relevant(q, self.gallery).map_err(raise)?;
        let row = q * self.columns..(q + 1) * self.columns;
        let scores = self.scores.map(|scores| &scores[row.clone()]);
        let Some(ids) = self.ids else {
            let (starts, ids) = &self.items;
            let ranker = Ranker::new(starts, ids, &relevant).map_err(raise)?;
            return ranker.rank(scores.unwrap_or_default(), None).map_err(raise);
        };
        let n_relevant = relevant.iter().filter(|&&relevant| relevant).count();
        let ids = ids[row].iter().map_while(|&id| u64::try_from(id).ok());
        // Without scores, distinct floats that descend from the maximum keep the order.
        let score = |rank| f32::from_bits(f32::MAX.to_bits() - rank as u32);
        let mut seen = vec![false; relevant.len()];
        let items = ids.enumerate().map(|(rank, id)| {
            let score = scores.map_or_else(|| score(rank), |scores| scores[rank]);
            let Some(seen) = usize::try_from(id).ok().and_then(|id| seen.get_mut(id)) else {
                let n = relevant.len();
                return Err(invalid(format!(
                    "ids has the id {id} for query {q}, but gallery_labels has {n} rows"
                )));
            };
            if std::mem::replace(seen, true) {
                return Err(invalid(format!(
                    "ids has the id {id} twice for query {q}, expected each item once"
                )));
            }
            Ok((id, score, relevant[id as usize]))
        });
        Ranking::new(items.collect::<PyResult<Vec<_>>>()?, n_relevant, None).map_err(raise)
    }
}

/// The maximum number of classes. Without it one wrong number could ask for all memory.
const MAX_CLASSES: i64 = 1 << 16;

/// Reads labels, multi-hot or class numbers. Class numbers make as many columns as either side has
/// classes, as in `dpq eval`.
fn labels(arguments: [(&str, &Bound<'_, PyAny>); 2]) -> PyResult<[Labels; 2]> {
    let [queries, gallery] = arguments.map(|(what, argument)| Classes::read(what, argument));
    let sides = [queries?, gallery?];
    let n_classes = sides.iter().map(Classes::n_classes).max().unwrap_or(1).max(1);
    let [queries, gallery] = sides.map(|side| match side {
        Classes::Numbers(classes) => {
            let mut values = vec![0; classes.len() * n_classes];
            classes.iter().enumerate().for_each(|(row, &class)| values[row * n_classes + class as usize] = 1);
            Labels::from_multi_hot(&values, n_classes).map_err(raise)
        }
        Classes::MultiHot(rows) => Labels::from_multi_hot(values(&rows), rows.shape()[1]).map_err(raise),
    });
    Ok([queries?, gallery?])
}

/// The classes of items.
enum Classes<'py> {
    /// One class per item, from an array [n] or a column [n, 1] of a table.
    Numbers(Vec<i64>),
    /// [n, C]
    MultiHot(PyReadonlyArray2<'py, u8>),
}

impl<'py> Classes<'py> {
    fn read(what: &str, argument: &Bound<'py, PyAny>) -> PyResult<Self> {
        let array = to_array(argument)?;
        if !matches!(array.shape(), [_] | [_, 1]) {
            return Ok(Self::MultiHot(read(what, &array, "[n, C]")?));
        }
        let classes: Vec<i64> = values(&read::<i64, IxDyn>(what, &array, "class numbers [n]")?).to_vec();
        match classes.iter().find(|&class| !(0..MAX_CLASSES).contains(class)) {
            Some(class) => Err(invalid(format!(
                "{what} has the class {class}, expected numbers from 0, below {MAX_CLASSES}"
            ))),
            None => Ok(Self::Numbers(classes)),
        }
    }

    fn n_classes(&self) -> usize {
        match self {
            Self::Numbers(classes) => classes.iter().max().map_or(0, |&class| class as usize + 1),
            Self::MultiHot(rows) => rows.shape()[1],
        }
    }
}

fn invalid(sentence: String) -> PyErr {
    PyValueError::new_err(sentence)
}
