//! The header as this crate writes it: sorted keys, sections in the order of their names, no gaps.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use safetensors::Dtype;
use serde_json::json;

/// The type, shape and number of bytes of each section by name, in the order in which sections lie in the file.
pub(crate) type Layout = BTreeMap<String, (Dtype, Vec<usize>, usize)>;

/// Returns the length field and the JSON header, padded so that sections begin at a multiple of 8.
pub(crate) fn encode(metadata: &BTreeMap<String, String>, layout: &Layout) -> Vec<u8> {
    let mut json = format!("{{\"__metadata__\":{}", json!(metadata));
    let mut begin = 0;
    for (name, (dtype, shape, len)) in layout {
        let (name, dtype, end) = (json!(name), json!(dtype), begin + len);
        write!(json, ",{name}:{{\"dtype\":{dtype},\"shape\":{shape:?},\"data_offsets\":[{begin},{end}]}}")
            .expect("writing to a string");
        begin = end;
    }
    json.push('}');
    json.extend(std::iter::repeat_n(' ', json.len().next_multiple_of(8) - json.len()));
    [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat()
}
