//! The names of the items of a segment: a file beside its index.
//!
//! Entries are ordered by id. `order` lists them by name, so that both are found by halving.

use std::collections::BTreeMap;

use dpq_file::{Container, Dtype, Section};

use crate::Error;

const FORMAT: &str = "dpq-names";

/// The names of some items of an index.
pub(crate) struct Names {
    file: Container,
    len: usize,
}

impl Names {
    /// Returns the bytes of the file. `item` finds the place of an id in the index.
    pub(crate) fn to_bytes(
        names: &BTreeMap<u64, String>,
        item: impl Fn(u64) -> Option<usize>,
    ) -> Result<Vec<u8>, Error> {
        let items = names.keys().map(|&id| item(id).expect("the index holds all items that have names"));
        let items: Vec<u8> = items.flat_map(|item| (item as u32).to_le_bytes()).collect();
        let mut order: Vec<(&str, u32)> = names.values().map(String::as_str).zip(0..).collect();
        order.sort_unstable();
        let order: Vec<u8> = order.into_iter().flat_map(|(_, entry)| entry.to_le_bytes()).collect();
        let (ids, ends, text) = columns(names);
        let (n, n_text) = ([names.len()], [text.len()]);
        let section = |dtype, bytes| Section { dtype, shape: &n, bytes };
        let sections = [
            ("ids", section(Dtype::U64, &ids[..])),
            ("ends", section(Dtype::U64, &ends)),
            ("items", section(Dtype::U32, &items)),
            ("order", section(Dtype::U32, &order)),
            ("text", Section { dtype: Dtype::U8, shape: &n_text, bytes: &text }),
        ];
        let metadata = [("format", FORMAT), ("version", "1")];
        let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        Ok(dpq_file::to_bytes(&metadata, &sections)?)
    }

    /// Checks the parts of a file that decide where its sections lie.
    pub(crate) fn new(file: Container) -> Result<Self, Error> {
        let bad = |reason: String| Error::Format { path: file.path().to_owned(), reason };
        let [format, version] = ["format", "version"].map(|key| file.metadata(key).unwrap_or("none"));
        if [format, version] != [FORMAT, "1"] {
            return Err(bad(format!("has format {format}, version {version}, expected {FORMAT}, version 1")));
        }
        let len = file.section("ids")?.bytes.len() / 8;
        for (name, dtype, expected) in [
            ("ids", Dtype::U64, Some(len)),
            ("ends", Dtype::U64, Some(len)),
            ("items", Dtype::U32, Some(len)),
            ("order", Dtype::U32, Some(len)),
            ("text", Dtype::U8, None),
        ] {
            let Section { dtype: found, shape, .. } = file.section(name)?;
            let fits = matches!(shape, [n] if expected.is_none_or(|expected| expected == *n));
            if found != dtype || !fits {
                return Err(bad(format!(
                    "section `{name}` has {found:?} {shape:?}, expected {dtype:?} [{len}]"
                )));
            }
        }
        Ok(Self { file, len })
    }

    /// Returns the name of an id, and the place of the item in the index.
    pub(crate) fn of(&self, id: u64) -> Option<(&str, usize)> {
        let entry = self.column::<8>("ids").binary_search_by_key(&id, |&bytes| u64::from_le_bytes(bytes));
        let (_, item, name) = self.entry(entry.ok()?)?;
        Some((name, item))
    }

    /// Returns the id that has a name, and the place of the item in the index.
    pub(crate) fn find(&self, name: &str) -> Option<(u64, usize)> {
        let order = self.column::<4>("order");
        let at = |order: &[u8; 4]| self.entry(u32::from_le_bytes(*order) as usize);
        let found = order.partition_point(|order| at(order).is_some_and(|(.., found)| found < name));
        let (id, item, found) = at(order.get(found)?)?;
        (found == name).then_some((id, item))
    }

    /// Yields ids, places in the index and names, by ascending id.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (u64, usize, &str)> {
        (0..self.len).filter_map(|entry| self.entry(entry))
    }

    /// Reads every byte, and compares entries with the `ids` of the index.
    pub(crate) fn verify(&self, ids: &[u64]) -> Result<(), Error> {
        self.file.verify()?;
        let (mut names, mut last) = (BTreeMap::new(), None);
        let bad = |reason: String| {
            Err(Error::Format {
                path: self.file.path().to_owned(),
                reason: format!("{reason}, build it again"),
            })
        };
        for entry in 0..self.len {
            let Some((id, item, name)) = self.entry(entry) else {
                return bad(format!("entry {entry} has no text"));
            };
            if ids.get(item) != Some(&id) || last.is_some_and(|last| last >= id) {
                return bad(format!("entry {entry} is of id {id}, which its index does not have there"));
            }
            last = Some(id);
            names.insert(id, name.to_owned());
        }
        // Only these bytes have the right order.
        let place = |id| self.of(id).map(|(_, item)| item);
        match Self::to_bytes(&names, place)? == self.file.bytes() {
            true => Ok(()),
            false => bad("the order of names is wrong".to_owned()),
        }
    }

    pub(crate) fn n_bytes(&self) -> usize {
        self.file.bytes().len()
    }

    /// Returns id, place in the index and name of an entry. A damaged file may lack them.
    fn entry(&self, entry: usize) -> Option<(u64, usize, &str)> {
        let ends = self.column::<8>("ends");
        let end = |entry: usize| usize::try_from(u64::from_le_bytes(*ends.get(entry)?)).ok();
        let start = if entry == 0 { 0 } else { end(entry - 1)? };
        let text = self.column::<1>("text").as_flattened().get(start..end(entry)?)?;
        let item = u32::from_le_bytes(*self.column::<4>("items").get(entry)?) as usize;
        let id = u64::from_le_bytes(*self.column::<8>("ids").get(entry)?);
        Some((id, item, std::str::from_utf8(text).ok()?))
    }

    fn column<const N: usize>(&self, name: &str) -> &[[u8; N]] {
        self.file.section(name).map_or(&[], |section| section.bytes.as_chunks().0)
    }
}

/// Returns ids, ends of names, and names: little-endian, by ascending id.
pub(crate) fn columns(names: &BTreeMap<u64, String>) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let ids = names.keys().flat_map(|id| id.to_le_bytes()).collect();
    let mut end = 0;
    let ends = names.values().flat_map(|name| {
        end += name.len() as u64;
        end.to_le_bytes()
    });
    (ids, ends.collect(), names.values().flat_map(|name| name.bytes()).collect())
}

/// Returns the names that [`columns`] wrote, or `None` if they are damaged.
pub(crate) fn from_columns(ids: &[u64], ends: &[u64], text: &[u8]) -> Option<BTreeMap<u64, String>> {
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let name = |(start, &end)| {
        let text = text.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)?;
        Some(std::str::from_utf8(text).ok()?.to_owned())
    };
    let names: Option<Vec<String>> = starts.zip(ends).map(name).collect();
    let is_whole = ends.last().copied().unwrap_or(0) == text.len() as u64 && ids.len() == ends.len();
    let ascends = ids.is_sorted_by(|a, b| a < b);
    names.filter(|_| is_whole && ascends).map(|names| ids.iter().copied().zip(names).collect())
}
