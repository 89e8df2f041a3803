//! Reads every byte of an index, and checks everything that opening does not.

use crate::layout::{ID_BLOCK, cross_name, plane_name};
use crate::norms::{Norms, Quantizer};
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
                    return Err(self.section_error(&plane_name(1), reason));
                }
            }
        }
        self.verify_codes(&view)?;
        self.verify_ids(&view)?;
        view.norms.map_or(Ok(()), |norms| self.verify_norms(&view, &norms))
    }

    /// Checks that numbers go from 0 to `last`, and that `order` holds for every two neighbours.
    fn verify_ascending(
        &self,
        section: &str,
        numbers: Integers,
        last: usize,
        order: impl Fn(u64, u64) -> bool,
    ) -> Result<(), Error> {
        let ends = (numbers.get(0), numbers.get(numbers.len() - 1));
        if ends != (0, last as u64) {
            let reason = format!("goes from {} to {}, expected 0 to {last}", ends.0, ends.1);
            return Err(self.section_error(section, reason));
        }
        match (1..numbers.len()).find(|&i| !order(numbers.get(i - 1), numbers.get(i))) {
            None => Ok(()),
            Some(i) => {
                let reason = format!("has {} after {} at entry {i}", numbers.get(i), numbers.get(i - 1));
                Err(self.section_error(section, format!("{reason}, expected ascending numbers")))
            }
        }
    }

    /// Checks that codes name codewords, ascend, are as many as claimed, and agree with `sample`.
    fn verify_codes(&self, view: &View) -> Result<(), Error> {
        let mut sample = self.layout.sample().zip(view.sample.chunks(self.layout.n_levels)).peekable();
        let mut last: Vec<u8> = Vec::new();
        let mut n_distinct = 0;
        for (first, position) in view.positions() {
            let code: Vec<u8> =
                (0..self.layout.n_levels).map(|level| view.code(first, position, level)).collect();
            let section = |level| if level == 0 { "cells".to_owned() } else { plane_name(level) };
            if let Some(level) = code.iter().position(|&code| usize::from(code) >= self.layout.n_codewords) {
                let reason = format!(
                    "has {} at position {position}, of {} codewords",
                    code[level], self.layout.n_codewords
                );
                return Err(self.section_error(&section(level), reason));
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
                return Err(self.section_error(&section, format!("is out of order at position {position}")));
            }
            n_distinct += usize::from(position == 0 || level.is_some());
            if let Some((_, found)) = sample.next_if(|&(sampled, _)| sampled == position)
                && found != code
            {
                let reason = format!("has {found:?} for the code at position {position}, which is {code:?}");
                return Err(self.section_error("sample", reason));
            }
            last = code;
        }
        if n_distinct != self.layout.n_distinct {
            let claimed = self.layout.n_distinct;
            return Err(
                self.section_error("cells", format!("leads to {n_distinct} distinct codes, not {claimed}"))
            );
        }
        Ok(())
    }

    /// Checks that ids are unique, ascend within each distinct code, and agree with `id_min`.
    fn verify_ids(&self, view: &View) -> Result<(), Error> {
        if let Some(starts) = view.starts {
            let positions = (1..starts.len()).map(|i| starts.get(i - 1) as usize + 1..starts.get(i) as usize);
            if let Some(item) = positions.flatten().find(|&item| view.ids.get(item) <= view.ids.get(item - 1))
            {
                return Err(self.section_error("ids", format!("is out of order at item {item}")));
            }
        }
        let mut ids: Vec<u64> = view.ids.iter().collect();
        let minima = ids.chunks(ID_BLOCK).map(|block| block.iter().min().copied());
        if let Some(block) = minima.zip(view.id_min.iter()).position(|(min, found)| min != Some(found)) {
            let found = view.id_min.get(block);
            return Err(self.section_error(
                "id_min",
                format!("has {found} for block {block}, which is not its minimum id"),
            ));
        }
        ids.sort_unstable();
        match ids.windows(2).find(|pair| pair[0] == pair[1]) {
            None => Ok(()),
            Some(pair) => Err(self.section_error("ids", format!("has the id {} more than once", pair[0]))),
        }
    }

    /// Checks the sections of the Euclidean metric, which codebooks and codes determine.
    fn verify_norms(&self, view: &View, norms: &Norms) -> Result<(), Error> {
        let expected = self.codebooks.cross_products()?;
        let found = norms.gram();
        if let Some(at) = expected.iter().zip(found).position(|(x, &bytes)| x.to_le_bytes() != bytes) {
            let (found, expected) = (f32::from_le_bytes(found[at]), expected[at]);
            return Err(self.section_error("gram", format!("has {found} at entry {at}, which is {expected}")));
        }
        for (n, &(found, claimed)) in self.layout.cross_lengths().zip(&view.cross) {
            let terms = || {
                view.positions()
                    .map(|(first, position)| norms.cross(n, |level| view.code(first, position, level)))
            };
            let quantizer = Quantizer::new(terms())?;
            if quantizer != claimed {
                let reason = format!("is scaled by {claimed:?}, which is {quantizer:?}");
                return Err(self.section_error(&cross_name(n), reason));
            }
            if terms().zip(found).any(|(term, &found)| quantizer.byte(term) != found) {
                let reason = "does not hold the cross terms of the codes".to_owned();
                return Err(self.section_error(&cross_name(n), reason));
            }
        }
        Ok(())
    }
}
