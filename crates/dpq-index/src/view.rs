//! The sections of an open index, and access to them that stays inside them whatever their bytes
//! say.
//!
//! Opening finds the sections and checks their sizes. Only [`Index::verify`](crate::Index::verify)
//! reads every byte, so access here clamps: damaged bytes can give wrong hits, but nothing worse.

use std::ops::Range;

use dpq_file::{Container, Dtype, Section};

use crate::Error;
use crate::layout::{Layout, Metric, cross_name, plane_name};
use crate::norms::{Norms, Quantizer};

/// Where the sections lie in the file.
pub(crate) struct Sections {
    cells: Numbers,
    planes: Vec<Range<usize>>,
    starts: Option<Numbers>,
    ids: Numbers,
    id_min: Numbers,
    sample: Range<usize>,
    gram: Option<Range<usize>>,
    cross: Vec<(Range<usize>, Quantizer)>,
    /// Where each row starts, then the number of positions.
    rows: Vec<usize>,
}

/// A section of whole numbers, eight bytes each if `wide`, else four.
struct Numbers {
    range: Range<usize>,
    wide: bool,
}

impl Sections {
    /// Finds the sections of a container that has all those of `layout`.
    pub(crate) fn find(container: &Container, layout: &Layout, cross: Vec<Quantizer>) -> Result<Self, Error> {
        let range = |section: Section| {
            let start = section.bytes.as_ptr().addr() - container.bytes().as_ptr().addr();
            start..start + section.bytes.len()
        };
        let bytes = |name: &str| Ok::<_, Error>(range(container.section(name)?));
        let numbers = |name: &str| {
            let section = container.section(name)?;
            Ok::<_, Error>(Numbers { range: range(section), wide: section.dtype == Dtype::U64 })
        };
        let cells = numbers("cells")?;
        let rows = rows(layout, cells.of(container.bytes()));
        let cross = layout.cross_lengths().zip(cross);
        Ok(Self {
            rows,
            cells,
            planes: (1..layout.n_levels).map(|level| bytes(&plane_name(level))).collect::<Result<_, _>>()?,
            starts: layout.has_starts().then(|| numbers("starts")).transpose()?,
            ids: numbers("ids")?,
            id_min: numbers("id_min")?,
            sample: bytes("sample")?,
            gram: (layout.metric == Metric::Euclidean).then(|| bytes("gram")).transpose()?,
            cross: cross
                .map(|(n, cross)| Ok((bytes(&cross_name(n))?, cross)))
                .collect::<Result<_, Error>>()?,
        })
    }
}

impl Numbers {
    fn of<'a>(&self, file: &'a [u8]) -> Integers<'a> {
        let bytes = &file[self.range.clone()];
        if self.wide { Integers::U64(bytes.as_chunks().0) } else { Integers::U32(bytes.as_chunks().0) }
    }
}

/// The sections of an open file.
pub(crate) struct View<'a> {
    pub(crate) layout: Layout,
    rows: &'a [usize],
    pub(crate) cells: Integers<'a>,
    /// The bytes of levels 1, 2, …, one per position.
    pub(crate) planes: Vec<&'a [u8]>,
    pub(crate) starts: Option<Integers<'a>>,
    pub(crate) ids: Integers<'a>,
    pub(crate) id_min: Integers<'a>,
    /// The codes at some positions, row by row.
    pub(crate) sample: &'a [u8],
    /// The cross terms at each length of 3 levels or more, as bytes, and their quantizers.
    /// Euclidean only.
    pub(crate) cross: Vec<(&'a [u8], Quantizer)>,
    pub(crate) norms: Option<Norms<'a>>,
}

impl<'a> View<'a> {
    /// Returns a view of the `sections` of `file`; `own_norms` are those of the codewords,
    /// `[L, K]`.
    pub(crate) fn new(file: &'a [u8], layout: Layout, sections: &'a Sections, own_norms: &'a [f32]) -> Self {
        let bytes = |range: &Range<usize>| &file[range.clone()];
        Self {
            layout,
            rows: &sections.rows,
            cells: sections.cells.of(file),
            planes: sections.planes.iter().map(bytes).collect(),
            starts: sections.starts.as_ref().map(|starts| starts.of(file)),
            ids: sections.ids.of(file),
            id_min: sections.id_min.of(file),
            sample: bytes(&sections.sample),
            cross: sections.cross.iter().map(|(range, quantizer)| (bytes(range), *quantizer)).collect(),
            norms: sections.gram.as_ref().map(|gram| {
                let (gram, _) = bytes(gram).as_chunks();
                Norms { own: own_norms, gram, n_codewords: layout.n_codewords }
            }),
        }
    }

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

    /// Returns the positions from `from` on of the codes that begin with `first` and `second`, for
    /// two levels or more.
    ///
    /// If `from` is the end of the cell before, cells are disjoint even in a damaged directory.
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

    /// Returns the items at `positions`, at most `n_left` of them, and subtracts their number from
    /// `n_left`.
    ///
    /// Each position comes once, but in a damaged file many positions may have the same items.
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

/// Returns where each row starts, then where the last one ends: ascending numbers, whatever the
/// directory says.
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
    /// Returns number `i`.
    #[inline]
    pub(crate) fn get(&self, i: usize) -> u64 {
        match self {
            Self::U32(values) => u64::from(u32::from_le_bytes(values[i])),
            Self::U64(values) => u64::from_le_bytes(values[i]),
        }
    }

    /// Returns how many numbers satisfy `before`, where those that do come first.
    fn partition_point(&self, before: impl Fn(u64) -> bool) -> usize {
        match self {
            Self::U32(values) => values.partition_point(|&value| before(u32::from_le_bytes(value).into())),
            Self::U64(values) => values.partition_point(|&value| before(u64::from_le_bytes(value))),
        }
    }

    /// Calls `f` with each number of `range` that is at most `bound`.
    #[inline]
    pub(crate) fn each_at_most(&self, bound: u64, range: Range<usize>, f: impl FnMut(u64)) {
        let fits = |&number: &u64| number <= bound;
        let (narrow, wide) =
            (|&bytes: &_| u32::from_le_bytes(bytes).into(), |&bytes: &_| u64::from_le_bytes(bytes));
        match self {
            Self::U32(values) => values[range].iter().map(narrow).filter(fits).for_each(f),
            Self::U64(values) => values[range].iter().map(wide).filter(fits).for_each(f),
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
