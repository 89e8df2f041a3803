//! The sections of an open index, and access to them that stays inside them whatever their bytes
//! say.
//!
//! Opening finds the sections and checks their sizes. Only [`Index::verify`](crate::Index::verify)
//! reads every byte, so access here clamps: damaged bytes can give wrong hits, but nothing worse.

use std::ops::Range;

use dpq_file::{Container, Dtype, Section};

use crate::Error;
use crate::layout::{Layout, Metric, norms_name, plane_name};
use crate::norms::Plane;

/// Where the sections lie in the file.
pub(crate) struct Sections {
    cells: Numbers,
    planes: Vec<Range<usize>>,
    starts: Option<Numbers>,
    ids: Numbers,
    id_min: Numbers,
    sample: Option<Range<usize>>,
    /// The first byte of each code, where the file has no sample.
    firsts: Vec<u8>,
    pairs: Option<Range<usize>>,
    /// By length, in levels.
    norms: Vec<(usize, NormSections)>,
    /// Where each row starts, then the number of positions.
    rows: Vec<usize>,
}

/// A section of whole numbers.
struct Numbers {
    range: Range<usize>,
    dtype: Dtype,
}

struct NormSections {
    high: Range<usize>,
    low: Range<usize>,
    rows: Range<usize>,
    cells: Option<Range<usize>>,
}

impl Sections {
    /// Finds the sections of a container that has all those of `layout`.
    pub(crate) fn find(container: &Container, layout: &Layout) -> Result<Self, Error> {
        let range = |section: Section| {
            let start = section.bytes.as_ptr().addr() - container.bytes().as_ptr().addr();
            start..start + section.bytes.len()
        };
        let bytes = |name: &str| Ok::<_, Error>(range(container.section(name)?));
        let numbers = |name: &str| {
            let section = container.section(name)?;
            Ok::<_, Error>(Numbers { range: range(section), dtype: section.dtype })
        };
        let cells = numbers("cells")?;
        let rows = rows(layout, cells.of(container.bytes()));
        let has_norms = layout.metric == Metric::Euclidean && layout.version == 2;
        let norms = |length: usize| {
            let cells = layout.has_model().then(|| bytes(&norms_name(length, ".cells"))).transpose()?;
            let part = |part| bytes(&norms_name(length, part));
            let sections =
                NormSections { high: part(".high")?, low: part(".low")?, rows: part(".rows")?, cells };
            Ok::<_, Error>((length, sections))
        };
        let mut firsts = Vec::new();
        if !layout.has_sample() {
            firsts.resize(layout.n_positions(), 0);
            rows.windows(2).zip(0..=255).for_each(|(row, first)| firsts[row[0]..row[1]].fill(first));
        }
        Ok(Self {
            rows,
            firsts,
            cells,
            planes: (1..layout.n_levels).map(|level| bytes(&plane_name(level))).collect::<Result<_, _>>()?,
            starts: layout.has_starts().then(|| numbers("starts")).transpose()?,
            ids: numbers("ids")?,
            id_min: numbers("id_min")?,
            sample: layout.has_sample().then(|| bytes("sample")).transpose()?,
            pairs: (has_norms && layout.n_pairs() > 0).then(|| bytes("norms.pairs")).transpose()?,
            norms: layout
                .norm_lengths
                .iter()
                .map(|length| norms(length.levels()))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Returns the norms of pairs, u32 `[n, K, K]`, if the file has them.
    pub(crate) fn pairs<'a>(&self, file: &'a [u8]) -> Option<&'a [[u8; 4]]> {
        self.pairs.clone().map(|range| file[range].as_chunks().0)
    }

    /// Returns the norms at `n_levels` levels, three or more, if the file has them.
    pub(crate) fn norms<'a>(&self, file: &'a [u8], n_levels: usize) -> Option<Plane<'a>> {
        let (_, sections) = self.norms.iter().find(|(length, _)| *length == n_levels)?;
        let bytes = |range: &Range<usize>| &file[range.clone()];
        Some(Plane {
            high: bytes(&sections.high),
            low: bytes(&sections.low).as_chunks().0,
            rows: bytes(&sections.rows).as_chunks().0.as_chunks().0,
            cells: sections.cells.as_ref().map(bytes),
        })
    }
}

impl Numbers {
    fn of<'a>(&self, file: &'a [u8]) -> Integers<'a> {
        let bytes = &file[self.range.clone()];
        match self.dtype {
            Dtype::U16 => Integers::U16(bytes.as_chunks().0),
            Dtype::U64 => Integers::U64(bytes.as_chunks().0),
            _ => Integers::U32(bytes.as_chunks().0),
        }
    }
}

