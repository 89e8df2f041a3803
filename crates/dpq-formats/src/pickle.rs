//! Python's pickle, as far as NumPy uses it for a dictionary of arrays, for example
//! `bvlc_alexnet.npy`.
//!
//! No code of the pickle runs: classes are ignored, and an object keeps the arguments of its
//! constructor. Values are numbered, so a value that a pickle repeats is stored once.
//!
//! `serde-pickle` 1.2 is not used here. It drops the arguments of constructors, among them the
//! element type of an array, so int32 would be read as float32; and it copies a value each time
//! that the pickle repeats it.

use std::collections::HashMap;

use crate::npy::Element;
use crate::{Error, Result};

type Id = usize;

#[derive(Debug)]
enum Value<'a> {
    /// None, or a class.
    Other,
    /// A number; true is 1 and false is 0.
    Int(i64),
    /// A string or bytes.
    Text(&'a [u8]),
    /// A list or tuple.
    List(Vec<Id>),
    /// Keys and values, interleaved.
    Dict(Vec<Id>),
    /// The arguments of its constructor, and its state if that was set.
    Object(Id, Option<Id>),
}
use Value::{Dict, Int, List, Object, Other, Text};

/// A float32 array as it is stored.
pub(crate) struct Array<'a> {
    pub(crate) shape: Vec<usize>,
    /// True if the first axis is the fastest.
    pub(crate) fortran: bool,
    pub(crate) bytes: &'a [u8],
}

/// The maximum number of arrays. A small pickle can repeat an array many times.
const MAX_ARRAYS: usize = 10_000;

/// Reads an array of one dictionary, whose values are lists or dictionaries of arrays. Returns each
/// array with its two keys; the second one is a position in a list, or the key in a dictionary.
pub(crate) fn read(pickle: &[u8]) -> Result<Vec<(String, String, Array<'_>)>> {
    let mut pickle = Pickle { rest: pickle, ..Pickle::default() };
    let whole = pickle.run()?;
    let &[.., data] = pickle.state(whole)? else {
        return Err(Error::kind("an array without data", "one dictionary"));
    };
    let &[dict] = pickle.list(data)? else {
        return Err(Error::kind("an array of several objects", "one dictionary"));
    };
    let mut arrays = Vec::new();
    for &[key, value] in pickle.pairs(dict)? {
        let key = pickle.text(key)?;
        let parts: Vec<(String, Id)> = match &pickle.values[value] {
            List(items) => items.iter().enumerate().map(|(i, &item)| (i.to_string(), item)).collect(),
            _ => {
                let pairs = pickle.pairs(value)?.iter();
                pairs.map(|&[name, item]| Ok((pickle.text(name)?, item))).collect::<Result<_>>()?
            }
        };
        for (part, item) in parts {
            if arrays.len() == MAX_ARRAYS {
                return Err(Error::kind("more than 10,000 arrays", "the layers of a network"));
            }
            arrays.push((key.clone(), part, pickle.array(item)?));
        }
    }
    Ok(arrays)
}

#[derive(Default)]
struct Pickle<'a> {
    rest: &'a [u8],
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    /// The height of the stack at each mark.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

impl<'a> Pickle<'a> {
    /// Builds the values, and returns the pickled one.
    fn run(&mut self) -> Result<Id> {
        loop {
            match self.number(1)? as u8 {
                // Protocol, frame.
                0x80 => _ = self.take(1)?,
                0x95 => _ = self.take(8)?,
                b'.' => return self.pop(),
                b'(' => self.marks.push(self.stack.len()),
                b'c' => {
                    self.line()?;
                    self.line()?;
                    self.push(Other);
                }
                0x93 => {
                    self.pop_n(2)?;
                    self.push(Other);
                }
                b'N' => self.push(Other),
                0x88 => self.push(Int(1)),
                0x89 => self.push(Int(0)),
                b'K' => self.int(1)?,
                b'M' => self.int(2)?,
                b'J' => self.int(4)?,
                0x8a => {
                    let n = self.number(1)?;
                    self.int(n)?;
                }
                b'U' | b'C' | 0x8c => self.bytes(1)?,
                b'T' | b'B' | b'X' => self.bytes(4)?,
                0x8d | 0x8e => self.bytes(8)?,
                b')' | b']' => self.push(List(Vec::new())),
                b'}' => self.push(Dict(Vec::new())),
                n @ 0x85..=0x87 => {
                    let items = self.pop_n(n as usize - 0x84)?;
                    self.push(List(items));
                }
                b't' => {
                    let items = self.pop_to_mark()?;
                    self.push(List(items));
                }
                b'a' => {
                    let items = self.pop_n(1)?;
                    self.extend(items)?;
                }
                b's' => {
                    let items = self.pop_n(2)?;
                    self.extend(items)?;
                }
                b'e' | b'u' => {
                    let items = self.pop_to_mark()?;
                    self.extend(items)?;
                }
                b'q' => self.remember(1)?,
                b'r' => self.remember(4)?,
                0x94 => _ = self.memo.insert(self.memo.len() as u64, self.top()?),
                b'h' => self.recall(1)?,
                b'j' => self.recall(4)?,
                b'R' => {
                    let class_and_arguments = self.pop_n(2)?;
                    self.push(Object(class_and_arguments[1], None));
                }
                b'b' => {
                    let new = self.pop()?;
                    let top = self.top()?;
                    let Object(_, state) = &mut self.values[top] else {
                        return Err(Error::kind(name(&self.values[top]), "an object that gets a state"));
                    };
                    *state = Some(new);
                }
                other => {
                    let found = format!("operation {other:#04x} of a pickle");
                    return Err(Error::kind(found, "only operations that NumPy uses for arrays"));
                }
            }
        }
    }

