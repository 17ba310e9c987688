//! Benches of the hot paths and the load harness.