/// The sections of an open file.
pub(crate) struct View<'a> {
    pub(crate) layout: &'a Layout,
    rows: &'a [usize],
    pub(crate) cells: Integers<'a>,
    /// The bytes of levels 1, 2, …, one per position.
    pub(crate) planes: Vec<&'a [u8]>,
    pub(crate) starts: Option<Integers<'a>>,
    pub(crate) ids: Integers<'a>,
    pub(crate) id_min: Integers<'a>,
    sample: Option<&'a [u8]>,
    firsts: &'a [u8],
}

impl<'a> View<'a> {
    /// Returns a view of the `sections` of `file`.
    pub(crate) fn new(file: &'a [u8], layout: &'a Layout, sections: &'a Sections) -> Self {
        let bytes = |range: &Range<usize>| &file[range.clone()];
        Self {
            layout,
            rows: &sections.rows,
            cells: sections.cells.of(file),
            planes: sections.planes.iter().map(bytes).collect(),
            starts: sections.starts.as_ref().map(|starts| starts.of(file)),
            ids: sections.ids.of(file),
            id_min: sections.id_min.of(file),
            sample: sections.sample.as_ref().map(bytes),
            firsts: &sections.firsts,
        }
    }

    /// Returns the sampled codes: planes of levels 0, 1, …, and the distance between the bytes of
    /// neighbouring codes.
    pub(crate) fn sample(&self) -> (Vec<&'a [u8]>, usize) {
        match self.sample {
            Some(codes) => {
                // The bytes of each level, from its first on.
                let plane = |level| codes.get(level..).unwrap_or(&[]);
                ((0..self.layout.n_levels).map(plane).collect(), self.layout.n_levels)
            }
            None => ([self.firsts].into_iter().chain(self.planes.iter().copied()).collect(), 1),
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

    /// Returns where each cell starts, then the number of positions: ascending numbers, whatever
    /// the directory says.
    pub(crate) fn cell_starts(&self) -> Vec<usize> {
        let n_positions = self.layout.n_positions();
        let mut last = 0;
        let cells = (0..self.layout.n_cells()).map(|cell| {
            last = self.cells.get(cell).clamp(last, n_positions as u64);
            last as usize
        });
        cells.chain([n_positions]).collect()
    }

    /// Writes the code at `position`, `[L]`. A byte of a damaged file that names no codeword
    /// becomes 0.
    pub(crate) fn known_code(&self, position: usize, code: &mut [u8]) {
        let (first, _) = self.row_of(position);
        for (level, code) in code.iter_mut().enumerate() {
            let found = self.code(first, position, level);
            *code = if usize::from(found) < self.layout.n_codewords { found } else { 0 };
        }
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

/// A section of whole numbers.
#[derive(Clone, Copy)]
pub(crate) enum Integers<'a> {
    U16(&'a [[u8; 2]]),
    U32(&'a [[u8; 4]]),
    U64(&'a [[u8; 8]]),
}

impl<'a> Integers<'a> {
    /// Returns number `i`.
    #[inline]
    pub(crate) fn get(&self, i: usize) -> u64 {
        match self {
            Self::U16(values) => u64::from(u16::from_le_bytes(values[i])),
            Self::U32(values) => u64::from(u32::from_le_bytes(values[i])),
            Self::U64(values) => u64::from_le_bytes(values[i]),
        }
    }

    /// Returns how many numbers satisfy `before`, where those that do come first.
    fn partition_point(&self, before: impl Fn(u64) -> bool) -> usize {
        match self {
            Self::U16(values) => values.partition_point(|&value| before(u16::from_le_bytes(value).into())),
            Self::U32(values) => values.partition_point(|&value| before(u32::from_le_bytes(value).into())),
            Self::U64(values) => values.partition_point(|&value| before(u64::from_le_bytes(value))),
        }
    }

    /// Calls `f` with each number of `range` that is at most `bound`.
    #[inline]
    pub(crate) fn each_at_most(&self, bound: u64, range: Range<usize>, f: impl FnMut(u64)) {
        let fits = |&number: &u64| number <= bound;
        match self {
            Self::U16(values) => {
                let numbers = values[range].iter().map(|&bytes| u16::from_le_bytes(bytes).into());
                numbers.filter(fits).for_each(f);
            }
            Self::U32(values) => {
                let numbers = values[range].iter().map(|&bytes| u32::from_le_bytes(bytes).into());
                numbers.filter(fits).for_each(f);
            }
            Self::U64(values) => {
                let numbers = values[range].iter().map(|&bytes| u64::from_le_bytes(bytes));
                numbers.filter(fits).for_each(f);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::U16(values) => values.len(),
            Self::U32(values) => values.len(),
            Self::U64(values) => values.len(),
        }
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = u64> + use<'a> {
        (0..self.len()).map(move |i| self.get(i))
    }
}
