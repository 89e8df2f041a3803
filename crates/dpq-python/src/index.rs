//! `pydpq.Index` and its filters.

use std::path::PathBuf;

use dpq_codebook::CodeLength;
use dpq_formats::FaissIndex;
use dpq_index::{Error, Hit, Metric, SearchOptions};
use numpy::ndarray::{Ix1, Ix2};
use numpy::{PyArrayDescrMethods, PyUntypedArrayMethods};
use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use rayon::prelude::*;

use crate::array::{self, Array, Rows, check_columns, read, to_array, values};
use crate::codebooks::Codebooks;
use crate::error::raise;
use crate::opened::{self, Opened};
use crate::threads::{in_pieces, interruptible, pool};

/// An index, searched exactly at any code length: Index.open(path), Index.from_codes(codes,
/// codebooks) or Index.from_faiss(path).
#[pyclass(frozen, module = "pydpq")]
pub(crate) struct Index {
    pub(crate) inner: Opened,
    /// The absolute path that it was opened from.
    pub(crate) path: Option<PathBuf>,
}

/// The items of one index that a search may return: index.allow(ids) or index.deny(ids).
///
/// A filter holds one bit per item and serves any number of searches of the index that made it.
/// Combine filters with & (both), | (either) and ~ (not). len(filter) is the number of items that
/// pass.
#[pyclass(frozen, module = "pydpq")]
pub(crate) struct Filter {
    inner: opened::Filter,
}

#[pymethods]
impl Filter {
    fn __and__(&self, other: &Self) -> PyResult<Self> {
        Ok(Self { inner: self.inner.and(&other.inner)? })
    }

    fn __or__(&self, other: &Self) -> PyResult<Self> {
        Ok(Self { inner: self.inner.or(&other.inner)? })
    }

    fn __invert__(&self) -> Self {
        Self { inner: self.inner.not() }
    }

    fn __len__(&self) -> usize {
        self.inner.len()
    }

    fn __repr__(&self) -> String {
        format!("<pydpq.Filter that {} items pass>", self.inner.len())
    }
}

/// Queries searched at a time, whose hits are in memory.
const QUERIES: usize = 256;

/// Queries times items that take long enough for Ctrl-C to interrupt them. A thread that waits for
/// the signal takes longer than a short search.
const LONG_SEARCH: usize = 1 << 22;

/// Fills the place of a missing hit, as in faiss.
const NO_ID: i64 = -1;
const NO_SCORE: f32 = f32::MIN;

