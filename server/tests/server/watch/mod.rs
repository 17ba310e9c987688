//! Watches over real connections: one test for each guarantee and for each rule of the wire contract.

pub mod client;
mod guarantees;
mod input;
mod rules;
mod scale;
