//! What clients call the server by. Its value does not matter: they have reached it.

use super::{
    super::support::TestServer,
    raw::{DATA, END_HEADERS, END_STREAM, HEADERS, RANGE, Raw, field, frame, message, range},
};

/// As clients in Go, Java and with gRPC core make it of endpoints and targets.
const NAMES: [&str; 14] = [
    "127.0.0.1:2379",
    "user:password@127.0.0.1:2379",
    "",
    "127.0.0.1:2379/",
    "http://127.0.0.1:2379",
    "127.0.0.1:2379,127.0.0.2:2379",
    "127.0.0.1:2379%2C127.0.0.2:2379",
    "[::1]:2379,[::2]:2379",
    "%5B::1%5D:2379",
    "fe80::1%25eth0",
    "100%",
    "#initially=[http://127.0.0.1:2379]",
    "etcd cluster",
    "/var/run/etcd.sock",
];

/// Ways to write the field: by its index, or its name in full, to be indexed or not.
fn spelled(first: u8, in_full: bool, value: &str) -> Vec<u8> {
    let mut out = vec![if in_full { first } else { first | 1 }];
    if in_full {
        out.push(10);
        out.extend(b":authority");
    }
    out.push(value.len() as u8);
    out.extend(value.bytes());
    out
}

/// A request's head with the name of the server as it is written, before the other pseudo-headers or after them.
fn head(name: &[u8], first: bool) -> Vec<u8> {
    let path = [&[0x04, RANGE.len() as u8][..], RANGE.as_bytes()].concat();
    let others = [&[0x83, 0x86][..], &path].concat();
    let pseudo = if first { [name, &others].concat() } else { [&others, name].concat() };
    [pseudo, field("content-type", "application/grpc")].concat()
}

#[tokio::test]
async fn a_server_may_be_called_by_any_name_in_any_spelling() {
    let server = TestServer::start().await;
    let mut raw = Raw::connect(server.addr()).await;
    let mut stream = 1;
    for name in NAMES {
        for (form, in_full) in [(0x00, false), (0x10, false), (0x40, false), (0x00, true), (0x10, true), (0x40, true)] {
            for first in [true, false] {
                let spelled = spelled(form, in_full, name);
                let mut heads = vec![head(&spelled, first)];
                if form == 0x40 {
                    // What went into the dynamic table is its newest entry.
                    heads.push(head(&[0xbe], first));
                }
                for head in heads {
                    raw.write(&frame(HEADERS, END_HEADERS, stream, &head)).await;
                    raw.write(&frame(DATA, END_STREAM, stream, &message(&range("key")))).await;
                    let what = format!("{name:?} {form} {in_full} {first}");
                    raw.read_until(&what, |seen| seen.of(stream) == 1).await;
                    stream += 2;
                }
            }
        }
    }
    assert_eq!(raw.seen.resets, 0);
}

/// Wherever the head is cut.
#[tokio::test]
async fn a_name_may_come_in_pieces() {
    let server = TestServer::start().await;
    let mut raw = Raw::connect(server.addr()).await;
    let mut stream = 1;
    for name in ["", "127.0.0.1:2379,127.0.0.2:2379/"] {
        let len = frame(HEADERS, END_HEADERS, stream, &head(&spelled(0, true, name), true)).len();
        for cut in 1..len {
            let head = frame(HEADERS, END_HEADERS, stream, &head(&spelled(0, true, name), true));
            let (before, after) = head.split_at(cut);
            raw.write(before).await;
            // What was written before is read by the time that this is answered.
            tokio::task::yield_now().await;
            raw.write(after).await;
            raw.write(&frame(DATA, END_STREAM, stream, &message(&range("key")))).await;
            raw.read_until(&format!("{name:?} cut at {cut}"), |seen| seen.of(stream) == 1).await;
            stream += 2;
        }
    }
}
