//! Keys with their history.

pub mod index;
pub mod revision;
