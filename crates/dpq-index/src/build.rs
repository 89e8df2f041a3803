//! Builds an index: sorts the items, and fills the sections of the layout.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use dpq_codebook::{CodeLength, Codebooks, Expected, Form};
use dpq_file::{Dtype, Section};
use rayon::prelude::*;

use crate::layout::{ID_BLOCK, Layout, Metric, norms_name, plane_name};
use crate::norms::{Source, of_pairs, of_rows};
use crate::sort::{Row, sorted_rows};
use crate::{Error, Index};

/// Takes the metadata and the sections of an index file.
type Finish<'f, T> = &'f dyn Fn(&BTreeMap<String, String>, &[(&str, Section)]) -> Result<T, dpq_file::Error>;

/// The parts that an index is built from, made by [`Index::builder`].
#[derive(Clone, Copy, Debug)]
pub struct IndexBuilder<'a> {
    codebooks: &'a Codebooks,
    codes: &'a [u8],
    ids: Option<&'a [u64]>,
    metric: Metric,
    norm_lengths: Option<&'a [CodeLength]>,
    interrupt: Option<&'a AtomicBool>,
}

/// The lengths, in levels, that a Euclidean index keeps norms for by default, if codes are as long;
/// besides these, the greatest length.
const NORM_LENGTHS: [usize; 12] = [3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 48, 64];

impl<'a> IndexBuilder<'a> {
    /// Gives each item, `[N]`, an id of its own. The default is the row number.
    #[must_use]
    pub fn ids(self, ids: &'a [u64]) -> Self {
        Self { ids: Some(ids), ..self }
    }

    /// Ranks by `metric`. The default is the inner product.
    #[must_use]
    pub fn metric(self, metric: Metric) -> Self {
        Self { metric, ..self }
    }

    /// Keeps norms for searches at `lengths` by the Euclidean metric: 4 bytes per distinct code and
    /// length above 16 bits. The default is 24 to 64 bits, then 96, 128, 192, 256, 384, 512 and the
    /// greatest length. Other lengths can be searched too: the first search at one computes its
    /// norms, and the index keeps them in memory.
    #[must_use]
    pub fn norm_lengths(self, lengths: &'a [CodeLength]) -> Self {
        Self { norm_lengths: Some(lengths), ..self }
    }

    /// Ends the work with [`Error::Interrupted`] at its next step after `interrupt` becomes true.
    #[must_use]
    pub fn interrupt(self, interrupt: &'a AtomicBool) -> Self {
        Self { interrupt: Some(interrupt), ..self }
    }

    /// Builds the index and writes it to `path`, whole or not at all. The same input gives the same
    /// bytes.
    ///
    /// Up to 2³² items, sorting takes 8 bytes per item in memory, and the file to be written about
    /// L + 4.
    ///
    /// # Errors
    /// [`Error::Codebook`] if the codes are not whole rows, the ids are not as many as rows, a
    /// length of norms is above that of the codes, or the norm of a code overflows f32;
    /// [`Error::Code`] for a code that names no codeword; [`Error::DuplicateId`]; [`Error::File`]
    /// if the file cannot be written.
    pub fn write(self, path: impl AsRef<Path>) -> Result<(), Error> {
        self.finish(&|metadata, sections| dpq_file::write(&path, metadata, sections))
    }

    /// Builds the index in memory. It takes as much as the file, and twice that while it is built.
    pub fn build(self) -> Result<Index, Error> {
        Index::from_bytes(self.finish(&dpq_file::to_bytes)?)
    }

    /// Checks the input, and calls `finish` with the parts of the file.
    fn finish<T>(self, finish: Finish<T>) -> Result<T, Error> {
        let (n_levels, n_codewords) = (self.codebooks.n_levels(), self.codebooks.n_codewords());
        let n_items = self.codes.len() / n_levels;
        Expected::Rows(n_levels).check("codes", self.codes.len())?;
        if let Some(at) = self.codes.iter().position(|&code| usize::from(code) >= n_codewords) {
            let (row, level, found) = (at / n_levels, at % n_levels, self.codes[at]);
            return Err(Error::Code { row, level, found, n_codewords });
        }
        self.ids.map_or(Ok(()), |ids| Expected::Shape(vec![n_items]).check("ids", ids.len()))?;
        for length in self.norm_lengths.into_iter().flatten() {
            self.codebooks.check_length(*length)?;
        }
        if u32::try_from(n_items).is_ok() {
            self.fill(sorted_rows::<u32>(self.codes, n_levels, self.ids, || self.go_on())?, finish)
        } else {
            self.fill(sorted_rows::<u64>(self.codes, n_levels, self.ids, || self.go_on())?, finish)
        }
    }

    /// Ends a build that is interrupted.
    fn go_on(&self) -> Result<(), Error> {
        match self.interrupt.is_some_and(|interrupt| interrupt.load(Ordering::Relaxed)) {
            true => Err(Error::Interrupted),
            false => Ok(()),
        }
    }