#[pymethods]
impl Index {
    /// Opens an index file, or the last commit in the folder of a live index, by memory-mapping: in
    /// time independent of the number of items, or for a folder a little that grows with it.
    ///
    /// Do not change or truncate the files while the index is in use: that can end the process.
    /// Renaming a new file over an old one is safe, as dpq does, and so are commits to a live
    /// index. Open the folder again to see them.
    #[staticmethod]
    #[expect(unsafe_code, reason = "a mapping is only as constant as its file")]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        // SAFETY: the documentation of this function passes the promise on to the caller, since
        // Python cannot enforce it.
        let inner = py.detach(|| unsafe { Opened::map(&path) })?;
        Ok(Self { inner, path: Some(std::path::absolute(path)?) })
    }

    /// Builds an index in memory from codes, uint8 [n, L], that codebooks encoded.
    ///
    /// ids: whole numbers [n], distinct and not negative; None for row numbers. metric: "ip"
    /// (inner product) or "l2" (Euclidean distance). norms: the code lengths in bits that an "l2"
    /// index keeps norms for, 4 bytes per distinct code and length above 16; None for 24 to 64, 96,
    /// 128, 192, 256, 384, 512 and the longest. Others can be searched too: norms are then computed
    /// once per process.
    #[staticmethod]
    #[pyo3(signature = (codes, codebooks, ids = None, metric = "ip", *, norms = None))]
    fn from_codes(
        codes: &Bound<'_, PyAny>,
        codebooks: &Codebooks,
        ids: Option<&Bound<'_, PyAny>>,
        metric: &str,
        norms: Option<Vec<usize>>,
    ) -> PyResult<Self> {
        let array = read::<u8, Ix2>("codes", codes, "[n, L]")?;
        check_columns("codes", array.shape()[1], codebooks.inner.n_levels(), "the levels of the codebooks")?;
        let metric = metric.parse().map_err(|error: Error| raise(error))?;
        let (bytes, ids) = (values(&array), ids.map(array::ids).transpose()?);
        let index = dpq_index::Index::builder(&codebooks.inner, bytes).metric(metric);
        let index = ids.as_deref().map_or(index, |ids| index.ids(ids));
        let norms = norms.map(|norms| norms.into_iter().map(CodeLength::from_bits).collect());
        let norms: Option<Vec<_>> = norms.transpose().map_err(raise)?;
        let index = norms.as_deref().map_or(index, |norms| index.norm_lengths(norms));
        codes.py().detach(|| index.build()).map(Self::from).map_err(raise)
    }

    /// Reads a faiss index file: IndexResidualQuantizer or IndexPQ of 1 to 8 bits per level, alone
    /// or in an IndexIDMap.
    ///
    /// Scores are the same as in faiss; Euclidean ones are exact, whatever norms faiss stored.
    #[staticmethod]
    fn from_faiss(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let faiss = py.detach(|| FaissIndex::open(path)).map_err(raise)?;
        let metric = if faiss.is_euclidean { Metric::Euclidean } else { Metric::InnerProduct };
        let index = dpq_index::Index::builder(&faiss.codebooks, &faiss.codes).metric(metric);
        let index = faiss.ids.as_deref().map_or(index, |ids| index.ids(ids));
        py.detach(|| index.build()).map(Self::from).map_err(raise)
    }

    /// Writes a faiss index file atomically: an IndexResidualQuantizer, or an IndexPQ of product
    /// codes, in an IndexIDMap unless ids are row numbers.
    ///
    /// faiss.read_index(path) searches it with the same scores at the full length. Items are
    /// ordered by ascending id.
    fn to_faiss(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        let save = || {
            let (ids, codes) = self.inner.ids_and_codes();
            let is_euclidean = self.inner.metric() == Metric::Euclidean;
            let codebooks = self.inner.codebooks().clone();
            FaissIndex { is_euclidean, codebooks, codes, ids: Some(ids) }.save(path)
        };
        py.detach(save).map_err(raise)
    }

    /// Returns a filter that only these ids pass: whole numbers [n], or a mask, bool [len(index)],
    /// of an index whose ids are row numbers. Ids that are not in the index are ignored.
    fn allow(&self, ids: &Bound<'_, PyAny>) -> PyResult<Filter> {
        let given = self.given(ids)?;
        Ok(Filter { inner: ids.py().detach(|| self.inner.allow(&given)) })
    }

    /// Returns a filter that all ids except these pass: whole numbers [n], or a mask as in allow.
    fn deny(&self, ids: &Bound<'_, PyAny>) -> PyResult<Filter> {
        let given = self.given(ids)?;
        Ok(Filter { inner: ids.py().detach(|| self.inner.deny(&given)) })
    }

    /// Writes the index to a file atomically: a live index as one file, without names.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        py.detach(|| self.inner.save(&path))
    }

    /// Returns the bytes of its file: of a live index, those that save would write.
    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(match &self.inner {
            Opened::File(index) => PyBytes::new(py, index.as_bytes()),
            Opened::Live(_) => PyBytes::new(py, py.detach(|| self.inner.build())?.as_bytes()),
        })
    }

    /// Opens an index from the bytes of its file, in memory.
    #[staticmethod]
    fn from_bytes(py: Python<'_>, data: Vec<u8>) -> PyResult<Self> {
        py.detach(|| dpq_index::Index::from_bytes(data)).map(Self::from).map_err(raise)
    }

    /// Pickles the path of an opened index, and the bytes of one in memory. Unpickling opens the
    /// file that the path then names.
    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let (py, this) = (slf.py(), slf.get());
        Ok(match &this.path {
            Some(path) => (slf.getattr("open")?, PyTuple::new(py, [path])?),
            None => (slf.getattr("from_bytes")?, PyTuple::new(py, [this.to_bytes(py)?])?),
        })
    }

    /// Returns an index of the same items in the current version of the file format, in memory.
    /// save writes an opened index in the version that it has.
    fn upgrade(&self, py: Python<'_>) -> PyResult<Self> {
        py.detach(|| self.inner.build()).map(Self::from)
    }

    /// Finds the best k items for each row of queries, float32 [n, D], at a code length of bits.
    /// Returns (scores, ids): float32 and int64 [n, k], each row ordered by descending score, then
    /// ascending id. One query, [D], gives [k].
    ///
    /// The result is exact: the same as scoring every code and sorting. Scores are inner products,
    /// or 2<q, x> - |x|^2 for "l2"; larger is nearer. squared_distances converts the latter. If
    /// fewer than k items match, a row ends with ids of -1 and the minimum float32 as scores, as in
    /// faiss. An id above 2^63 - 1 is negative; ids.view(numpy.uint64) returns it.
    ///
    /// bits: a multiple of 8, at most 8 n_levels; None for all levels. shortlist: (n, bits) scores
    /// only the best n items at this shorter length, such as (1000, 32): faster for long codes, and
    /// items outside are missed. exact: continue after the shortlist until none is missed. filter:
    /// the items that may be found, from allow or deny of this index. threads: worker threads, None
    /// for all cores; threads=1 has the least overhead.
    #[pyo3(signature = (queries, k, bits = None, *, shortlist = None, exact = false, filter = None, threads = None))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    pub(crate) fn search<'py>(
        &self,
        queries: &Bound<'py, PyAny>,
        k: usize,
        bits: Option<usize>,
        shortlist: Option<(usize, usize)>,
        exact: bool,
        filter: Option<&Filter>,
        threads: Option<usize>,
    ) -> PyResult<(Array<'py, f32>, Array<'py, i64>)> {
        let py = queries.py();
        let rows = self.queries(queries)?;
        let length =
            bits.map_or(Ok(self.inner.codebooks().max_length()), CodeLength::from_bits).map_err(raise)?;
        let pool = threads.map(pool).transpose()?;
        let mut options = SearchOptions::new(k).length(length);
        if let Some((n, bits)) = shortlist {
            options = options.shortlist(n, CodeLength::from_bits(bits).map_err(raise)?);
        }
        if exact {
            options = options.exact();
        }
        let (mut scores, mut ids) = (reserve([rows.n, k])?, reserve([rows.n, k])?);
        let dim = rows.columns;
        in_pieces(py, rows.values(), QUERIES * dim, |queries| {
            let search = |options: &SearchOptions| {
                let search = || self.inner.search_batch(queries, options, filter.map(|filter| &filter.inner));
                pool.as_ref().map_or_else(search, |pool| pool.install(search))
            };
            let hits = if queries.len() / dim * self.inner.len() < LONG_SEARCH {
                py.detach(|| search(&options))
            } else {
                interruptible(py, |interrupt| search(&options.interrupt(interrupt)))?
            };
            hits?.iter().for_each(|hits| append(hits, k, &mut scores, &mut ids));
            Ok(())
        })?;
        Ok((rows.result(scores, k)?, rows.result(ids, k)?))
    }

    /// Scores hits again by the vectors that were encoded, and returns the best k of each row as
    /// search does. Scores are inner products with vectors, or 2<q, x> - |x|^2 for "l2".
    ///
    /// queries: float32 [n, D]; ids: int64 [n, m], as search returned them; vectors: float32
    /// [N, D], row i for id i, in memory or a numpy.memmap. Runs on all cores.
    fn rerank<'py>(
        &self,
        queries: &Bound<'py, PyAny>,
        ids: &Bound<'py, PyAny>,
        vectors: &Bound<'py, PyAny>,
        k: usize,
    ) -> PyResult<(Array<'py, f32>, Array<'py, i64>)> {
        let py = queries.py();
        let (rows, id_rows) = (self.queries(queries)?, Rows::<i64>::read("ids", ids, "[n, m]")?);
        let vector_array = read::<f32, Ix2>("vectors", vectors, "[N, D]")?;
        let (dim, n_vectors) = (rows.columns, vector_array.shape()[0]);
        check_columns("vectors", vector_array.shape()[1], dim, "the dimension of the index")?;
        check_rows("ids", id_rows.n, rows.n)?;
        let (n, m, vectors) = (rows.n, id_rows.columns, values(&vector_array));
        let (query_values, id_values) = (rows.values(), id_rows.values());
        if let Some(id) = id_values.iter().find(|&&id| id != NO_ID && id as u64 >= n_vectors as u64) {
            return Err(PyValueError::new_err(format!(
                "vectors has {n_vectors} rows, none for id {id}: pass the vectors of all ids"
            )));
        }
        let rerank = |i: usize| {
            let hits = id_values[i * m..][..m].iter().filter(|&&id| id != NO_ID);
            let hits: Vec<Hit> = hits.map(|&id| Hit { id: id as u64, score: 0.0 }).collect();
            self.inner.rerank(&query_values[i * dim..][..dim], &hits, k, |id, x| -> Result<(), Error> {
                x.copy_from_slice(&vectors[id as usize * dim..][..dim]);
                Ok(())
            })
        };
        let hits = py.detach(|| (0..n).into_par_iter().map(rerank).collect::<Result<Vec<_>, _>>());
        let (mut scores, mut ids) = (reserve([n, k])?, reserve([n, k])?);
        hits.map_err(raise)?.iter().for_each(|hits| append(hits, k, &mut scores, &mut ids));
        Ok((rows.result(scores, k)?, rows.result(ids, k)?))
    }

    /// Returns the squared Euclidean distances, float32 [n, k], of hits from their queries.
    ///
    /// queries: float32 [n, D]; scores: float32 [n, k], as search returned them. A missing hit has
    /// the maximum float32. The metric must be "l2".
    fn squared_distances<'py>(
        &self,
        queries: &Bound<'py, PyAny>,
        scores: &Bound<'py, PyAny>,
    ) -> PyResult<Array<'py, f32>> {
        let (rows, score_rows) = (self.queries(queries)?, Rows::<f32>::read("scores", scores, "[n, k]")?);
        check_rows("scores", score_rows.n, rows.n)?;
        let k = score_rows.columns;
        let mut distances = Vec::with_capacity(rows.n * k);
        let pairs = rows.values().chunks_exact(rows.columns).zip(score_rows.values().chunks(k.max(1)));
        for (query, scores) in pairs {
            let hits: Vec<Hit> = scores.iter().map(|&score| Hit { id: 0, score }).collect();
            distances.extend(self.inner.squared_distances(query, &hits)?);
        }
        rows.result(distances, k)
    }

    /// Reads and checks every byte of the index. A ValueError names the damaged section.
    fn verify(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.inner.verify())
    }

    /// Returns the name that a live index has for an id, or None.
    fn name_of(&self, id: u64) -> Option<&str> {
        self.inner.name_of(id)
    }

    fn __len__(&self) -> usize {
        self.inner.len()
    }

    /// The dimensions of a query, D.
    #[getter]
    fn dim(&self) -> usize {
        self.inner.codebooks().dim()
    }

    /// The number of levels, L: the longest code has 8 L bits.
    #[getter]
    fn n_levels(&self) -> usize {
        self.inner.codebooks().n_levels()
    }

    /// The metric, "ip" or "l2".
    #[getter]
    fn metric(&self) -> String {
        self.inner.metric().to_string()
    }

    /// The version of the file format, 1 or 2; of a live index, that of its segments.
    #[getter]
    fn version(&self) -> u8 {
        self.inner.version()
    }

    /// The code lengths in bits, above 16, that an "l2" index keeps norms for.
    #[getter]
    fn norms(&self) -> Vec<usize> {
        self.inner.norm_lengths().iter().map(|length| length.bits()).collect()
    }

    /// Eight hex digits that identify the codebooks of the codes.
    #[getter]
    fn fingerprint(&self) -> String {
        self.inner.codebooks().fingerprint()
    }

    /// The codebooks of the codes.
    #[getter]
    fn codebooks(&self) -> Codebooks {
        self.inner.codebooks().clone().into()
    }

    fn __repr__(&self) -> String {
        let (metric, fingerprint) = (self.metric(), self.fingerprint());
        format!(
            "<pydpq.Index of {} items, dim {}, {} levels, {metric}, {fingerprint}>",
            self.inner.len(),
            self.dim(),
            self.n_levels()
        )
    }
}

