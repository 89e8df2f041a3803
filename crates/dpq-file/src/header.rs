//! The header as this crate writes it: sorted keys, sections in the order of their names, no gaps.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use safetensors::Dtype;

/// The type and shape of each section by name, in the order in which sections lie in the file.
pub(crate) type Layout = BTreeMap<String, (Dtype, Vec<usize>, usize)>;

/// The length field and the JSON header, padded so that sections begin at a multiple of eight.
pub(crate) fn encode(metadata: &BTreeMap<String, String>, layout: &Layout) -> Vec<u8> {
    let mut json = format!("{{\"__metadata__\":{}", quote_map(metadata));
    let mut begin = 0;
    for (name, (dtype, shape, len)) in layout {
        let end = begin + len;
        write!(
            json,
            ",{}:{{\"dtype\":\"{}\",\"shape\":{shape:?},\"data_offsets\":[{begin},{end}]}}",
            quote(name),
            dtype_name(*dtype),
        )
        .expect("writing to a string");
        begin = end;
    }
    json.push('}');
    json.extend(std::iter::repeat_n(' ', json.len().next_multiple_of(8) - json.len()));
    [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat()
}

fn quote_map(map: &BTreeMap<String, String>) -> String {
    serde_json::to_string(map).expect("a map of strings is JSON")
}

fn quote(text: &str) -> String {
    serde_json::to_string(text).expect("a string is JSON")
}

/// The name that the format gives a type.
fn dtype_name(dtype: Dtype) -> String {
    serde_json::to_value(dtype)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .expect("types have names")
}
