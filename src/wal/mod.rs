//! WAL and WAL-index formats: bytes in, committed transactions out.
