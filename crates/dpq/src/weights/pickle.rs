//! The little of Python's pickle that NumPy writes a dictionary of arrays in, as `bvlc_alexnet.npy` is one.
//!
//! Nothing is run: a class is a name, and an object is what it would be made of. Values are numbered, so that what a
//! pickle mentions again is the same value.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};

type Id = usize;

#[derive(Debug)]
enum Value<'a> {
    /// None, and classes by their names.
    Other,
    /// A truth value is 0 or 1.
    Int(i64),
    /// A string or bytes.
    Text(&'a [u8]),
    /// A list or tuple.
    List(Vec<Id>),
    /// Keys and values by turns.
    Dict(Vec<Id>),
    /// The arguments of its constructor, and its state.
    Object(Id, Option<Id>),
}
use Value::{Dict, Int, List, Object, Other, Text};

/// An array as it is stored: shape, whether its first axis is the fastest, float32.
pub(super) struct Array<'a> {
    pub(super) shape: Vec<usize>,
    pub(super) fortran: bool,
    pub(super) bytes: &'a [u8],
}

/// Arrays of a file, at most: what is mentioned again and again must not fill the memory.
const MOST: usize = 10_000;

/// Reads an array of one dictionary, whose values are lists of arrays or dictionaries of them: by key, and by place or
/// key.
pub(super) fn read(pickle: &[u8]) -> Result<Vec<(String, String, Array<'_>)>> {
    let mut pickle = Pickle { rest: pickle, ..Pickle::default() };
    let whole = pickle.run()?;
    let &[.., data] = pickle.state(whole)? else { bail!("an array without data") };
    let &[dict] = pickle.list(data)? else { bail!("an array of several objects, expected one dictionary") };
    let mut arrays = Vec::new();
    for &[key, value] in pickle.pairs(dict)? {
        let key = pickle.text(key)?;
        if let List(items) = &pickle.values[value] {
            for (i, &item) in items.iter().enumerate() {
                ensure!(arrays.len() < MOST, "more than {MOST} arrays, the file is damaged");
                arrays.push((key.clone(), i.to_string(), pickle.array(item)?));
            }
        } else {
            for &[name, item] in pickle.pairs(value)? {
                ensure!(arrays.len() < MOST, "more than {MOST} arrays, the file is damaged");
                arrays.push((key.clone(), pickle.text(name)?, pickle.array(item)?));
            }
        }
    }
    Ok(arrays)
}

#[derive(Default)]
struct Pickle<'a> {
    rest: &'a [u8],
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    /// How high the stack was at each mark.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

impl<'a> Pickle<'a> {
    /// Builds the values, and returns the one that is pickled.
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
                    let of = self.pop_n(2)?;
                    self.push(Object(of[1], None));
                }
                b'b' => {
                    let of = self.pop()?;
                    let top = self.top()?;
                    let Object(_, state) = &mut self.values[top] else {
                        bail!("a state of what is no object")
                    };
                    *state = Some(of);
                }
                other => {
                    bail!("operation {other:#04x} of a pickle, expected those that NumPy needs for arrays")
                }
            }
        }
    }

    fn take(&mut self, n: u64) -> Result<&'a [u8]> {
        let n = usize::try_from(n).unwrap_or(usize::MAX);
        let (taken, rest) = self.rest.split_at_checked(n).context("the pickle ends too early")?;
        self.rest = rest;
        Ok(taken)
    }

    /// A whole number of so many bytes, little-endian.
    fn number(&mut self, n_bytes: u64) -> Result<u64> {
        let bytes = self.take(n_bytes)?;
        ensure!(bytes.len() <= 8, "a number of {} bytes, expected at most 8", bytes.len());
        Ok(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn line(&mut self) -> Result<()> {
        let n = self.rest.iter().position(|&byte| byte == b'\n').context("the pickle ends too early")?;
        self.take(n as u64 + 1)?;
        Ok(())
    }

    fn int(&mut self, n_bytes: u64) -> Result<()> {
        let number = self.number(n_bytes)? as i64;
        // Of the sizes that occur those of one and two bytes have no sign.
        self.push(Int(if n_bytes == 4 { i64::from(number as i32) } else { number }));
        Ok(())
    }

    /// Text behind its length, a number of so many bytes.
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
        self.stack.last().copied().context("the pickle takes what is not there")
    }

    fn pop(&mut self) -> Result<Id> {
        Ok(self.pop_n(1)?[0])
    }

    fn pop_n(&mut self, n: usize) -> Result<Vec<Id>> {
        let left = self.stack.len().checked_sub(n).context("the pickle takes what is not there")?;
        Ok(self.stack.split_off(left))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len());
        Ok(self.stack.split_off(mark.context("the pickle lacks a mark")?))
    }

    /// Adds to the list or dictionary on top.
    fn extend(&mut self, items: Vec<Id>) -> Result<()> {
        let top = self.top()?;
        let (List(all) | Dict(all)) = &mut self.values[top] else { bail!("items of what is no list") };
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
        self.stack.push(*self.memo.get(&place).context("the pickle recalls what is not there")?);
        Ok(())
    }

    fn list(&self, id: Id) -> Result<&[Id]> {
        match &self.values[id] {
            List(items) => Ok(items),
            other => bail!("{}, expected a list", name(other)),
        }
    }

    fn pairs(&self, id: Id) -> Result<&[[Id; 2]]> {
        match &self.values[id] {
            Dict(items) => Ok(items.as_chunks().0),
            other => bail!("{}, expected a dictionary", name(other)),
        }
    }

    fn text(&self, id: Id) -> Result<String> {
        match &self.values[id] {
            Text(text) => Ok(String::from_utf8_lossy(text).into_owned()),
            other => bail!("{}, expected a name", name(other)),
        }
    }

    fn state(&self, id: Id) -> Result<&[Id]> {
        match self.values[id] {
            Object(_, Some(state)) => self.list(state),
            ref other => bail!("{}, expected an array", name(other)),
        }
    }

    /// An array of float32: its state is a version, the shape, the type, whether it is in Fortran order, the bytes.
    fn array(&self, id: Id) -> Result<Array<'a>> {
        let &[_, shape, dtype, order, data] = self.state(id)? else { bail!("an object, expected an array") };
        // Of a type the constructor has the kind and the size, the second part of the state is the order of bytes.
        let (&Object(args, _), &[_, order_of_bytes, ..]) = (&self.values[dtype], self.state(dtype)?) else {
            bail!("an array without a type")
        };
        let kind = self.list(args)?.first().map(|&kind| self.text(kind)).transpose()?.unwrap_or_default();
        let dtype = self.text(order_of_bytes)? + &kind;
        ensure!(dtype == "<f4", "array holds {dtype}, expected float32 (convert it with .astype('float32'))");
        let Text(bytes) = self.values[data] else { bail!("an array without data") };
        let size = |&id: &Id| match self.values[id] {
            Int(n) if n >= 0 => Ok(n as usize),
            _ => bail!("an array whose shape is no list of numbers"),
        };
        let shape = self.list(shape)?.iter().map(size).collect::<Result<Vec<_>>>()?;
        Ok(Array { shape, fortran: matches!(self.values[order], Int(1)), bytes })
    }
}

