//! The program as a whole, most of it against genuine servers and ours, beside a genuine etcdctl; see [`referee`].

mod audit;
mod check_datascale;
mod check_perf;
mod clusters;
mod compared;
mod corruption;
mod leases;
mod locks;
mod mirrors;
mod newest;
mod offline;
mod referee;
mod running;
mod signed_tokens;
mod sockets;
mod tls;
mod tour;
mod users;
mod watches;
