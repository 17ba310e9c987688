//! The program as a whole, most of it against a genuine etcd and beside a genuine etcdctl; see [`referee`].

mod check_perf;
mod compared;
mod leases;
mod offline;
mod referee;
mod tls;
mod tour;
