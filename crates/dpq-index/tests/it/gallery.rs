//! Small galleries made from a few numbers, so that proptest can shrink them.

use dpq_index::{Assignment, Codebooks, Form, Hit, Index, IndexBuilder, LookupTable, Metric};

use crate::naive;

/// A splitmix generator: the same numbers everywhere, for golden files too.
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Returns a number that f32 holds exactly, often equal to another: a multiple of 1/8 in −2..2,
    /// −0.0 included.
    pub(crate) fn coarse(&mut self) -> f32 {
        let magnitude = self.below(16) as f32 / 8.0;
        if self.next().is_multiple_of(2) { magnitude } else { -magnitude }
    }

    /// Returns a number in −1..1.
    pub(crate) fn fine(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// Codes with ids, and the codebooks and metric to index them with.
pub(crate) struct Gallery {
    pub(crate) codebooks: Codebooks,
    pub(crate) metric: Metric,
    pub(crate) codes: Vec<u8>,
    pub(crate) ids: Option<Vec<u64>>,
}

/// The numbers that a gallery is made from.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) seed: u64,
    pub(crate) metric: Metric,
    pub(crate) n_levels: usize,
    pub(crate) n_codewords: usize,
    pub(crate) n_items: usize,
    /// The number of codes that items draw theirs from.
    pub(crate) n_distinct: usize,
    /// Ids are below this, or row numbers if `None`. If this is large, one id is `u64::MAX`.
    pub(crate) id_limit: Option<u64>,
}

impl Recipe {
    pub(crate) fn gallery(&self) -> Gallery {
        let dim = 3;
        let mut random = Random(self.seed);
        let values = (0..self.n_levels * self.n_codewords * dim).map(|_| random.coarse()).collect();
        let codebooks =
            Codebooks::new(values, self.n_levels, self.n_codewords, dim, Assignment::Euclidean).unwrap();
        let pool: Vec<Vec<u8>> = (0..self.n_distinct)
            .map(|_| (0..self.n_levels).map(|_| random.below(self.n_codewords) as u8).collect())
            .collect();
        let codes = (0..self.n_items).flat_map(|_| pool[random.below(pool.len())].clone()).collect();
        let ids = self.id_limit.map(|limit| {
            // Distinct ids in no order: an odd factor permutes the residues of a power of two.
            let mask = limit.next_power_of_two().max(self.n_items.next_power_of_two() as u64) - 1;
            let offset = random.next();
            let mut ids: Vec<u64> = (0..self.n_items as u64)
                .map(|row| row.wrapping_mul(0x9e37_79b1).wrapping_add(offset) & mask)
                .collect();
            if let Some(id) = ids.first_mut().filter(|_| limit > 1 << 50) {
                *id = u64::MAX;
            }
            ids
        });
        Gallery { codebooks, metric: self.metric, codes, ids }
    }

    /// Returns the gallery with the same codewords as those of a product.
    pub(crate) fn product(&self) -> Gallery {
        let gallery = self.gallery();
        let [n_levels, n_codewords, width] = gallery.codebooks.shape();
        let (values, dim) = (gallery.codebooks.values().to_vec(), n_levels * width);
        let assignment = Assignment::Euclidean;
        let codebooks =
            Codebooks::with_form(Form::Product, values, n_levels, n_codewords, dim, assignment).unwrap();
        Gallery { codebooks, ..gallery }
    }
}

impl Gallery {
    pub(crate) fn n_levels(&self) -> usize {
        self.codebooks.n_levels()
    }

    pub(crate) fn ids(&self) -> Vec<u64> {
        self.ids.clone().unwrap_or_else(|| (0..(self.codes.len() / self.n_levels()) as u64).collect())
    }

    pub(crate) fn builder(&self) -> IndexBuilder<'_> {
        let builder = Index::builder(&self.codebooks, &self.codes).metric(self.metric);
        match &self.ids {
            Some(ids) => builder.ids(ids),
            None => builder,
        }
    }

    /// Returns the bytes of the index file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gallery.dpq");
        self.builder().write(&path).unwrap();
        std::fs::read(path).unwrap()
    }

    pub(crate) fn index(&self) -> Index {
        Index::from_bytes(self.bytes()).unwrap()
    }

    /// Returns a table whose entries come from `entry`.
    pub(crate) fn table(&self, entry: impl FnMut() -> f32) -> LookupTable {
        let (n_levels, n_codewords) = (self.n_levels(), self.codebooks.n_codewords());
        let mut entry = entry;
        let values = (0..n_levels * n_codewords).map(|_| entry()).collect();
        LookupTable::new(values, n_levels, n_codewords).unwrap()
    }

    /// Returns the hits that a search without bound on k must return.
    pub(crate) fn ranking(
        &self,
        table: &LookupTable,
        n_levels: usize,
        passes: impl Fn(&Hit) -> bool,
    ) -> Vec<Hit> {
        let unit = self.codebooks.norm_unit();
        let score = |code: &[u8]| naive::score(&self.codebooks, unit, self.metric, table, code, n_levels);
        naive::ranking(score, &self.codes, self.n_levels(), &self.ids(), passes)
    }
}

/// Returns ids and score bits, which must be equal to the last.
pub(crate) fn bits(hits: &[Hit]) -> Vec<(u64, u32)> {
    hits.iter().map(|hit| (hit.id, hit.score.to_bits())).collect()
}
