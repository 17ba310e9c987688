//! Wire types and error catalogue of the etcd v3 API as Cairn serves it.
