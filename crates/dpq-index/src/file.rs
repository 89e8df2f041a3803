//! An open index file: what is checked when it is opened, and safe access to what lies inside.
//!
//! Opening checks everything that decides where things lie. What only reading every byte could tell (order, the directory,
//! ids) is left to [`Index::verify`], so access here clamps: damaged bytes can give wrong hits, nothing worse.

use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

use dpq_codebook::{CodeLength, Codebooks, LookupTable};
use dpq_file::{Container, Dtype, Section};

use crate::Error;
use crate::layout::{FORMAT, Kind, Layout, Metric, VERSION, cross_name, plane_name};
use crate::norms::{Norms, Quantizer};
use crate::sort::rows_by_id;

/// An index: sorted codes, searched exactly at any length.
///
/// Made by [`build`](crate::build). It can be shared between threads.
pub struct Index {
    pub(crate) container: Container,
    pub(crate) layout: Layout,
    pub(crate) codebooks: Codebooks,
    /// Where each row starts, and the last one ends.
    rows: Vec<usize>,
    /// Squared norms of the codewords, `[L, K]`; empty unless the metric is Euclidean.
    own_norms: Vec<f32>,
    /// One for each length with a cross section.
    pub(crate) cross: Vec<Quantizer>,
    by_id: OnceLock<Vec<u32>>,
}

impl Index {
    /// Reads the index at `path` into memory.
    ///
    /// [`map`](Self::map) opens a large index in less time and memory, and asks for a promise.
    ///
    /// # Errors
    /// [`Error::File`] if there is no whole container, [`Error::Format`] if it is not an index of version 1,
    /// [`Error::Codebook`] and [`Error::Section`] if its parts contradict each other.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::from_container(Container::open(path)?)
    }

    /// Memory-maps the index at `path`, in time independent of the number of items.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    ///
    /// # Safety
    /// Until the index is dropped, nobody may change or truncate the file, in this process or another one. Replacing or
    /// deleting it is allowed: [`build`](crate::build) renames a new file over an old one.
    #[expect(unsafe_code, reason = "a mapping is only as constant as its file")]
    pub unsafe fn map(path: impl AsRef<Path>) -> Result<Self, Error> {
        // SAFETY: the caller promises what `Container::map` asks for.
        Self::from_container(unsafe { Container::map(path) }?)
    }

    /// Opens an index that lies in memory.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, Error> {
        Self::from_container(Container::from_bytes(bytes)?)
    }

    /// Returns the number of items.
    pub fn len(&self) -> usize {
        self.layout.n_items
    }

    /// Tells whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns what the index ranks by.
    pub fn metric(&self) -> Metric {
        self.layout.metric
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

    /// Returns the lookup table of a query `[D]`: its inner products with all codewords, for searches at any length.
    ///
    /// # Errors
    /// [`Error::Codebook`] if the query has another dimension, or values that are not finite.
    pub fn lookup_table(&self, query: &[f32]) -> Result<LookupTable, Error> {
        self.lookup_table_at(query, self.max_length())
    }

    /// Returns the levels of the lookup table that searches up to `length` use, in as much less time.
    ///
    /// # Errors
    /// As [`lookup_table`](Self::lookup_table), and [`Error::Search`] for a length above that of the codes.
    pub fn lookup_table_at(&self, query: &[f32], length: CodeLength) -> Result<LookupTable, Error> {
        self.check_length(length)?;
        Ok(self.codebooks.lookup_table_at(query, length)?)
    }

    fn from_container(container: Container) -> Result<Self, Error> {
        let format_error = |reason: String| Error::Format { path: container.path().to_owned(), reason };
        match container.metadata("format").unwrap_or("safetensors") {
            FORMAT => {}
            other => {
                return Err(format_error(format!(
                    "is a {other} file, expected a {FORMAT} file: build an index from codes and a codebook first"
                )));
            }
        }
        match container.metadata("version")? {
            VERSION => {}
            newer if newer.parse::<u64>().is_ok_and(|version| version > 1) => {
                return Err(format_error(format!(
                    "is an index of version {newer}, this program reads version {VERSION}: use a newer one"
                )));
            }
            other => {
                return Err(format_error(format!(
                    "has version {other:?}, expected {VERSION:?}: build it again"
                )));
            }
        }
        let count = |key: &str| -> Result<usize, Error> {
            let found = container.metadata(key)?;
            // Only what a number prints as is taken, so that no two files mean the same.
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
        let (found, claimed) = (codebooks.fingerprint(), container.metadata("fingerprint")?);
        if found != claimed {
            return Err(format_error(format!(
                "has the codebook {found} inside but was built with {claimed}: build it again"
            )));
        }
        let layout = Layout::new(metric, &codebooks, n_items, n_distinct);
        check_sections(&container, &layout)?;
        let float = |key: String| -> Result<f32, Error> {
            let found = container.metadata(&key)?;
            let value = found.parse::<f32>().ok().filter(|x| x.is_finite() && x.to_string() == found);
            value.ok_or_else(|| format_error(format!("has {found:?} as {key}, expected a finite number")))
        };
        let cross = layout
            .cross_lengths()
            .map(|n| {
                Ok(Quantizer {
                    min: float(format!("cross.{n}.min"))?,
                    step: float(format!("cross.{n}.step"))?,
                })
            })
            .collect::<Result<_, Error>>()?;
        let own_norms = if metric == Metric::Euclidean { codebooks.squared_norms() } else { Vec::new() };
        let rows = rows(&layout, Integers::new(container.section("cells")?));
        Ok(Self { container, layout, codebooks, rows, own_norms, cross, by_id: OnceLock::new() })
    }

    /// Returns access to the sections.
    pub(crate) fn view(&self) -> View<'_> {
        let section = |name: &str| self.container.section(name).expect("sections were checked when opened");
        let layout = self.layout;
        View {
            layout,
            rows: &self.rows,
            cells: Integers::new(section("cells")),
            planes: (1..layout.n_levels).map(|level| section(&plane_name(level)).bytes).collect(),
            starts: layout.has_starts().then(|| Integers::new(section("starts"))),
            ids: Integers::new(section("ids")),
            id_min: Integers::new(section("id_min")),
            sample: section("sample").bytes,
            cross: layout
                .cross_lengths()
                .zip(&self.cross)
                .map(|(n, &quantizer)| (section(&cross_name(n)).bytes, quantizer))
                .collect(),
            norms: (layout.metric == Metric::Euclidean).then(|| {
                let (gram, _) = section("gram").bytes.as_chunks();
                Norms::new(&self.own_norms, gram, layout.n_codewords)
            }),
        }
    }

    /// Returns all items, fewer than 2³², by ascending id. Made when first asked for, as no search of few items needs it.
    pub(crate) fn by_id(&self) -> &[u32] {
        self.by_id.get_or_init(|| {
            let ids = self.view().ids;
            rows_by_id(ids.len(), |item| ids.get(item))
        })
    }

    pub(crate) fn section_error(&self, section: &str, reason: String) -> Error {
        section_error(&self.container, section, reason)
    }

    /// Returns the bytes of a section that the layout has.
    pub(crate) fn bytes(&self, name: &str) -> &[u8] {
        self.container.section(name).expect("sections were checked when opened").bytes
    }
}

