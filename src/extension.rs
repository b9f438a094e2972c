//! The exported entry points: check the host, wire the rooms, register.