    /// Calls `finish` with the parts of the file, whose items come in the order of `rows`.
    fn fill<R: Row, T>(self, rows: Vec<R>, finish: Finish<T>) -> Result<T, Error> {
        let Self { codebooks, codes, ids, metric, .. } = self;
        let (n_items, n_levels) = (rows.len(), codebooks.n_levels());
        self.go_on()?;
        let code = |row: R| &codes[row.get() * n_levels..][..n_levels];
        let firsts = || (0..n_items).filter(|&item| item == 0 || code(rows[item]) != code(rows[item - 1]));
        let default_lengths: Vec<CodeLength> = NORM_LENGTHS
            .into_iter()
            .filter(|&levels| levels < n_levels)
            .chain([n_levels])
            .map(CodeLength::from_levels)
            .collect::<Result<_, _>>()?;
        let lengths = self.norm_lengths.unwrap_or(&default_lengths);
        let layout = Layout::new(metric, codebooks, n_items, firsts().count(), lengths);
        let version = layout.version;
        let mut filled: BTreeMap<String, (Dtype, Vec<u8>)> = BTreeMap::new();

        let id = |&row: &R| ids.map_or(row.get() as u64, |ids| ids[row.get()]);
        let id_min = |rows: &[R]| rows.iter().map(id).min().expect("a chunk is not empty");
        filled.insert("ids".to_owned(), integers(version, rows.iter().map(id)));
        filled.insert("id_min".to_owned(), integers(version, rows.chunks(ID_BLOCK).map(id_min)));

        // From here on, only one row per position matters.
        let rows = if layout.has_starts() {
            let firsts: Vec<R> = firsts().map(R::new).collect();
            let starts = firsts.iter().map(|first| first.get()).chain([n_items]).map(|item| item as u64);
            filled.insert("starts".to_owned(), integers(version, starts));
            firsts.iter().map(|first| rows[first.get()]).collect()
        } else {
            rows
        };
        let codes = || rows.iter().map(|&row| code(row));
        let cells = cells(&layout, codes());
        filled.insert("cells".to_owned(), integers(version, cells.iter().map(|&start| start as u64)));
        for level in 1..n_levels {
            self.go_on()?;
            filled.insert(plane_name(level), (Dtype::U8, codes().map(|code| code[level]).collect()));
        }
        let sample = (0..layout.n_sampled()).flat_map(|i| code(rows[layout.sample(i)]));
        filled.insert("sample".to_owned(), (Dtype::U8, sample.copied().collect()));
        filled.insert("codebook".to_owned(), floats(codebooks.values()));

        if metric == Metric::Euclidean && codebooks.form() == Form::Product {
            // Opening computes them.
            codebooks.codeword_norms()?;
        } else if metric == Metric::Euclidean {
            let unit = codebooks.norm_unit();
            let pairs = of_pairs(codebooks, unit, layout.n_pairs())?;
            if !pairs.is_empty() {
                let norms = pairs.iter().flat_map(|pairs| &pairs.norms).flat_map(|norm| norm.to_le_bytes());
                filled.insert("norms.pairs".to_owned(), (Dtype::U32, norms.collect()));
            }
            let with_cells = layout.has_model();
            let pairs = if with_cells { &pairs[..] } else { &[] };
            let first_norms = of_rows(codebooks, unit)?;
            let source = Source { codebooks, unit, rows: &first_norms, pairs, cells: &cells, with_cells };
            let at = |position: usize, out: &mut [u8]| out.copy_from_slice(code(rows[position]));
            for (length, plane) in layout.norm_lengths.iter().zip(source.planes(at, &layout.norm_lengths)?) {
                let name = |part| norms_name(length.levels(), part);
                filled.insert(name(".high"), (Dtype::U8, plane.high));
                filled.insert(name(".low"), (Dtype::U8, plane.low.into_flattened()));
                let rows = plane.rows.into_flattened().into_flattened();
                filled.insert(name(".rows"), (Dtype::I64, rows));
                filled.extend(plane.cells.map(|cells| (name(".cells"), (Dtype::U8, cells))));
            }
        }

        self.go_on()?;
        // The file needs memory too.
        drop(rows);
        let metadata = layout.metadata(codebooks);
        let sections = layout.sections();
        let sections = sections.iter().map(|(name, _, shape)| {
            let (dtype, bytes) = &filled[name];
            (name.as_str(), Section { dtype: *dtype, shape, bytes })
        });
        Ok(finish(&metadata, &sections.collect::<Vec<_>>())?)
    }
}

impl Index {
    /// Starts to build an index of `codes`, u8 `[N, L]`, row-major, that `codebooks` made.
    pub fn builder<'a>(codebooks: &'a Codebooks, codes: &'a [u8]) -> IndexBuilder<'a> {
        let metric = Metric::InnerProduct;
        IndexBuilder { codebooks, codes, ids: None, metric, norm_lengths: None, interrupt: None }
    }

