//! Retrieval metrics with a stated rule: mean average precision, precision, recall
