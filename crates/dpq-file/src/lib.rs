//! Safetensors files that are memory-mapped, checked and written atomically
