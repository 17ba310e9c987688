//! The API is whole: the descriptors name every service and method, and every name on the wire is the contract's.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

use cairn_proto::FILE_DESCRIPTOR_SET;
use prost::Message;

/// As much of `google.protobuf.FileDescriptorSet` as the tests look at.
#[derive(prost::Message)]
struct Set {
    #[prost(message, repeated, tag = "1")]
    files: Vec<File>,
}

#[derive(prost::Message)]
struct File {
    #[prost(string, tag = "2")]
    package: String,
    #[prost(message, repeated, tag = "4")]
    messages: Vec<MessageType>,
    #[prost(message, repeated, tag = "6")]
    services: Vec<Service>,
}

#[derive(prost::Message)]
struct MessageType {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    fields: Vec<Field>,
}

#[derive(prost::Message)]
struct Field {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "3")]
    number: i32,
}

#[derive(prost::Message)]
struct Service {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    methods: Vec<Method>,
}

#[derive(prost::Message)]
struct Method {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bool, tag = "5")]
    client_streams: bool,
    #[prost(bool, tag = "6")]
    server_streams: bool,
}

fn descriptors() -> Set {
    Set::decode(FILE_DESCRIPTOR_SET).unwrap()
}

/// `>` marks a stream of the client, `<` one of the server.
const SERVICES: [(&str, &str); 9] = [
    ("etcdserverpb.KV", "Range <RangeStream Put DeleteRange Txn Compact"),
    ("etcdserverpb.Watch", "><Watch"),
    ("etcdserverpb.Lease", "LeaseGrant LeaseRevoke ><LeaseKeepAlive LeaseTimeToLive LeaseLeases"),
    ("etcdserverpb.Cluster", "MemberAdd MemberRemove MemberUpdate MemberList MemberPromote"),
    ("etcdserverpb.Maintenance", "Alarm Status Defragment Hash HashKV <Snapshot MoveLeader Downgrade"),
    (
        "etcdserverpb.Auth",
        "AuthEnable AuthDisable AuthStatus Authenticate UserAdd UserGet UserList UserDelete \
         UserChangePassword UserGrantRole UserRevokeRole RoleAdd RoleGet RoleList RoleDelete \
         RoleGrantPermission RoleRevokePermission",
    ),
    ("v3lockpb.Lock", "Lock Unlock"),
    ("v3electionpb.Election", "Campaign Proclaim Leader <Observe Resign"),
    ("grpc.health.v1.Health", "Check <Watch List"),
];

#[test]
fn the_descriptors_hold_all_49_methods_and_health() {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for file in descriptors().files {
        for service in file.services {
            let methods = service.methods.iter().map(|method| {
                let client = if method.client_streams { ">" } else { "" };
                let server = if method.server_streams { "<" } else { "" };
                format!("{client}{server}{}", method.name)
            });
            found.push((format!("{}.{}", file.package, service.name), methods.collect()));
        }
    }
    found.sort();
    let mut wanted: Vec<(String, Vec<String>)> = SERVICES
        .iter()
        .map(|(service, methods)| {
            let methods = methods.split_whitespace().map(str::to_owned).collect();
            ((*service).to_owned(), methods)
        })
        .collect();
    wanted.sort();
    assert_eq!(found, wanted);
    assert_eq!(wanted.iter().map(|(_, methods)| methods.len()).sum::<usize>(), 49 + 3);
}

#[test]
fn fields_newer_than_3_5_have_their_numbers() {
    let set = descriptors();
    let number = |message: &str, field: &str| {
        let messages = set.files.iter().flat_map(|file| &file.messages);
        let mut fields = messages.filter(|m| m.name == message).flat_map(|m| &m.fields);
        fields.find(|f| f.name == field).map(|f| f.number)
    };
    assert_eq!(number("HashKVResponse", "hash_revision"), Some(4));
    assert_eq!(number("SnapshotResponse", "version"), Some(4));
    assert_eq!(number("StatusResponse", "storageVersion"), Some(11));
    assert_eq!(number("StatusResponse", "dbSizeQuota"), Some(12));
    assert_eq!(number("StatusResponse", "downgradeInfo"), Some(13));
    assert_eq!(number("DowngradeInfo", "enabled"), Some(1));
    assert_eq!(number("DowngradeInfo", "targetVersion"), Some(2));
    assert_eq!(number("RangeStreamResponse", "range_response"), Some(1));
}

#[test]
fn the_descriptors_keep_the_names_of_the_wire() {
    let set = descriptors();
    let members = set.files.iter().flat_map(|file| &file.messages);
    let member = members.into_iter().find(|message| message.name == "Member").unwrap();
    let names: Vec<&str> = member.fields.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names, ["ID", "name", "peerURLs", "clientURLs", "isLearner"]);
}
