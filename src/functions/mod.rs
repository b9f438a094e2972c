//! SQL functions: parse arguments, call a room, format the answer.
