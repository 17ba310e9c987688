//! Compiles the .proto files into Rust types and into the descriptor set that reflection serves.

use std::{env, error::Error, path::PathBuf};

use tonic_prost_build::{Config, FileDescriptorSet};

const FILES: [&str; 6] = [
    "proto/mvccpb/kv.proto",
    "proto/authpb/auth.proto",
    "proto/etcdserverpb/rpc.proto",
    "proto/v3lockpb/lock.proto",
    "proto/v3electionpb/election.proto",
    "proto/grpc/health/v1/health.proto",
];
/// What members say to each other; no client sees it, so reflection does not show it.
const PEER_FILES: [&str; 1] = ["proto/cairn/peer.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = PathBuf::from(env::var("OUT_DIR")?).join("cairn.descriptors");

    let mut set = Config::new().file_descriptor_set_path(descriptors).load_fds(&FILES, &["proto"])?;
    name_fields_as_rust_would(&mut set);

    tonic_prost_build::configure().bytes(".").compile_fds(set)?;

    let set = Config::new().load_fds(&PEER_FILES, &["proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(set)?;
    Ok(())
}

/// `peerURLs` would become `peer_ur_ls`. The descriptor set on disk, written before, keeps the names of the wire contract.
fn name_fields_as_rust_would(set: &mut FileDescriptorSet) {
    for message in set.file.iter_mut().flat_map(|file| &mut file.message_type) {
        for field in &mut message.field {
            match field.name() {
                "peerURLs" => field.name = Some("peer_urls".into()),
                "clientURLs" => field.name = Some("client_urls".into()),
                _ => {}
            }
        }
    }
}
