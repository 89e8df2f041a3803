//! Lookup tables: the inner products of a query with every codeword.

use crate::codebooks::check_sizes;
use crate::dot::{dots, dots_at, dots_of_many};
use crate::error::{MAX_VALUES, check_finite, check_size};
use crate::{CodeLength, Codebooks, Error, Expected, Form};

/// One number per codeword: f32 [L, K], finite.
///
/// For a query x the entry is ⟨x, c⟩. The inner product with an approximation is the sum of one
/// entry per level: the asymmetric quantizer distance (AQD). A table of its own lets any other
/// additive score be searched.
#[derive(Clone, Debug, PartialEq)]
pub struct LookupTable {
    values: Vec<f32>,
    n_levels: usize,
    n_codewords: usize,
    /// The fingerprint of the codebooks that made the table, if any did.
    codebooks: Option<u32>,
}

impl LookupTable {
    /// Makes a table of `values`, f32 [n_levels, n_codewords].
    ///
    /// # Errors
    /// [`Error::Argument`] if a size is out of range or `values` does not have these sizes.
    /// [`Error::NotFinite`] if a value is NaN or infinite.
    pub fn new(values: Vec<f32>, n_levels: usize, n_codewords: usize) -> Result<Self, Error> {
        check_sizes(n_levels, n_codewords)?;
        Expected::Shape(vec![n_levels, n_codewords]).check("lookup table", values.len())?;
        check_finite("lookup table", &values)?;
        Ok(Self { values, n_levels, n_codewords, codebooks: None })
    }

    /// Returns the number of levels, L.
    pub fn n_levels(&self) -> usize {
        self.n_levels
    }

    /// Returns the number of codewords per level, K.
    pub fn n_codewords(&self) -> usize {
        self.n_codewords
    }

    /// Returns the entries of a level, f32 `[K]`.
    ///
    /// # Panics
    /// If `level` is not less than L.
    pub fn level(&self, level: usize) -> &[f32] {
        &self.values[level * self.n_codewords..][..self.n_codewords]
    }

    /// Returns all entries, f32 [L, K].
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Returns false if other codebooks than `codebooks` made the table.
    pub fn fits(&self, codebooks: &Codebooks) -> bool {
        self.codebooks.is_none_or(|fingerprint| fingerprint == codebooks.fingerprint)
    }
}

impl Codebooks {
    /// Returns the inner products of a query `[D]` and all codewords, each summed in one fixed
    /// order: the same bits on every CPU, for one query or many. In product form, a codeword is
    /// multiplied with the part of the query that its level covers.
    ///
    /// # Errors
    /// [`Error::Argument`] unless the query has D values, [`Error::NotFinite`] if one, or an inner
    /// product, is NaN or infinite.
    pub fn lookup_table(&self, query: &[f32]) -> Result<LookupTable, Error> {
        self.lookup_table_at(query, self.max_length())
    }

    /// Returns the first levels of [`lookup_table`](Self::lookup_table), which suffice to search
    /// codes of `length`.
    ///
    /// The time is proportional to the number of levels.
    ///
    /// # Errors
    /// As [`lookup_table`](Self::lookup_table) and [`check_length`](Self::check_length).
    pub fn lookup_table_at(&self, query: &[f32], length: CodeLength) -> Result<LookupTable, Error> {
        Expected::Shape(vec![self.dim()]).check("query", query.len())?;
        check_finite("query", query)?;
        self.check_length(length)?;
        let n_values = length.levels() * self.n_codewords();
        let mut values = vec![0.0; n_values];
        self.fill_tables(query, &mut values, n_values);
        self.table(values, length)
    }

    /// Returns [`lookup_table_at`](Self::lookup_table_at) of each of `queries` [N, D].
    ///
    /// Reads each codeword from memory once for up to 32 queries. Runs on the calling thread.
    ///
    /// # Errors
    /// As [`lookup_table_at`](Self::lookup_table_at); queries are whole rows.
    /// [`Error::TooLarge`] if memory cannot hold the tables.
    pub fn lookup_tables(&self, queries: &[f32], length: CodeLength) -> Result<Vec<LookupTable>, Error> {
        Expected::Rows(self.dim()).check("queries", queries.len())?;
        check_finite("queries", queries)?;
        self.check_length(length)?;
        let n_values = length.levels() * self.n_codewords();
        let n_queries = queries.len() / self.dim();
        let mut values = vec![0.0; check_size("lookup tables", n_queries, n_values, MAX_VALUES)?];
        self.fill_tables(queries, &mut values, n_values);
        values.chunks_exact(n_values).map(|values| self.table(values.to_vec(), length)).collect()
    }

    /// Writes the first `n_values` entries of the table of each query.
    fn fill_tables(&self, queries: &[f32], values: &mut [f32], n_values: usize) {
        if self.form() == Form::Progressive {
            return dots_of_many(queries, &self.values()[..n_values * self.dim()], self.dim(), values);
        }
        // The codewords of a level stay in the nearest cache.
        for level in 0..self.n_levels() {
            let tables = values.chunks_exact_mut(n_values).zip(queries.chunks_exact(self.dim()));
            for (table, query) in tables {
                let entries = &mut table[level * self.n_codewords()..][..self.n_codewords()];
                dots(&query[self.dims(level)], self.level(level), entries);
            }
        }
    }

    fn table(&self, values: Vec<f32>, length: CodeLength) -> Result<LookupTable, Error> {
        let table = LookupTable::new(values, length.levels(), self.n_codewords())?;
        Ok(LookupTable { codebooks: Some(self.fingerprint), ..table })
    }

    /// Writes the entries that a lookup table of `query` `[D]` has for some codewords: `entries`
    /// `[n]` for the level and codeword of each of `at` `[n]`. The bits are those of the table.
    ///
    /// # Errors
    /// As [`lookup_table`](Self::lookup_table), and [`Error::Argument`] for a level or a codeword
    /// that does not exist, and unless there is one entry per codeword.
    pub fn lookup_entries(&self, query: &[f32], at: &[(u8, u8)], entries: &mut [f32]) -> Result<(), Error> {
        Expected::Shape(vec![self.dim()]).check("query", query.len())?;
        check_finite("query", query)?;
        let rows = rows_at(at, entries.len(), self.n_levels(), self.n_codewords())?;
        let dims = |at: &(u8, u8)| self.dims(at.0.into());
        let (mut rows, mut out) = (&rows[..], &mut entries[..]);
        for run in at.chunk_by(|a, b| dims(a) == dims(b)) {
            let (of_run, entries);
            (of_run, rows) = rows.split_at(run.len());
            (entries, out) = out.split_at_mut(run.len());
            dots_at(&query[dims(&run[0])], self.values(), Some(of_run), entries);
        }
        check_finite("lookup table", entries)
    }
}

/// Returns the rows of codebooks at levels and codewords.
pub(crate) fn rows_at(
    at: &[(u8, u8)],
    n_entries: usize,
    n_levels: usize,
    n_codewords: usize,
) -> Result<Vec<usize>, Error> {
    Expected::Shape(vec![at.len()]).check("entries", n_entries)?;
    let max = |of: fn(&(u8, u8)) -> u8| at.iter().map(of).max().map_or(0, usize::from);
    Expected::Range(0..=n_levels - 1).check("level", max(|at| at.0))?;
    Expected::Range(0..=n_codewords - 1).check("codeword", max(|at| at.1))?;
    Ok(at.iter().map(|&(level, codeword)| usize::from(level) * n_codewords + usize::from(codeword)).collect())
}
