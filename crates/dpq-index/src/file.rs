//! An open index. Opening checks everything that decides where the sections lie and how large they
//! are.

use std::fmt::{Debug, Formatter};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use dpq_codebook::{CodeLength, Codebooks, Form, LookupTable, RoundedCodebooks};
use dpq_file::{Container, Section};

use crate::Error;
use crate::layout::{FORMAT, Layout, Metric};
use crate::norms::{Norms, OwnedPlane, Pairs, Source, of_pairs, of_rows};
use crate::refine::MIN_APPROXIMATE;
use crate::sort::rows_by_id;
use crate::view::{Sections, View};

/// Codewords are rounded only for tables of at least this many values of codewords: to compute a
/// smaller table takes less time than a second look at codes.
const MIN_ROUNDED: usize = 1 << 19;

/// Rounding all codewords takes about as long as this many lookup tables.
const MIN_QUERIES: usize = 16;

/// An index of codes, searched exactly at any of their lengths.
///
/// [`builder`](Self::builder) makes one from codes; [`open`](Self::open) and [`map`](Self::map)
/// open a file. Threads can share an index.
pub struct Index {
    pub(crate) container: Container,
    pub(crate) layout: Layout,
    pub(crate) codebooks: Codebooks,
    /// ‖c‖² of product codebooks, [L, K]; empty unless the metric is Euclidean and codes are
    /// products.
    pub(crate) codeword_norms: Vec<f32>,
    pub(crate) sections: Sections,
    /// The unit of norms, and those of rows and of pairs, once a search has asked for them.
    row_norms: OnceLock<(f64, Vec<u32>)>,
    pair_norms: OnceLock<Vec<Pairs>>,
    /// Norms by length in levels, where the file has none and a search has asked for them.
    planes: Vec<OnceLock<OwnedPlane>>,
    by_id: OnceLock<Vec<u32>>,
    rounded: OnceLock<RoundedCodebooks>,
    /// The queries that codewords rounded to 8 bits would have served.
    n_queries: AtomicUsize,
    /// Shared with the filters of this index, and with no other index.
    pub(crate) identity: Arc<()>,
}

impl Debug for Index {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index")
            .field("path", &self.container.path())
            .field("layout", &self.layout)
            .finish_non_exhaustive()
    }
}