impl From<dpq_index::Index> for Index {
    fn from(index: dpq_index::Index) -> Self {
        Self { inner: index.into(), path: None }
    }
}

impl Index {
    /// Reads rows of queries.
    fn queries<'py>(&self, argument: &Bound<'py, PyAny>) -> PyResult<Rows<'py, f32>> {
        let dim = self.inner.codebooks().dim();
        Rows::of_columns("queries", argument, "[n, D]", dim, "the dimension of the index")
    }

    /// Returns the ids of an argument of a filter, which may be a mask.
    fn given(&self, argument: &Bound<'_, PyAny>) -> PyResult<Vec<u64>> {
        let array = to_array(argument)?;
        if array.dtype().kind() != b'b' {
            return array::ids(&array);
        }
        let mask = read::<bool, Ix1>("ids", &array, "[n]")?;
        let (found, n) = (array.len(), self.inner.len());
        if found != n {
            return Err(PyValueError::new_err(format!(
                "the mask has {found} values, expected {n}, one per item"
            )));
        }
        let rows: Vec<u64> = (0..n as u64).collect();
        if self.inner.allow(&rows).len() != n {
            return Err(PyValueError::new_err(
                "a mask selects row numbers, and the ids of this index are others: give the ids themselves",
            ));
        }
        Ok(rows.into_iter().zip(values(&mask)).filter(|(_, passes)| **passes).map(|(id, _)| id).collect())
    }
}

/// Appends a row of k hits.
fn append(hits: &[Hit], k: usize, scores: &mut Vec<f32>, ids: &mut Vec<i64>) {
    scores.extend(hits.iter().map(|hit| hit.score));
    ids.extend(hits.iter().map(|hit| hit.id as i64));
    let missing = k - hits.len();
    scores.extend(std::iter::repeat_n(NO_SCORE, missing));
    ids.extend(std::iter::repeat_n(NO_ID, missing));
}

fn check_rows(what: &str, found: usize, n_queries: usize) -> PyResult<()> {
    if found == n_queries {
        return Ok(());
    }
    Err(PyValueError::new_err(format!("{what} has {found} rows, expected {n_queries}, one per query")))
}

/// Allocates an array of this shape. Asking for too much memory must not end the process.
fn reserve<T>([rows, columns]: [usize; 2]) -> PyResult<Vec<T>> {
    let mut values = Vec::new();
    match values.try_reserve_exact(rows.saturating_mul(columns)) {
        Ok(()) => Ok(values),
        Err(_) => {
            Err(PyMemoryError::new_err(format!("the memory does not hold {columns} hits for {rows} queries")))
        }
    }
}
