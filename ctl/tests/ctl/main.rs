//! The program as a whole, most of it against a genuine etcd and beside a genuine etcdctl; see [`referee`].

mod check_perf;
mod compared;
mod leases;
mod locks;
mod mirrors;
mod offline;
mod referee;
mod running;
mod tls;
mod tour;
mod watches;
