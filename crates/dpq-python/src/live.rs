//! `pydpq.LiveIndex`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dpq_live::{Error, Snapshot};
use numpy::PyUntypedArrayMethods;
use numpy::ndarray::Ix2;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::array::{Array, check_columns, ids, read, values};
use crate::codebooks::Codebooks;
use crate::error::{raise, raise_live};
use crate::index::{Filter, Index};
use crate::opened::Opened;

/// An index that changes, in a folder, and the only writer of it: LiveIndex.open(path), or
/// LiveIndex.create(path, codebooks).
///
/// Changes are in memory until commit makes them durable at once. Searches, here and in other
/// processes that open the folder as Index, see the last commit. Other writers wait until close or
/// the end of the process. In a `with` statement, changes are committed at its end, or dropped
/// after an exception, and the index is closed. If the commit fails, the changes are lost.
#[pyclass(frozen, module = "pydpq")]
pub(crate) struct LiveIndex {
    /// None once it is closed. Nobody waits for Python while it is locked.
    inner: Mutex<Option<Open>>,
    /// The absolute path of the folder.
    path: PathBuf,
}

struct Open {
    live: dpq_live::LiveIndex,
    /// The last commit, once somebody asked for it.
    snapshot: Option<Snapshot>,
}

#[pymethods]
impl LiveIndex {
    /// Opens the folder of a live index for changes, and memory-maps its segments.
    ///
    /// A BlockingIOError says that another writer has it. Do not change the files by other means
    /// while the index is open: that can end the process.
    #[staticmethod]
    #[expect(unsafe_code, reason = "a mapping is only as constant as its file")]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        // SAFETY: the documentation of this function passes the promise on to the caller, since
        // Python cannot enforce it.
        let inner = py.detach(|| unsafe { dpq_live::LiveIndex::map(&path) }).map_err(raise_live)?;
        Self::new(inner, path)
    }

    /// Makes a live index without items, in a folder that is made too, unless it exists. The metric
    /// is "ip" (inner product) or "l2" (Euclidean distance).
    #[staticmethod]
    #[pyo3(signature = (path, codebooks, metric = "ip"))]
    fn create(py: Python<'_>, path: PathBuf, codebooks: &Codebooks, metric: &str) -> PyResult<Self> {
        let metric = metric.parse().map_err(|error: dpq_index::Error| raise(error))?;
        let create = || dpq_live::LiveIndex::create(&path, &codebooks.inner, metric);
        let inner = py.detach(create).map_err(raise_live)?;
        Self::new(inner, path)
    }

    /// Adds items, or replaces those with these ids and their names.
    ///
    /// ids: whole numbers [n]; the last of equal ones counts. codes: uint8 [n, L], from the encode
    /// of codebooks or of a model. names: n strings or None per item; a name belongs to one item.
    /// Nothing is changed if an argument is refused.
    #[pyo3(signature = (ids, codes, names = None))]
    fn upsert(
        &self,
        ids: &Bound<'_, PyAny>,
        codes: &Bound<'_, PyAny>,
        names: Option<Vec<Option<String>>>,
    ) -> PyResult<()> {
        let (py, given) = (ids.py(), self::ids(ids)?);
        let array = read::<u8, Ix2>("codes", codes, "[n, L]")?;
        for (what, found) in [("codes", Some(array.shape()[0])), ("names", names.as_ref().map(Vec::len))] {
            if found.is_some_and(|found| found != given.len()) {
                let found = found.unwrap_or_default();
                return Err(PyValueError::new_err(format!(
                    "there are {found} {what} and {} ids, expected one for each",
                    given.len()
                )));
            }
        }
        let (columns, codes, names) = (array.shape()[1], values(&array), names.as_deref());
        self.with(py, |Open { live, .. }| {
            let n_levels = live.codebooks().n_levels();
            check_columns("codes", columns, n_levels, "the levels of the codebooks")?;
            let rows = || given.iter().copied().zip(codes.chunks_exact(n_levels)).enumerate();
            let name = |i: usize| names.and_then(|names| names[i].as_deref());
            let n_codewords = live.codebooks().n_codewords();
            let mut taken = HashMap::new();
            for (i, (id, code)) in rows() {
                if let Some(level) = code.iter().position(|&byte| usize::from(byte) >= n_codewords) {
                    return Err(raise(Error::Code { id, level, found: code[level], n_codewords }));
                }
                let Some(name) = name(i) else { continue };
                let owners = [live.id_of(name), Some(*taken.entry(name).or_insert(id))];
                if let Some(other) = owners.into_iter().flatten().find(|&owner| owner != id) {
                    return Err(raise(Error::NameTaken { name: name.to_owned(), id: other }));
                }
            }
            for (i, (id, code)) in rows() {
                match name(i) {
                    Some(name) => live.upsert_named(id, code, name),
                    None => live.upsert(id, code),
                }
                .map_err(raise_live)?;
            }
            Ok(())
        })
    }

    /// Deletes the item with an id, or the items with ids, whole numbers [n]. If an id is unknown,
    /// that is a KeyError, and nothing is changed.
    fn delete(&self, ids: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut given = match ids.extract::<u64>() {
            Ok(id) => vec![id],
            Err(_) => self::ids(ids)?,
        };
        given.sort_unstable();
        given.dedup();
        self.with(ids.py(), |Open { live, .. }| {
            if let Some(&id) = given.iter().find(|&&id| !live.contains(id)) {
                return Err(raise_live(Error::UnknownId { id }));
            }
            given.iter().try_for_each(|&id| live.delete(id)).map_err(raise_live)
        })
    }

    /// Makes all changes durable at once, and returns the number of the commit. Without changes it
    /// does nothing. If it fails, changes stay in memory, and another commit may succeed.
    fn commit(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, |Open { live, snapshot }| {
            *snapshot = None;
            live.commit().map_err(raise_live)
        })
    }

    /// Drops all changes since the last commit.
    fn rollback(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, |Open { live, .. }| {
            live.rollback();
            Ok(())
        })
    }

    /// Runs one merge of segments, which makes searches faster, if there is one to make, and
    /// returns whether it did. The next commit makes it durable. Call it after commits.
    /// Calls in other threads wait meanwhile.
    fn merge(&self, py: Python<'_>) -> PyResult<bool> {
        self.with(py, |Open { live, .. }| live.merge_step().map_err(raise_live))
    }

    /// Merges everything into one segment without deleted items, and commits. Calls in other
    /// threads wait meanwhile.
    fn compact(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, |Open { live, snapshot }| {
            *snapshot = None;
            live.compact().map_err(raise_live)
        })
    }

    /// Returns the last commit, which never changes. It stays usable after close.
    fn snapshot(&self, py: Python<'_>) -> PyResult<Index> {
        let snapshot = self.with(py, |Open { live, snapshot }| match snapshot {
            Some(snapshot) => Ok(snapshot.clone()),
            None => Ok(snapshot.insert(live.snapshot().map_err(raise_live)?).clone()),
        })?;
        Ok(Index { inner: Opened::Live(snapshot), path: Some(self.path.clone()) })
    }

    /// Searches the last commit, as Index.search. A filter is one of snapshot().
    #[pyo3(signature = (queries, k, bits = None, *, shortlist = None, exact = false, filter = None, threads = None))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn search<'py>(
        &self,
        queries: &Bound<'py, PyAny>,
        k: usize,
        bits: Option<usize>,
        shortlist: Option<(usize, usize)>,
        exact: bool,
        filter: Option<&Filter>,
        threads: Option<usize>,
    ) -> PyResult<(Array<'py, f32>, Array<'py, i64>)> {
        self.snapshot(queries.py())?.search(queries, k, bits, shortlist, exact, filter, threads)
    }

    /// Ends the lock of the writer. Changes since the last commit are lost.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.lock().take());
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        exception: Option<&Bound<'_, PyAny>>,
        _value: Option<&Bound<'_, PyAny>>,
        _traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let is_open = py.detach(|| self.lock().is_some());
        let committed = if exception.is_none() && is_open { self.commit(py).map(drop) } else { Ok(()) };
        self.close(py);
        committed
    }

    /// Returns the id of the item with this name, changes included, or None.
    fn id_of(&self, py: Python<'_>, name: &str) -> PyResult<Option<u64>> {
        self.with(py, |Open { live, .. }| Ok(live.id_of(name)))
    }

    fn __contains__(&self, py: Python<'_>, id: u64) -> PyResult<bool> {
        self.with(py, |Open { live, .. }| Ok(live.contains(id)))
    }

    /// The number of items, changes included.
    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        self.with(py, |Open { live, .. }| Ok(live.len()))
    }

    /// The codebooks of all codes.
    #[getter]
    fn codebooks(&self, py: Python<'_>) -> PyResult<Codebooks> {
        self.with(py, |Open { live, .. }| Ok(live.codebooks().clone().into()))
    }

    /// The metric, "ip" or "l2".
    #[getter]
    fn metric(&self, py: Python<'_>) -> PyResult<String> {
        self.with(py, |Open { live, .. }| Ok(live.metric().to_string()))
    }

    /// At least the largest id of all items; ids of deleted items may or may not count. None if
    /// there never were items.
    #[getter]
    fn max_id(&self, py: Python<'_>) -> PyResult<Option<u64>> {
        self.with(py, |Open { live, .. }| Ok(live.max_id()))
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let path = self.path.display();
        match self.__len__(py) {
            Ok(n) => format!("<pydpq.LiveIndex of {n} items in {path}>"),
            Err(_) => format!("<pydpq.LiveIndex in {path}, closed>"),
        }
    }
}

impl LiveIndex {
    fn new(live: dpq_live::LiveIndex, path: PathBuf) -> PyResult<Self> {
        let path = std::path::absolute(path)?;
        Ok(Self { inner: Mutex::new(Some(Open { live, snapshot: None })), path })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on the index while other Python threads run. One call at a time does.
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut Open) -> PyResult<T> + Send,
    ) -> PyResult<T> {
        py.detach(|| match &mut *self.lock() {
            Some(open) => work(open),
            None => Err(PyValueError::new_err("the live index is closed, open it again")),
        })
    }
}