/// Checks that the file has the sections of `layout` and no others, each with its type, shape and checksum.
fn check_sections(container: &Container, layout: &Layout) -> Result<(), Error> {
    let expected = layout.sections();
    for (section, kind, shape) in &expected {
        let found = container.section(section)?;
        let right = match kind {
            Kind::Bytes => found.dtype == Dtype::U8,
            Kind::Floats => found.dtype == Dtype::F32,
            Kind::Integers => matches!(found.dtype, Dtype::U32 | Dtype::U64),
        };
        if !right || found.shape != shape {
            let reason = format!(
                "has {:?} of shape {:?}, expected {kind:?} of shape {shape:?}",
                found.dtype, found.shape
            );
            return Err(section_error(container, section, reason));
        }
        container.metadata(&format!("crc.{section}"))?;
    }
    match container.names().find(|found| expected.iter().all(|(name, ..)| name != found)) {
        Some(extra) => Err(section_error(container, extra, "does not belong into this index".to_owned())),
        None => Ok(()),
    }
}

fn section_error(container: &Container, section: &str, reason: String) -> Error {
    Error::Section { path: container.path().to_owned(), section: section.to_owned(), reason }
}

/// The sections of an index, and access to them that stays inside whatever the bytes say.
pub(crate) struct View<'a> {
    pub(crate) layout: Layout,
    rows: &'a [usize],
    pub(crate) cells: Integers<'a>,
    /// Levels 1, 2, ….
    pub(crate) planes: Vec<&'a [u8]>,
    pub(crate) starts: Option<Integers<'a>>,
    pub(crate) ids: Integers<'a>,
    pub(crate) id_min: Integers<'a>,
    /// The codes at some positions, row by row.
    pub(crate) sample: &'a [u8],
    /// For each length of 3 levels or more: the cross terms and what they stand for. Euclidean only.
    pub(crate) cross: Vec<(&'a [u8], Quantizer)>,
    pub(crate) norms: Option<Norms<'a>>,
}

