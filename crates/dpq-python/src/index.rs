//! `dpq.Index`.

use std::collections::HashSet;
use std::path::PathBuf;

use dpq_codebook::CodeLength;
use dpq_index::{Error, Filter, Hit, SearchOptions};
use numpy::PyUntypedArrayMethods;
use numpy::ndarray::Ix2;
use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;
use rayon::prelude::*;

use crate::array::{self, Matrix, borrow, check_columns, matrix, values};
use crate::codebooks::Codebooks;
use crate::error::raise;
use crate::threads::{in_pieces, pool};

/// An index, searched exactly at any code length: Index.open(path) or Index.from_codes(codes, codebooks).
#[pyclass(frozen, module = "dpq")]
pub(crate) struct Index {
    inner: dpq_index::Index,
}

/// Queries answered between two looks for Ctrl-C.
const QUERIES: usize = 256;

/// What is in the place of a hit that there is not, as in faiss.
const NO_ID: i64 = -1;
const NO_SCORE: f32 = f32::MIN;

#[pymethods]
impl Index {
    /// Opens an index file by memory-mapping it, in time independent of the number of items.
    ///
    /// Do not change or truncate the file while the index lives: that can end the process. Replacing the file is safe when a
    /// new file is renamed over it, as dpq does.
    #[staticmethod]
    #[expect(unsafe_code, reason = "a mapping is only as constant as its file")]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        // SAFETY: the documentation of this function passes the promise on to the caller. Python has no other way.
        Ok(Self { inner: py.detach(|| unsafe { dpq_index::Index::map(&path) }).map_err(raise)? })
    }

    /// Builds an index in memory from codes, uint8 [n, L], that codebooks made.
    ///
    /// ids: uint64 or int64 [n], each once, not negative; None for row numbers. metric: "ip" (inner product) or "l2"
    /// (Euclidean distance).
    #[staticmethod]
    #[pyo3(signature = (codes, codebooks, ids = None, metric = "ip"))]
    fn from_codes(
        codes: &Bound<'_, PyAny>,
        codebooks: &Codebooks,
        ids: Option<&Bound<'_, PyAny>>,
        metric: &str,
    ) -> PyResult<Self> {
        let array = borrow::<u8, Ix2>("codes", codes, "[n, L]")?;
        check_columns("codes", array.shape()[1], codebooks.inner.n_levels(), "the levels of the codebooks")?;
        let metric = metric.parse().map_err(|error: Error| raise(error))?;
        let (bytes, ids) = (values(&array), ids.map(|ids| array::ids("ids", ids)).transpose()?);
        let build = || dpq_index::Index::from_codes(&codebooks.inner, metric, bytes, ids.as_deref());
        Ok(Self { inner: codes.py().detach(build).map_err(raise)? })
    }

    /// Writes the index to a file, whole or not at all.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        py.detach(|| self.inner.save(&path)).map_err(raise)
    }

    /// Finds the best k items for each row of queries, float32 [n, D], at a code length of bits, and returns (scores,
    /// ids): float32 and int64 [n, k], each row in the order score descending, then id ascending.
    ///
    /// The result is exact: what scoring every code and sorting would give. Scores are inner products, or for "l2"
    /// 2<q, x> - |x|^2, larger is nearer; subtract |q|^2 for the negative squared distance. Where fewer than k items
    /// match, a row ends in ids of -1 with the least float32 as their score, as in faiss. An id above 2^63 - 1 comes
    /// out negative; ids.view(numpy.uint64) is the id.
    ///
    /// bits: a multiple of 8, at most 8 n_levels; the default is the first two levels, whatever the codes hold. allow,
    /// deny: ids, uint64 or int64, that alone may, or may not, be found; ids that the index does not hold are ignored.
    /// Both are prepared once a call by reading every id of the index, so give queries that share them together. threads: worker threads, None for all cores; threads=1 has
    /// the least overhead.
    #[pyo3(signature = (queries, k, bits = 16, *, allow = None, deny = None, threads = None))]
    fn search<'py>(
        &self,
        queries: &Bound<'py, PyAny>,
        k: usize,
        bits: usize,
        allow: Option<&Bound<'py, PyAny>>,
        deny: Option<&Bound<'py, PyAny>>,
        threads: Option<usize>,
    ) -> PyResult<(Matrix<'py, f32>, Matrix<'py, i64>)> {
        let py = queries.py();
        let array = borrow::<f32, Ix2>("queries", queries, "[n, D]")?;
        let dim = self.inner.codebooks().dim();
        check_columns("queries", array.shape()[1], dim, "the dimension of the index")?;
        let length = CodeLength::from_bits(bits).map_err(raise)?;
        let pool = threads.map(pool).transpose()?;
        let filter = self.filter(py, allow, deny)?;
        let mut options = SearchOptions::new(k, length);
        if let Some(filter) = &filter {
            options = options.filter(filter);
        }
        let shape = [array.shape()[0], k];
        let (mut scores, mut ids) = (reserve(shape)?, reserve(shape)?);
        in_pieces(py, values(&array), QUERIES * dim, |queries| {
            let search = || self.batch(queries, length, &options);
            let hits = py.detach(|| pool.as_ref().map_or_else(search, |pool| pool.install(search)));
            for hits in hits.map_err(raise)? {
                scores.extend(hits.iter().map(|hit| hit.score));
                ids.extend(hits.iter().map(|hit| hit.id as i64));
                let missing = k - hits.len();
                scores.extend(std::iter::repeat_n(NO_SCORE, missing));
                ids.extend(std::iter::repeat_n(NO_ID, missing));
            }
            Ok(())
        })?;
        Ok((matrix(py, scores, shape)?, matrix(py, ids, shape)?))
    }

    /// Reads every byte of the index and checks it; a ValueError names the section that is damaged.
    fn verify(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.inner.verify()).map_err(raise)
    }

    fn __len__(&self) -> usize {
        self.inner.len()
    }

    /// Dimensions of a query, D.
    #[getter]
    fn dim(&self) -> usize {
        self.inner.codebooks().dim()
    }

    /// Levels, L: the longest code has 8 L bits.
    #[getter]
    fn n_levels(&self) -> usize {
        self.inner.codebooks().n_levels()
    }

    /// What the index ranks by, "ip" or "l2".
    #[getter]
    fn metric(&self) -> String {
        self.inner.metric().to_string()
    }

    /// The fingerprint of the codebooks that made the codes, eight hex digits.
    #[getter]
    fn fingerprint(&self) -> String {
        self.inner.fingerprint()
    }

    /// The codebooks that made the codes.
    #[getter]
    fn codebooks(&self) -> Codebooks {
        self.inner.codebooks().clone().into()
    }

    fn __repr__(&self) -> String {
        let (metric, fingerprint) = (self.metric(), self.fingerprint());
        format!(
            "<dpq.Index of {} items, dim {}, {} levels, {metric}, {fingerprint}>",
            self.inner.len(),
            self.dim(),
            self.n_levels()
        )
    }
}

