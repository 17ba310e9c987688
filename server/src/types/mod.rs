//! What every layer may know: a leaf that imports no other module of this crate.

mod version;

pub use version::{API, API_VERSION, STORAGE_VERSION, understands};