impl View<'_> {
    /// Returns the positions of the codes that begin with `first`.
    pub(crate) fn row(&self, first: u8) -> Range<usize> {
        self.rows[usize::from(first)]..self.rows[usize::from(first) + 1]
    }

    /// Returns the first byte of the code at `position`, and the positions of its row.
    pub(crate) fn row_of(&self, position: usize) -> (u8, Range<usize>) {
        let first = (self.rows.partition_point(|&start| start <= position) - 1).min(255) as u8;
        (first, self.row(first))
    }

    /// Returns the position of the code of `item`.
    pub(crate) fn position_of(&self, item: usize) -> usize {
        self.starts.map_or(item, |starts| {
            starts.partition_point(|start| start <= item as u64).clamp(1, self.layout.n_positions()) - 1
        })
    }

    /// Yields the first byte and the positions of each row, ascending and disjoint.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (u8, Range<usize>)> {
        (0..=255).map(|first| (first, self.row(first)))
    }

    /// Returns the positions of the codes that begin with `first` and `second`, for two levels or more, without what lies
    /// before `from`: with the end of the last cell for `from`, the cells of a damaged directory are disjoint too.
    pub(crate) fn cell(&self, first: u8, second: u8, from: usize) -> Range<usize> {
        let (cell, row) = (usize::from(first) << 8 | usize::from(second), self.row(first));
        let inside = |entry: usize| self.cells.get(entry).min(row.end as u64) as usize;
        let start = inside(cell).max(from);
        start..inside(cell + 1).max(start)
    }

    /// Yields all positions with the first byte of their codes.
    pub(crate) fn positions(&self) -> impl Iterator<Item = (u8, usize)> {
        self.rows().flat_map(|(first, row)| row.map(move |position| (first, position)))
    }

    /// Returns the byte of a level of the code at `position`, which begins with `first`.
    pub(crate) fn code(&self, first: u8, position: usize, level: usize) -> u8 {
        if level == 0 { first } else { self.planes[level - 1][position] }
    }

    /// Returns the items at `positions`, at most `n_left`, from which their number is taken: positions come once each, but in
    /// a damaged file items may belong to many of them.
    #[inline]
    pub(crate) fn items(&self, positions: Range<usize>, n_left: &mut usize) -> Range<usize> {
        let Some(starts) = &self.starts else { return positions };
        let n_items = self.layout.n_items as u64;
        let start = starts.get(positions.start).min(n_items) as usize;
        let end = (starts.get(positions.end).min(n_items) as usize).clamp(start, start + *n_left);
        *n_left -= end - start;
        start..end
    }
}

/// Returns where each row starts and the last one ends, ascending whatever the directory says.
fn rows(layout: &Layout, cells: Integers) -> Vec<usize> {
    let mut last = 0;
    let starts = (0..=layout.n_cells()).step_by(layout.n_cells() / 256);
    let mut rows: Vec<usize> = starts
        .map(|cell| {
            last = cells.get(cell).clamp(last, layout.n_positions() as u64);
            last as usize
        })
        .collect();
    rows[0] = 0;
    rows
}

/// A section of whole numbers, four or eight bytes each.
#[derive(Clone, Copy)]
pub(crate) enum Integers<'a> {
    U32(&'a [[u8; 4]]),
    U64(&'a [[u8; 8]]),
}

impl<'a> Integers<'a> {
    fn new(section: Section<'a>) -> Self {
        match section.dtype {
            Dtype::U32 => Self::U32(section.bytes.as_chunks().0),
            _ => Self::U64(section.bytes.as_chunks().0),
        }
    }

    /// Returns number `i`.
    #[inline]
    pub(crate) fn get(&self, i: usize) -> u64 {
        match self {
            Self::U32(values) => u64::from(u32::from_le_bytes(values[i])),
            Self::U64(values) => u64::from_le_bytes(values[i]),
        }
    }

    /// Returns how many numbers come before the first that is not `before`, where all that are come first.
    fn partition_point(&self, before: impl Fn(u64) -> bool) -> usize {
        match self {
            Self::U32(values) => values.partition_point(|&value| before(u32::from_le_bytes(value).into())),
            Self::U64(values) => values.partition_point(|&value| before(u64::from_le_bytes(value))),
        }
    }

    /// Calls `f` with each number of `range` that is at most `bound`.
    #[inline]
    pub(crate) fn each_at_most(&self, bound: u64, range: Range<usize>, f: impl FnMut(u64)) {
        match self {
            Self::U32(values) => values[range]
                .iter()
                .map(|&value| u64::from(u32::from_le_bytes(value)))
                .filter(|&id| id <= bound)
                .for_each(f),
            Self::U64(values) => values[range]
                .iter()
                .map(|&value| u64::from_le_bytes(value))
                .filter(|&id| id <= bound)
                .for_each(f),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::U32(values) => values.len(),
            Self::U64(values) => values.len(),
        }
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = u64> + use<'a> {
        (0..self.len()).map(move |i| self.get(i))
    }
}