/// What a value is, in words.
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
pub(super) mod tests {
    use super::*;

    /// An array as NumPy for Python 2 pickles it.
    fn array(shape: &[u8], dtype: &str, fortran: bool, data: &[u8]) -> Vec<u8> {
        let shape: Vec<u8> = shape.iter().flat_map(|&n| [b'K', n]).collect();
        let [order, kind] = [&dtype[..1], &dtype[1..]].map(str::as_bytes);
        [
            &b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02"[..],
            b"K\x00\x85q\x03U\x01bq\x04\x87q\x05Rq\x06(K\x01(",
            &shape,
            b"tq\x07cnumpy\ndtype\nq\x08U\x02",
            kind,
            b"q\x09K\x00K\x01\x87q\x0aRq\x0b(K\x03U\x01",
            order,
            b"q\x0cNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0db",
            if fortran { &b"\x88"[..] } else { b"\x89" },
            data,
            b"tq\x0eb",
        ]
        .concat()
    }

    /// Two layers, one of a list of arrays, one of a dictionary.
    pub(in crate::weights) fn layers(dtype: &str) -> Vec<u8> {
        let weights = array(&[2, 1], dtype, true, b"T\x08\x00\x00\x00abcdefgh");
        let biases = array(&[1], "<f4", false, b"U\x04ijkl");
        let dict = [
            b"]q\x10}q\x11(U\x03fc6q\x12]q\x13(",
            &weights[..],
            &biases,
            b"eU\x03fc7q\x14}q\x15U\x06biasesq\x16",
            &biases,
            b"sua",
        ];
        [b"\x80\x02", &array(&[], "|O8", false, &dict.concat())[..], b"."].concat()
    }

    #[test]
    fn a_dictionary_of_arrays_is_read() {
        let pickle = layers("<f4");
        let found: Vec<_> = read(&pickle)
            .unwrap()
            .into_iter()
            .map(|(layer, part, Array { shape, fortran, bytes })| {
                (layer + "." + &part, shape, fortran, bytes)
            })
            .collect();
        let expected: [(String, Vec<usize>, bool, &[u8]); 3] = [
            ("fc6.0".to_owned(), vec![2, 1], true, b"abcdefgh"),
            ("fc6.1".to_owned(), vec![1], false, b"ijkl"),
            ("fc7.biases".to_owned(), vec![1], false, b"ijkl"),
        ];
        assert_eq!(found, expected);
        let error = read(&layers("<f8")).err().unwrap().to_string();
        assert_eq!(error, "array holds <f8, expected float32 (convert it with .astype('float32'))");
    }

    #[test]
    fn damage_and_other_pickles_are_errors() {
        let pickle = layers("<f4");
        for n in 0..pickle.len() {
            assert!(read(&pickle[..n]).is_err());
            // Other names may still be a dictionary of arrays; nothing panics.
            for byte in [0, b'.', b'(', b'e', b'R', b'b', b'h', 0x87, 0xff] {
                let mut damaged = pickle.clone();
                damaged[n] = byte;
                _ = read(&damaged);
            }
        }
        let error = |pickle: &[u8]| read(pickle).err().unwrap().to_string();
        assert_eq!(error(b"\x80\x02cos\nsystem\nU\x02ls\x85R."), "an object, expected an array");
        assert!(error(b"\x80\x05\x96").starts_with("operation 0x96 of a pickle"));
    }
}
