//! Routes an open to a role and implements its file methods.
