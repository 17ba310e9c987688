//! Fault injection: crash tests, differential tests and checkers.
