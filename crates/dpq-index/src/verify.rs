//! Reads every byte of an index, and checks everything that opening does not.

use crate::layout::{ID_BLOCK, Layout, norms_name, plane_name};
use crate::norms::{of_pairs, of_rows};
use crate::view::{Integers, View};
use crate::{Error, Index};

impl Index {
    /// Reads and checks every byte: checksums, the directory, the order of codes and ids, and all
    /// sections that other sections determine. Takes 8 bytes per item in memory.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Section`], which name the damaged section.
    pub fn verify(&self) -> Result<(), Error> {
        self.container.verify()?;
        let view = self.view();
        self.verify_ascending("cells", view.cells, self.layout.n_positions(), |a, b| a <= b)?;
        if let Some(starts) = view.starts {
            self.verify_ascending("starts", starts, self.len(), |a, b| a < b)?;
        }
        if let Some(plane) = view.planes.first() {
            for [first, second] in (0..=u16::MAX).map(u16::to_be_bytes) {
                let cell = view.cell(first, second, 0);
                if let Some(found) = plane[cell].iter().find(|&&byte| byte != second) {
                    let reason = format!("has {found} in the cell of {first} and {second}");
                    return self.damaged(&plane_name(1), reason);
                }
            }
        }
        self.verify_codes(&view)?;
        self.verify_ids(&view)?;
        self.verify_norms()
    }

    /// Checks that numbers go from 0 to `last`, and that `order` holds for every two neighbours.
    fn verify_ascending(
        &self,
        section: &str,
        numbers: Integers,
        last: usize,
        order: impl Fn(u64, u64) -> bool,
    ) -> Result<(), Error> {
        let (low, high) = (numbers.get(0), numbers.get(numbers.len() - 1));
        if (low, high) != (0, last as u64) {
            return self.damaged(section, format!("goes from {low} to {high}, expected 0 to {last}"));
        }
        let mut pairs = (1..numbers.len()).map(|i| (numbers.get(i - 1), numbers.get(i), i));
        pairs.find(|&(a, b, _)| !order(a, b)).map_or(Ok(()), |(a, b, i)| {
            self.damaged(section, format!("has {b} after {a} at entry {i}, expected ascending numbers"))
        })
    }

    /// Checks that codes name codewords, ascend, are as many as claimed, and agree with `sample`.
    fn verify_codes(&self, view: &View) -> Result<(), Error> {
        let &Layout { n_levels, n_codewords, n_distinct: claimed, .. } = &self.layout;
        let (sample, stride) = view.sample();
        let sampled = (0..self.layout.n_sampled()).map(|i| (i, self.layout.sample(i)));
        let mut sampled = sampled.filter(|_| self.layout.has_sample()).peekable();
        let mut last: Vec<u8> = Vec::new();
        let mut n_distinct = 0;
        for (first, position) in view.positions() {
            let code: Vec<u8> = (0..n_levels).map(|level| view.code(first, position, level)).collect();
            let section = |level| if level == 0 { "cells".to_owned() } else { plane_name(level) };
            if let Some(level) = code.iter().position(|&code| usize::from(code) >= n_codewords) {
                let found = code[level];
                let reason = format!("has {found} at position {position}, of {n_codewords} codewords");
                return self.damaged(&section(level), reason);
            }
            let level = code.iter().zip(&last).position(|(a, b)| a != b);
            let ascends = match level {
                _ if position == 0 => true,
                Some(level) => code[level] > last[level],
                // If positions are items, equal codes are in the order of their ids.
                None => view.starts.is_none() && view.ids.get(position) > view.ids.get(position - 1),
            };
            if !ascends {
                let section = level.map_or("ids".to_owned(), section);
                return self.damaged(&section, format!("is out of order at position {position}"));
            }
            n_distinct += usize::from(position == 0 || level.is_some());
            if let Some((i, _)) = sampled.next_if(|&(_, sampled)| sampled == position) {
                let found: Vec<u8> = sample.iter().map(|plane| plane[i * stride]).collect();
                if found != code {
                    let reason =
                        format!("has {found:?} for the code at position {position}, which is {code:?}");
                    return self.damaged("sample", reason);
                }
            }
            last = code;
        }
        if n_distinct != claimed {
            return self.damaged("cells", format!("leads to {n_distinct} distinct codes, not {claimed}"));
        }
        Ok(())
    }

    /// Checks that ids are unique, ascend within each distinct code, and agree with `id_min`.
    fn verify_ids(&self, view: &View) -> Result<(), Error> {
        if let Some(starts) = view.starts {
            let items = |i: usize| starts.get(i - 1) as usize + 1..starts.get(i) as usize;
            let is_wrong = |&item: &usize| view.ids.get(item) <= view.ids.get(item - 1);
            if let Some(item) = (1..starts.len()).flat_map(items).find(is_wrong) {
                return self.damaged("ids", format!("is out of order at item {item}"));
            }
        }
        let mut ids: Vec<u64> = view.ids.iter().collect();
        let minima = ids.chunks(ID_BLOCK).map(|block| block.iter().min().copied());
        if let Some(block) = minima.zip(view.id_min.iter()).position(|(min, found)| min != Some(found)) {
            let found = view.id_min.get(block);
            let reason = format!("has {found} for block {block}, which is not its minimum id");
            return self.damaged("id_min", reason);
        }
        ids.sort_unstable();
        match ids.windows(2).find(|pair| pair[0] == pair[1]) {
            None => Ok(()),
            Some(pair) => self.damaged("ids", format!("has the id {} more than once", pair[0])),
        }
    }

    /// Checks the norms, which codebooks and codes determine. Version 1 has none; its sections of
    /// the Euclidean metric are no longer used.
    fn verify_norms(&self) -> Result<(), Error> {
        let file = self.container.bytes();
        // Where there are norms, there are those of pairs.
        let Some(found) = self.sections.pairs(file) else { return Ok(()) };
        let unit = self.codebooks.norm_unit();
        let pairs = of_pairs(&self.codebooks, unit, self.layout.n_pairs())?;
        let expected = pairs.iter().flat_map(|pairs| &pairs.norms);
        if !found.iter().map(|&norm| u32::from_le_bytes(norm)).eq(expected.copied()) {
            return self.damaged("norms.pairs", "does not hold the norms of pairs of codewords");
        }
        let lengths = &self.layout.norm_lengths;
        if lengths.is_empty() {
            return Ok(());
        }
        let planes = self.compute_planes(unit, &of_rows(&self.codebooks, unit)?, &pairs, lengths)?;
        for (length, expected) in lengths.iter().zip(planes) {
            let levels = length.levels();
            let Some(found) = self.sections.norms(file, levels) else { continue };
            let parts = [
                (".high", found.high == expected.high),
                (".low", found.low == expected.low),
                (".rows", found.rows == expected.rows),
                (".cells", found.cells == expected.cells.as_deref()),
            ];
            if let Some((part, _)) = parts.into_iter().find(|(_, is_right)| !is_right) {
                return self.damaged(&norms_name(levels, part), "does not hold the norms of the codes");
            }
        }
        Ok(())
    }
}
