//! TensorBoard's event files: the part that numbers over epochs need.
//!
//! A file is a sequence of records (TFRecord): the length of the data, its checksum, the data,
//! their checksum. The data are protocol buffers: `Event { wall_time = 1, step = 2, file_version =
//! 3, summary = 5 }`, `Summary { value = 1 }`, `Value { tag = 1, simple_value = 2 }`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

/// The prefix of event file names. The time of creation follows, so that names ascend as
/// TensorBoard expects.
const PREFIX: &str = "events.out.tfevents.";

pub(super) struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// Creates a file in the folder of a run and removes the files of an earlier run. If this run
    /// resumes that run at the step `resumed`, truncates them before it instead: the interrupted
    /// run may have written steps after its checkpoint.
    pub(super) fn create(dir: &Path, resumed: Option<usize>) -> Result<Self> {
        for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX)) {
                let replaced = match resumed {
                    None => fs::remove_file(&path),
                    Some(step) => cut(&path, step as u64),
                };
                replaced.with_context(|| format!("cannot replace {}", path.display()))?;
            }
        }
        let seconds = wall_time();
        let path = dir.join(format!("{PREFIX}{seconds:.6}.dpq"));
        let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let mut events = Self { path, file };
        let mut event = field(1, EIGHT_BYTES, &seconds.to_le_bytes());
        event.extend(bytes(3, b"brain.Event:2"));
        events.write(&event)?;
        Ok(events)
    }

    /// Adds named numbers at a step.
    pub(super) fn push(&mut self, step: usize, scalars: &[(String, f64)]) -> Result<()> {
        let values = scalars.iter().flat_map(|(tag, value)| {
            let mut message = bytes(1, tag.as_bytes());
            message.extend(field(2, FOUR_BYTES, &(*value as f32).to_le_bytes()));
            bytes(1, &message)
        });
        let mut event = field(1, EIGHT_BYTES, &wall_time().to_le_bytes());
        event.extend(field(2, VARINT, &varint(step as u64)));
        event.extend(bytes(5, &values.collect::<Vec<_>>()));
        self.write(&event)
    }

    /// Writes a record in one call, so that a reader does not see half of it.
    fn write(&mut self, data: &[u8]) -> Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend(masked_crc(&length).to_le_bytes());
        record.extend(data);
        record.extend(masked_crc(data).to_le_bytes());
        self.file.write_all(&record).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// Truncates a file before its first event of `step` or later, or before an incomplete record.
fn cut(path: &Path, step: u64) -> io::Result<()> {
    let bytes = fs::read(path)?;
    let mut end = 0;
    while let Some(size) = bytes[end..].first_chunk().map(|&length| u64::from_le_bytes(length)) {
        // The length, its checksum, the data, their checksum.
        let next = usize::try_from(size).ok().and_then(|size| end.checked_add(size)?.checked_add(16));
        let Some(record) = next.and_then(|next| bytes.get(end..next)) else { break };
        if event_step(&record[12..record.len() - 4]) >= step {
            break;
        }
        end += record.len();
    }
    if end < bytes.len() {
        File::options().write(true).open(path)?.set_len(end as u64)?;
    }
    Ok(())
}

/// Returns the step of an event that this module wrote; 0 for the first event, which has none.
fn event_step(event: &[u8]) -> u64 {
    match event.get(9..) {
        Some([first, rest @ ..]) if field(2, VARINT, &[]) == [*first] => {
            let last = rest.iter().position(|byte| *byte < 0x80).map_or(0, |at| at + 1).min(9);
            rest[..last].iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f))
        }
        _ => 0,
    }
}

fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The masked checksum of a record: rotated and offset, since the data may contain checksums
/// themselves.
fn masked_crc(bytes: &[u8]) -> u32 {
    dpq_file::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The kinds of values.
const VARINT: u8 = 0;
const EIGHT_BYTES: u8 = 1;
const BYTES: u8 = 2;
const FOUR_BYTES: u8 = 5;

/// Encodes a field: its number, below 16, the kind of its value, and the value.
fn field(number: u8, kind: u8, value: &[u8]) -> Vec<u8> {
    [&[number << 3 | kind], value].concat()
}

fn bytes(number: u8, value: &[u8]) -> Vec<u8> {
    field(number, BYTES, &[&varint(value.len() as u64), value].concat())
}

/// Encodes seven bits per byte, the lowest first.
fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field's value, as any reader of protocol buffers sees it.
    #[derive(Debug, PartialEq)]
    enum Field {
        Int(u64),
        Fixed64([u8; 8]),
        Bytes(Vec<u8>),
        Fixed32([u8; 4]),
    }

    fn take(input: &mut &[u8], n: usize) -> Vec<u8> {
        let (head, rest) = input.split_at(n);
        *input = rest;
        head.to_vec()
    }

    fn read_varint(input: &mut &[u8]) -> u64 {
        let mut value = 0;
        for place in 0.. {
            let byte = take(input, 1)[0];
            value += u64::from(byte % 128) * 128u64.pow(place);
            if byte < 128 {
                break;
            }
        }
        value
    }

    fn message(mut input: &[u8]) -> Vec<(u64, Field)> {
        let mut fields = Vec::new();
        while !input.is_empty() {
            let key = read_varint(&mut input);
            let value = match key % 8 {
                0 => Field::Int(read_varint(&mut input)),
                1 => Field::Fixed64(take(&mut input, 8).try_into().unwrap()),
                2 => {
                    let n = read_varint(&mut input);
                    Field::Bytes(take(&mut input, n as usize))
                }
                5 => Field::Fixed32(take(&mut input, 4).try_into().unwrap()),
                kind => panic!("no field is written as {kind}"),
            };
            fields.push((key / 8, value));
        }
        fields
    }

    /// CRC32C bit by bit, and the mask from its definition.
    fn slow_masked_crc(bytes: &[u8]) -> u32 {
        let mut crc = !0u32;
        for &byte in bytes {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = if crc % 2 == 1 { (crc / 2) ^ 0x82f6_3b78 } else { crc / 2 };
            }
        }
        let crc = !crc;
        (crc / 0x8000 + crc % 0x8000 * 0x2_0000).wrapping_add(0xa282_ead8)
    }

    fn records(mut input: &[u8]) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        while !input.is_empty() {
            let length = take(&mut input, 8);
            assert_eq!(take(&mut input, 4), slow_masked_crc(&length).to_le_bytes());
            let data = take(&mut input, u64::from_le_bytes(length.try_into().unwrap()) as usize);
            assert_eq!(take(&mut input, 4), slow_masked_crc(&data).to_le_bytes());
            records.push(data);
        }
        records
    }

    fn files(dir: &Path) -> Vec<PathBuf> {
        let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    }

    #[test]
    fn another_reader_finds_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let before = wall_time();
        let mut events = EventFile::create(dir.path(), None).unwrap();
        events.push(0, &[("loss/margin".to_owned(), 0.5)]).unwrap();
        let long = "a".repeat(200);
        events.push(300, &[(long.clone(), -1e-3), ("b".to_owned(), f64::from(f32::MAX))]).unwrap();

        let [path] = &files(dir.path())[..] else { panic!("one file") };
        let records = records(&fs::read(path).unwrap());
        assert_eq!(records.len(), 3);
        let mut found = Vec::new();
        for (i, record) in records.iter().enumerate() {
            let fields = message(record);
            let (1, Field::Fixed64(time)) = &fields[0] else { panic!("{fields:?}") };
            assert!((before..before + 60.0).contains(&f64::from_le_bytes(*time)));
            if i == 0 {
                assert_eq!(fields[1..], [(3, Field::Bytes(b"brain.Event:2".to_vec()))]);
                continue;
            }
            let [(2, Field::Int(step)), (5, Field::Bytes(summary))] = &fields[1..] else {
                panic!("{fields:?}")
            };
            for (field, value) in message(summary) {
                let (1, Field::Bytes(value)) = (field, value) else { panic!("a summary has values") };
                let value = message(&value);
                let [(1, Field::Bytes(tag)), (2, Field::Fixed32(number))] = &value[..] else {
                    panic!("{value:?}")
                };
                let tag = String::from_utf8(tag.clone()).unwrap();
                found.push((*step, tag, f32::from_le_bytes(*number)));
            }
        }
        let expected =
            [(0, "loss/margin".to_owned(), 0.5), (300, long, -1e-3), (300, "b".to_owned(), f32::MAX)];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_an_interrupted_run_lost_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let mut events = EventFile::create(dir.path(), None).unwrap();
        for step in [1, 2, 127, 128, 300, 20_000] {
            events.push(step, &[("a".to_owned(), 0.5)]).unwrap();
        }
        let path = &files(dir.path())[0];
        let n_records = || records(&fs::read(path).unwrap()).len();
        let whole = fs::read(path).unwrap();
        for (step, n) in [(20_001, 7), (20_000, 6), (300, 5), (129, 5), (128, 4), (3, 3), (2, 2), (1, 1)] {
            cut(path, step).unwrap();
            assert_eq!(n_records(), n, "before step {step}");
        }
        fs::write(path, &whole[..whole.len() - 1]).unwrap();
        cut(path, 30_000).unwrap();
        assert_eq!(n_records(), 6, "without half a record");
        for bytes in [&[0xff; 30][..], &[0; 3], &[]] {
            fs::write(path, bytes).unwrap();
            cut(path, 1).unwrap();
            assert_eq!(fs::read(path).unwrap(), b"");
        }
    }

    #[test]
    fn a_run_that_goes_on_adds_a_file_and_a_new_one_removes_the_old() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("model.safetensors"), "").unwrap();
        EventFile::create(dir.path(), None).unwrap();
        EventFile::create(dir.path(), Some(1)).unwrap();
        assert_eq!(files(dir.path()).len(), 3);
        EventFile::create(dir.path(), None).unwrap();
        assert_eq!(files(dir.path()).len(), 2);
    }
}