impl Index {
    /// Reads the index at `path` into memory.
    ///
    /// [`map`](Self::map) takes less time and memory to open a large index, and asks for a promise.
    ///
    /// # Errors
    /// [`Error::File`] if the container is not whole, [`Error::Format`] if it is not an index of
    /// version 1 to 3, [`Error::Codebook`] and [`Error::Section`] if its parts contradict each
    /// other.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::from_container(Container::open(path)?)
    }

    /// Memory-maps the index at `path`, in time independent of the number of items.
    ///
    /// # Safety
    /// Until the index is dropped, nobody may change or truncate the file, in this process or
    /// another one. Replacing or deleting it is allowed:
    /// [`IndexBuilder::write`](crate::IndexBuilder::write) renames a new file over an old one.
    #[expect(unsafe_code, reason = "a mapping is only as constant as its file")]
    pub unsafe fn map(path: impl AsRef<Path>) -> Result<Self, Error> {
        // SAFETY: the caller promises what `Container::map` asks for.
        Self::from_container(unsafe { Container::map(path) }?)
    }

    /// Opens an index from the bytes of its file.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, Error> {
        Self::from_container(Container::from_bytes(bytes)?)
    }

    /// Returns the number of items, N.
    pub fn len(&self) -> usize {
        self.layout.n_items
    }

    /// Returns true if the index has no items.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the size of the index file in bytes.
    pub fn n_bytes(&self) -> usize {
        self.container.bytes().len()
    }

    /// Returns the metric that the index ranks by.
    pub fn metric(&self) -> Metric {
        self.layout.metric
    }

    /// Returns the version of the file format, 1 to 3.
    pub fn version(&self) -> u8 {
        self.layout.version
    }

    /// Returns true if [`builder`](Self::builder) writes this version. Euclidean indexes of version
    /// 1 are not current.
    pub fn is_current(&self) -> bool {
        self.version() == Layout::current_version(self.metric(), self.codebooks.form())
    }

    /// Returns the lengths above 16 bits that the file has norms for, ascending; none unless the
    /// metric is Euclidean.
    pub fn norm_lengths(&self) -> &[CodeLength] {
        &self.layout.norm_lengths
    }

    /// Returns the number of distinct codes at the greatest length.
    pub fn n_distinct(&self) -> usize {
        self.layout.n_distinct
    }

    /// Returns the codebooks that made the codes.
    pub fn codebooks(&self) -> &Codebooks {
        &self.codebooks
    }

    /// Returns the greatest length that can be searched.
    pub fn max_length(&self) -> CodeLength {
        self.codebooks.max_length()
    }

    /// Returns the fingerprint of the codebooks, eight hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        self.codebooks.fingerprint()
    }

    /// Returns the lookup table of a query `[D]`, f32 `[L, K]`: its inner products with all
    /// codewords.
    ///
    /// # Errors
    /// [`Error::Codebook`] if the query has another dimension, or values that are not finite.
    pub fn lookup_table(&self, query: &[f32]) -> Result<LookupTable, Error> {
        self.lookup_table_at(query, self.max_length())
    }

    /// Returns only the levels of the lookup table that searches up to `length` use. Fewer levels
    /// take less time.
    ///
    /// # Errors
    /// As [`lookup_table`](Self::lookup_table), and [`Error::Codebook`] for a length above that of
    /// the codes.
    pub fn lookup_table_at(&self, query: &[f32], length: CodeLength) -> Result<LookupTable, Error> {
        self.check_length(length)?;
        Ok(self.codebooks.lookup_table_at(query, length)?)
    }

    fn from_container(container: Container) -> Result<Self, Error> {
        let format_error = |reason: String| Error::Format { path: container.path().to_owned(), reason };
        let format = container.metadata("format").unwrap_or("safetensors");
        if format != FORMAT {
            return Err(format_error(format!(
                "is a {format} file, expected a {FORMAT} file: build an index from codes and a codebook first"
            )));
        }
        let version = container.metadata("version")?;
        let ("1" | "2" | "3") = version else {
            return Err(format_error(format!(
                "has version {version:?}, this program reads versions \"1\", \"2\" and \"3\": build it again, or use a newer program"
            )));
        };
        let count = |key: &str| -> Result<usize, Error> {
            let found = container.metadata(key)?;
            // Numbers must be written as Rust prints them, so that no two files mean the same.
            found.parse::<usize>().ok().filter(|count| count.to_string() == found).ok_or_else(|| {
                format_error(format!("has {found:?} as its number of {key}, expected a decimal number"))
            })
        };
        let metric = container.metadata("metric")?.parse::<Metric>()?;
        let (n_items, n_distinct) = (count("items")?, count("distinct")?);
        if n_distinct > n_items || (n_distinct == 0) != (n_items == 0) {
            return Err(format_error(format!(
                "claims {n_distinct} distinct codes among {n_items} items, which cannot be: build it again"
            )));
        }

        let codebooks = Codebooks::from_container(&container)?;
        container.metadata("fingerprint")?;
        let mut layout = Layout::new(metric, &codebooks, n_items, n_distinct, &[]);
        if version == "1" && codebooks.form() == Form::Progressive {
            layout.version = 1;
        } else if version != layout.version.to_string() {
            let ranks = if metric == Metric::Euclidean { "Euclidean distance" } else { "inner product" };
            return Err(format_error(format!(
                "has version {version} and ranks by {ranks} of {} codebooks, expected version {}",
                codebooks.form(),
                layout.version
            )));
        } else if layout.version == 2 {
            let found = container.metadata("norms")?;
            let lengths: Option<Vec<CodeLength>> = found
                .split_whitespace()
                .map(|length| length.parse().ok().and_then(|levels| CodeLength::from_levels(levels).ok()))
                .collect();
            layout = Layout::new(metric, &codebooks, n_items, n_distinct, &lengths.unwrap_or_default());
            let expected = layout.metadata(&codebooks).remove("norms");
            let fits = |length: &CodeLength| *length <= codebooks.max_length();
            if expected.as_deref() != Some(found) || !layout.norm_lengths.iter().all(fits) {
                return Err(format_error(format!(
                    "has norms at {found:?}, expected ascending numbers of levels from 3 to {}",
                    codebooks.n_levels()
                )));
            }
        }
        let codeword_norms = if layout.version == 3 && metric == Metric::Euclidean {
            codebooks.codeword_norms()?
        } else {
            Vec::new()
        };
        check_sections(&container, &layout)?;
        let sections = Sections::find(&container, &layout)?;
        let planes = (0..=layout.n_levels).map(|_| OnceLock::new()).collect();
        let (by_id, identity) = (OnceLock::new(), Arc::new(()));
        let (row_norms, pair_norms, rounded, n_queries) = Default::default();
        Ok(Self {
            container,
            layout,
            codebooks,
            codeword_norms,
            sections,
            row_norms,
            pair_norms,
            planes,
            by_id,
            rounded,
            n_queries,
            identity,
        })
    }

    /// Returns access to the sections.
    pub(crate) fn view(&self) -> View<'_> {
        View::new(self.container.bytes(), &self.layout, &self.sections)
    }

    /// Returns the norms of the codes at `n_levels` levels, or none unless the metric is Euclidean
    /// and codes are progressive. Norms that the file lacks are computed once.
    pub(crate) fn norms(&self, n_levels: usize) -> Result<Option<Norms<'_>>, Error> {
        if self.metric() != Metric::Euclidean || self.codebooks.form() == Form::Product {
            return Ok(None);
        }
        let file = self.container.bytes();
        let (unit, rows) = computed(&self.row_norms, || {
            let unit = self.codebooks.norm_unit();
            Ok((unit, of_rows(&self.codebooks, unit)?))
        })?;
        let pairs = computed(&self.pair_norms, || match self.sections.pairs(file) {
            None => of_pairs(&self.codebooks, *unit, self.layout.n_pairs()),
            Some(norms) => {
                let n_codewords = self.layout.n_codewords;
                let pairs = |norms: &[[u8; 4]]| {
                    Pairs::new(n_codewords, norms.iter().map(|&norm| u32::from_le_bytes(norm)).collect())
                };
                Ok(norms.chunks(n_codewords * n_codewords).map(pairs).collect())
            }
        })?;
        let positions = match self.sections.norms(file, n_levels) {
            _ if n_levels < 3 => None,
            Some(plane) => Some(plane),
            None => {
                let length = CodeLength::from_levels(n_levels)?;
                let compute = || Ok(self.compute_planes(*unit, rows, pairs, &[length])?.remove(0));
                Some(computed(&self.planes[n_levels], compute)?.as_plane())
            }
        };
        Ok(Some(Norms { unit: *unit, rows, pairs, positions }))
    }

    pub(crate) fn compute_planes(
        &self,
        unit: f64,
        rows: &[u32],
        pairs: &[Pairs],
        lengths: &[CodeLength],
    ) -> Result<Vec<OwnedPlane>, Error> {
        let (view, with_cells) = (self.view(), self.layout.has_model());
        let pairs = if with_cells { pairs } else { &[] };
        let source =
            Source { codebooks: &self.codebooks, unit, rows, pairs, cells: &view.cell_starts(), with_cells };
        source.planes(|position, code| view.known_code(position, code), lengths)
    }

    /// Returns all items, fewer than 2³², by ascending id. The first whole ranking sorts them, and
    /// the index keeps them.
    pub(crate) fn by_id(&self) -> &[u32] {
        self.by_id.get_or_init(|| {
            let ids = self.view().ids;
            rows_by_id(ids.len(), |item| ids.get(item))
        })
    }

    /// Returns true if the codes of the best `k` items have few of the codewords.
    pub(crate) fn needs_few_entries(&self, k: usize) -> bool {
        k <= self.codebooks.n_codewords() / 4
    }

    /// Returns the codewords rounded to 8 bits if searches for the best `k` at `length` take less
    /// time with them: those of `n_queries` queries now, and of all before. The index keeps them.
    pub(crate) fn rounded(
        &self,
        k: usize,
        length: CodeLength,
        n_queries: usize,
    ) -> Result<Option<&RoundedCodebooks>, Error> {
        // Product codebooks are not rounded: their tables take little time.
        let is_nested = self.codebooks.form() == Form::Progressive;
        let size = length.levels() * self.codebooks.n_codewords() * self.codebooks.dim();
        let pays = is_nested
            && length.levels() >= MIN_APPROXIMATE
            && self.needs_few_entries(k)
            && size >= MIN_ROUNDED;
        let pays = pays && self.n_queries.fetch_add(n_queries, Ordering::Relaxed) + n_queries >= MIN_QUERIES;
        pays.then(|| computed(&self.rounded, || Ok(RoundedCodebooks::new(&self.codebooks)?))).transpose()
    }

    /// Refuses a section that contradicts the metadata or another section.
    pub(crate) fn damaged<T>(&self, section: &str, reason: impl Into<String>) -> Result<T, Error> {
        damaged(&self.container, section, reason)
    }
}