    /// Returns the ids, ascending, and the code of each, u8 `[N, L]`: the items that the index was
    /// built from.
    ///
    /// Takes 24 bytes per item in memory beside the result. A damaged file can give wrong items, or
    /// fewer; call [`verify`](Self::verify) first.
    pub fn ids_and_codes(&self) -> (Vec<u64>, Vec<u8>) {
        let (view, n_levels) = (self.view(), self.layout.n_levels);
        let mut items = Vec::with_capacity(self.len());
        let mut n_left = self.len();
        for (first, position) in view.positions() {
            for item in view.items(position..position + 1, &mut n_left) {
                items.push((view.ids.get(item), position, first));
            }
        }
        items.par_sort_unstable_by_key(|&(id, ..)| id);
        let mut codes = Vec::with_capacity(items.len().saturating_mul(n_levels));
        for &(_, position, first) in &items {
            codes.extend((0..n_levels).map(|level| view.code(first, position, level)));
        }
        (items.into_iter().map(|(id, ..)| id).collect(), codes)
    }

    /// Returns the codes in the order of [`ids`](Self::ids), u8 `[N, L]`.
    ///
    /// A damaged file can give wrong codes; call [`verify`](Self::verify) first.
    pub fn codes(&self) -> Vec<u8> {
        let (view, n_levels) = (self.view(), self.layout.n_levels);
        let mut codes = Vec::with_capacity(self.len().saturating_mul(n_levels));
        let mut n_left = self.len();
        for (first, position) in view.positions() {
            for _ in view.items(position..position + 1, &mut n_left) {
                codes.extend((0..n_levels).map(|level| view.code(first, position, level)));
            }
        }
        // In a damaged file, some items may have no code.
        codes.resize(self.len().saturating_mul(n_levels), 0);
        codes
    }

    /// Returns the code of the item with this id, u8 `[L]`.
    ///
    /// The first call makes the index keep 4 bytes per item in memory: the order of ids. A damaged
    /// file can give a wrong code; call [`verify`](Self::verify) first.
    pub fn code_of(&self, id: u64) -> Option<Vec<u8>> {
        if u32::try_from(self.len()).is_ok() {
            let (ids, by_id) = (self.view().ids, self.by_id());
            let at = by_id.binary_search_by_key(&id, |&item| ids.get(item as usize)).ok()?;
            self.code_at(by_id[at] as usize)
        } else {
            self.code_at(self.ids().position(|other| other == id)?)
        }
    }

    /// Returns the code of the item at a place in the order of [`ids`](Self::ids), u8 `[L]`.
    pub fn code_at(&self, place: usize) -> Option<Vec<u8>> {
        let view = self.view();
        let mut code = vec![0; self.layout.n_levels];
        (place < self.len()).then(|| view.known_code(view.position_of(place), &mut code))?;
        Some(code)
    }

    /// Sorts the items by id now, as the first [`code_of`](Self::code_of) would, so that no later
    /// one takes long.
    pub fn sort_ids(&self) {
        if u32::try_from(self.len()).is_ok() {
            self.by_id();
        }
    }

    /// Writes the index to `path`, whole or not at all: the same bytes that it was opened from.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        Ok(dpq_file::write_atomic(path, |out| out.write_all(self.as_bytes()))?)
    }

    /// Returns the bytes of its file, which [`from_bytes`](Self::from_bytes) opens.
    pub fn as_bytes(&self) -> &[u8] {
        self.container.bytes()
    }
}

/// Returns the directory of ascending `codes`: the first position of each cell, and the number of
/// positions.
fn cells<'a>(layout: &Layout, codes: impl Iterator<Item = &'a [u8]>) -> Vec<usize> {
    let mut cells = vec![0; layout.n_cells() + 1];
    for code in codes {
        let cell = code.iter().take(2).fold(0, |cell, &byte| cell << 8 | usize::from(byte));
        cells[cell + 1] += 1;
    }
    for cell in 1..cells.len() {
        cells[cell] += cells[cell - 1];
    }
    cells
}

/// Encodes whole numbers in the narrowest type of a format version that holds them all.
fn integers(version: u8, values: impl Iterator<Item = u64> + Clone) -> (Dtype, Vec<u8>) {
    let max = values.clone().max().unwrap_or(0);
    if version > 1 && max <= u16::MAX.into() {
        (Dtype::U16, values.flat_map(|value| (value as u16).to_le_bytes()).collect())
    } else if max <= u32::MAX.into() {
        (Dtype::U32, values.flat_map(|value| (value as u32).to_le_bytes()).collect())
    } else {
        (Dtype::U64, values.flat_map(u64::to_le_bytes).collect())
    }
}

fn floats(values: &[f32]) -> (Dtype, Vec<u8>) {
    (Dtype::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect())
}