impl Index {
    /// The hits of each query. One query is answered by the thread that asks: waking another takes longer than the
    /// search.
    fn batch(
        &self,
        queries: &[f32],
        length: CodeLength,
        options: &SearchOptions,
    ) -> Result<Vec<Vec<Hit>>, Error> {
        let dim = self.inner.codebooks().dim();
        let table = |query| self.inner.lookup_table_at(query, length);
        if queries.len() == dim {
            return Ok(vec![self.inner.search(&table(queries)?, options)?]);
        }
        let tables = queries.par_chunks_exact(dim).map(table).collect::<Result<Vec<_>, _>>()?;
        self.inner.search_batch(&tables, options)
    }

    fn filter(
        &self,
        py: Python<'_>,
        allow: Option<&Bound<'_, PyAny>>,
        deny: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<Filter>> {
        let allow = allow.map(|given| array::ids("allow", given)).transpose()?;
        let deny = deny.map(|given| array::ids("deny", given)).transpose()?;
        Ok(py.detach(|| match (allow, deny) {
            (None, None) => None,
            (None, Some(deny)) => Some(self.inner.deny(&deny)),
            (Some(mut allow), deny) => {
                let deny: HashSet<u64> = deny.into_iter().flatten().collect();
                allow.retain(|id| !deny.contains(id));
                Some(self.inner.allow(&allow))
            }
        }))
    }
}

/// Memory for an array of this shape. Asking for more than there is must not end the process.
fn reserve<T>([rows, columns]: [usize; 2]) -> PyResult<Vec<T>> {
    let mut values = Vec::new();
    match values.try_reserve_exact(rows.saturating_mul(columns)) {
        Ok(()) => Ok(values),
        Err(_) => {
            Err(PyMemoryError::new_err(format!("the memory does not hold {columns} hits for {rows} queries")))
        }
    }
}
