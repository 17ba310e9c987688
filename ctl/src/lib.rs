//! The command line of Cairn.