/// Returns the value of a cell, which `compute` makes first if it is empty. Two threads may both
/// compute it: one that waited inside a rayon pool could wait for itself.
fn computed<T>(cell: &OnceLock<T>, compute: impl FnOnce() -> Result<T, Error>) -> Result<&T, Error> {
    match cell.get() {
        Some(value) => Ok(value),
        None => {
            let value = compute()?;
            Ok(cell.get_or_init(|| value))
        }
    }
}

/// Checks that the file has exactly the sections of `layout`, each with its type, shape and
/// checksum.
fn check_sections(container: &Container, layout: &Layout) -> Result<(), Error> {
    let expected = layout.sections();
    for (section, dtypes, shape) in &expected {
        let Section { dtype, shape: found, .. } = container.section(section)?;
        if !dtypes.contains(&dtype) || found != shape {
            let reason = format!("has {dtype:?} of shape {found:?}, expected {dtypes:?} of shape {shape:?}");
            return damaged(container, section, reason);
        }
        container.metadata(&format!("crc.{section}"))?;
    }
    match container.names().find(|found| expected.iter().all(|(name, ..)| name != found)) {
        Some(extra) => damaged(container, extra, "does not belong in this index"),
        None => Ok(()),
    }
}

fn damaged<T>(container: &Container, section: &str, reason: impl Into<String>) -> Result<T, Error> {
    let (path, section) = (container.path().to_owned(), section.to_owned());
    Err(Error::Section { path, section, reason: reason.into() })
}
