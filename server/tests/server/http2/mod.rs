//! HTTP/2 as clients really speak it: much at once, late, and given up halfway. None of it ends a connection with the other calls on it, and none of it
//! takes more memory than it may.

mod healthy;
mod hostile;
mod leases;
mod names;
mod python;
mod raw;
