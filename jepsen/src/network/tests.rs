use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough for bytes that are let through to arrive.
const QUIET: Duration = Duration::from_millis(100);

/// Member 0 is this process, and connects to member 1, which is this process as well.
struct Pair {
    network: Network,
    address: std::net::SocketAddr,
    target: TcpListener,
}

impl Pair {
    fn new() -> Self {
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (front, target) = (bind(), bind());
        let address = front.local_addr().unwrap();
        let port = target.local_addr().unwrap().port();
        let places = vec![Place { listener: bind(), target_port: port }, Place { listener: front, target_port: port }];
        let network = Network::start(places, 1).unwrap();
        network.set_process(0, Some(std::process::id()));
        Self { network, address, target }
    }

    fn connect(&self) -> (TcpStream, TcpStream) {
        let near = TcpStream::connect(self.address).unwrap();
        let far = self.target.accept().unwrap().0;
        for stream in [&near, &far] {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        (near, far)
    }

    /// New connections are carried.
    fn expect_open(&self) {
        let (mut near, mut far) = self.connect();
        near.write_all(b"open").unwrap();
        read(&mut far, "open");
    }

    /// New connections are closed.
    fn expect_closed(&self) {
        let mut new = TcpStream::connect(self.address).unwrap();
        new.set_read_timeout(Some(PATIENCE)).unwrap();
        expect_end(&mut new);
    }
}

fn read(stream: &mut TcpStream, expected: &str) {
    let mut bytes = vec![0; expected.len()];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(String::from_utf8(bytes).unwrap(), expected);
}

/// Nothing comes, for a while.
fn expect_silence(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(QUIET)).unwrap();
    let kind = stream.read(&mut [0]).unwrap_err().kind();
    assert!(matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{kind:?}");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
}

fn expect_end(stream: &mut TcpStream) {
    match stream.read(&mut [0]) {
        Ok(0) => {}
        Ok(_) => panic!("bytes came"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

#[test]
fn bytes_pass_both_ways_and_are_counted_and_strangers_are_not_let_through() {
    let pair = Pair::new();
    let (mut near, mut far) = pair.connect();
    near.write_all(b"there").unwrap();
    read(&mut far, "there");
    far.write_all(b"back").unwrap();
    read(&mut near, "back");
    drop(near);
    expect_end(&mut far);
    assert_eq!((pair.network.delivered(0, 1), pair.network.delivered(1, 0)), (5, 4));
    pair.network.set_process(0, None);
    pair.expect_closed();
}

#[test]
fn a_way_is_cut_in_one_direction_only_and_what_waited_arrives_in_the_end() {
    let pair = Pair::new();
    let (mut near, mut far) = pair.connect();
    pair.network.change(|ways| ways.set(0, 1, Way::Held));
    near.write_all(b"held").unwrap();
    expect_silence(&mut far);
    far.write_all(b"flows").unwrap();
    read(&mut near, "flows");
    // A new connection is no way around it.
    let (mut second, mut second_far) = pair.connect();
    second.write_all(b"held, too").unwrap();
    expect_silence(&mut second_far);
    pair.network.heal();
    read(&mut far, "held");
    read(&mut second_far, "held, too");
}

#[test]
fn what_is_lost_is_gone_and_so_is_its_connection() {
    let pair = Pair::new();
    let (mut near, mut far) = pair.connect();
    pair.network.change(|ways| ways.all(Way::Lost));
    near.write_all(b"lost").unwrap();
    expect_silence(&mut far);
    pair.network.heal();
    expect_end(&mut near);
    expect_end(&mut far);
    pair.expect_open();
}

#[test]
fn closed_ways_end_connections_and_take_no_new_ones() {
    let pair = Pair::new();
    let (mut near, mut far) = pair.connect();
    pair.network.change(|ways| ways.split(|member| member == 0, Way::Closed));
    expect_end(&mut near);
    expect_end(&mut far);
    pair.expect_closed();
    pair.network.heal();
    pair.expect_open();
}

#[test]
fn what_was_sent_late_arrives_although_its_connection_has_ended() {
    let pair = Pair::new();
    let (mut near, mut far) = pair.connect();
    pair.network.change(|ways| ways.all(Way::Late(Duration::from_secs(1))));
    near.write_all(b"late").unwrap();
    // It must have left before the connection ends.
    expect_silence(&mut near);
    pair.network.reset();
    expect_end(&mut near);
    read(&mut far, "late");
    expect_end(&mut far);
}

#[test]
fn a_slow_way_keeps_the_order() {
    let pair = Pair::new();
    let (mut near, mut far) = pair.connect();
    pair.network.change(|ways| ways.all(Way::Slow(Duration::from_millis(20))));
    let sent = (0..50).map(|number| number.to_string()).collect::<Vec<_>>().join(",");
    for piece in sent.as_bytes().chunks(3) {
        near.write_all(piece).unwrap();
    }
    read(&mut far, &sent);
}

#[test]
fn a_member_that_takes_nothing_stops_its_sender_and_can_still_be_cut_off() {
    let pair = Pair::new();
    let (near, mut far) = pair.connect();
    near.set_write_timeout(Some(QUIET)).unwrap();
    let most = 2 * PIPE_CHUNKS_MAX * CHUNK_BYTES + (64 << 20);
    let chunk = vec![0; CHUNK_BYTES];
    let mut sent = 0;
    while (&near).write(&chunk).is_ok_and(|count| count > 0) {
        sent += CHUNK_BYTES;
        assert!(sent < most, "nothing holds the sender up");
    }
    pair.network.reset();
    let mut rest = Vec::new();
    // What the kernel holds may still come, then it is over.
    let _ = far.read_to_end(&mut rest);
    assert!(rest.len() < sent, "all of {sent} bytes arrived");
}
