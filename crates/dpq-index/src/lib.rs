//! Exact search over nested codes at any code length, memory-mapped
