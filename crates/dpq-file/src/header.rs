//! The header as this crate writes it: sorted keys, sections in the order of their names, no gaps.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use safetensors::tensor::TensorInfo;
use serde_json::json;

/// Returns the length field and the JSON header, padded so that sections begin at a multiple of 8.
pub(crate) fn encode(
    metadata: &BTreeMap<String, String>,
    sections: &BTreeMap<String, TensorInfo>,
) -> Vec<u8> {
    let mut json = format!("{{\"__metadata__\":{}", json!(metadata));
    for (name, TensorInfo { dtype, shape, data_offsets: (begin, end) }) in sections {
        let (name, dtype) = (json!(name), json!(dtype));
        write!(json, ",{name}:{{\"dtype\":{dtype},\"shape\":{shape:?},\"data_offsets\":[{begin},{end}]}}")
            .expect("writing to a string");
    }
    json.push('}');
    json.extend(std::iter::repeat_n(' ', json.len().next_multiple_of(8) - json.len()));
    [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat()
}
