//! Codebooks of Deep Progressive Quantization: encode, decode, lookup tables, residual k-means
