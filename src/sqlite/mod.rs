//! The only room with `unsafe`: trampolines, the host's API, the base VFS, functions.
