//! The write flow: capture, publish, snapshot, resume.