    fn take(&mut self, n: u64) -> Result<&'a [u8]> {
        let n = usize::try_from(n).unwrap_or(usize::MAX);
        let left = self.rest.len() as u64;
        let (taken, rest) = self.rest.split_at_checked(n).ok_or_else(|| Error::truncated(n as u64, left))?;
        self.rest = rest;
        Ok(taken)
    }

    /// Reads an integer of `n_bytes` bytes, little-endian.
    fn number(&mut self, n_bytes: u64) -> Result<u64> {
        if n_bytes > 8 {
            return Err(Error::kind(format!("a number of {n_bytes} bytes"), "at most 8 bytes"));
        }
        let bytes = self.take(n_bytes)?;
        Ok(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn line(&mut self) -> Result<()> {
        let n = self.rest.iter().position(|&byte| byte == b'\n').unwrap_or(self.rest.len());
        self.take(n as u64 + 1).map(drop)
    }

    fn int(&mut self, n_bytes: u64) -> Result<()> {
        let number = self.number(n_bytes)? as i64;
        // Numbers of one and two bytes have no sign.
        self.push(Int(if n_bytes == 4 { i64::from(number as i32) } else { number }));
        Ok(())
    }

    /// Reads text after its length, an integer of `n_bytes` bytes.
    fn bytes(&mut self, n_bytes: u64) -> Result<()> {
        let n = self.number(n_bytes)?;
        let text = self.take(n)?;
        self.push(Text(text));
        Ok(())
    }

    fn push(&mut self, value: Value<'a>) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn top(&self) -> Result<Id> {
        self.stack.last().copied().ok_or_else(|| damaged("a value on its stack"))
    }

    fn pop(&mut self) -> Result<Id> {
        Ok(self.pop_n(1)?[0])
    }

    fn pop_n(&mut self, n: usize) -> Result<Vec<Id>> {
        let left = self.stack.len().checked_sub(n).ok_or_else(|| damaged("a value on its stack"))?;
        Ok(self.stack.split_off(left))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len());
        Ok(self.stack.split_off(mark.ok_or_else(|| damaged("a mark on its stack"))?))
    }

    /// Appends to the list or dictionary on top of the stack.
    fn extend(&mut self, items: Vec<Id>) -> Result<()> {
        let top = self.top()?;
        let (List(all) | Dict(all)) = &mut self.values[top] else {
            return Err(Error::kind(name(&self.values[top]), "a list or dictionary that gets items"));
        };
        all.extend(items);
        Ok(())
    }

    fn remember(&mut self, n_bytes: u64) -> Result<()> {
        let place = self.number(n_bytes)?;
        self.memo.insert(place, self.top()?);
        Ok(())
    }

    fn recall(&mut self, n_bytes: u64) -> Result<()> {
        let place = self.number(n_bytes)?;
        self.stack.push(*self.memo.get(&place).ok_or_else(|| damaged("a value in its memo"))?);
        Ok(())
    }

    fn list(&self, id: Id) -> Result<&[Id]> {
        match &self.values[id] {
            List(items) => Ok(items),
            other => Err(Error::kind(name(other), "a list")),
        }
    }

    fn pairs(&self, id: Id) -> Result<&[[Id; 2]]> {
        match &self.values[id] {
            Dict(items) => Ok(items.as_chunks().0),
            other => Err(Error::kind(name(other), "a dictionary")),
        }
    }

    fn text(&self, id: Id) -> Result<String> {
        match &self.values[id] {
            Text(text) => Ok(String::from_utf8_lossy(text).into_owned()),
            other => Err(Error::kind(name(other), "a name")),
        }
    }

    fn state(&self, id: Id) -> Result<&[Id]> {
        match self.values[id] {
            Object(_, Some(state)) => self.list(state),
            ref other => Err(Error::kind(name(other), "an array")),
        }
    }

    /// Reads an array of float32. Its state is a version, the shape, the type, whether it is in
    /// Fortran order, and the bytes.
    fn array(&self, id: Id) -> Result<Array<'a>> {
        let &[_, shape, dtype, order, data] = self.state(id)? else {
            return Err(Error::kind("an object", "an array"));
        };
        // The first argument of a type is its kind and size; the second part of its state is the
        // order of bytes.
        let (&Object(args, _), &[_, byte_order, ..]) = (&self.values[dtype], self.state(dtype)?) else {
            return Err(Error::kind("an array without a type", "float32"));
        };
        let kind = self.list(args)?.first().map(|&kind| self.text(kind)).transpose()?.unwrap_or_default();
        let found = self.text(byte_order)? + &kind;
        if found != f32::DTYPE {
            return Err(Error::element_type(&found, f32::NAME));
        }
        let Text(bytes) = self.values[data] else {
            return Err(Error::kind("an array without data", "bytes"));
        };
        let size = |&id: &Id| match self.values[id] {
            Int(n) if n >= 0 => Ok(n as usize),
            ref other => Err(Error::kind(name(other), "the size of a dimension")),
        };
        let shape = self.list(shape)?.iter().map(size).collect::<Result<Vec<_>>>()?;
        Ok(Array { shape, fortran: matches!(self.values[order], Int(1)), bytes })
    }
}

fn damaged(expected: &str) -> Error {
    Error::kind("a damaged pickle", expected)
}

/// Describes a value in an error.
fn name(value: &Value) -> &'static str {
    match value {
        Other => "a class or nothing",
        Int(_) => "a number",
        Text(_) => "text",
        List(_) => "a list",
        Dict(_) => "a dictionary",
        Object(..) => "an object",
    }
}

#[cfg(test)]
pub(crate) mod tests;
