use std::{
    net::UdpSocket,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough for what is let through to arrive.
const QUIET: Duration = Duration::from_millis(200);
const PORT: u16 = 4000;

/// Three members, each with a socket in its namespace.
struct Three {
    namespaces: Namespaces,
    sockets: Vec<UdpSocket>,
    asked: AtomicU64,
}

impl Three {
    fn new() -> Self {
        let namespaces = Namespaces::start(3).unwrap();
        let socket = |member: usize| {
            // A socket stays where it was made; the thread is of no more use.
            std::thread::scope(|scope| {
                let made = || {
                    namespaces.members[member].enter().unwrap();
                    UdpSocket::bind((peer_host(member), PORT)).unwrap()
                };
                scope.spawn(made).join().unwrap()
            })
        };
        let sockets = (0..3).map(socket).collect();
        Self { namespaces, sockets, asked: AtomicU64::new(1) }
    }

    /// Whether something that is sent within `time` arrives.
    fn arrives(&self, from: usize, to: usize, time: Duration) -> bool {
        let address = (peer_host(to), PORT);
        let until = Instant::now() + time;
        // Nothing that was sent before is taken for it.
        let expected = self.asked.fetch_add(1, Ordering::Relaxed).to_ne_bytes();
        self.sockets[to].set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        while Instant::now() < until {
            // Without a route it is refused at once.
            let _ = self.sockets[from].send_to(&expected, address);
            let mut bytes = [0; 8];
            while self.sockets[to].recv(&mut bytes).is_ok() {
                if bytes == expected {
                    return true;
                }
            }
        }
        false
    }

    /// Exactly these ways lead where they should.
    fn expect(&self, open: impl Fn(usize, usize) -> bool) {
        for (from, to) in (0..3).flat_map(|from| (0..3).map(move |to| (from, to))).filter(|(from, to)| from != to) {
            let open = open(from, to);
            let time = if open { PATIENCE } else { QUIET };
            assert_eq!(self.arrives(from, to, time), open, "from {from} to {to}");
        }
    }
}

#[test]
fn a_member_that_is_unplugged_reaches_nobody_and_is_reached_by_nobody_until_all_is_healed() {
    let three = Three::new();
    three.expect(|_, _| true);
    for how in [Unplugged::FromBridge, Unplugged::WithoutCarrier, Unplugged::InterfaceDown] {
        three.namespaces.unplug(1, how).unwrap();
        three.expect(|from, to| from != 1 && to != 1);
        three.namespaces.heal().unwrap();
        three.expect(|_, _| true);
    }
}

#[test]
fn members_on_another_bridge_reach_each_other_and_nobody_else() {
    let three = Three::new();
    three.namespaces.set_apart(&[0, 2]).unwrap();
    three.expect(|from, to| from != 1 && to != 1);
    three.namespaces.heal().unwrap();
    three.expect(|_, _| true);
}

#[test]
fn a_way_that_leads_nowhere_is_open_in_the_other_direction() {
    let three = Three::new();
    three.expect(|_, _| true);
    three.namespaces.lose(0, 1).unwrap();
    three.expect(|from, to| (from, to) != (0, 1));
    three.namespaces.heal().unwrap();
    three.expect(|_, _| true);
}

#[test]
fn links_that_blink_come_back() {
    let three = Three::new();
    three.namespaces.blink().unwrap();
    three.expect(|_, _| true);
}

#[test]
fn the_systems_own_links_stay_what_they_are_and_nothing_is_left_behind() {
    let links = || std::fs::read_to_string("/proc/thread-self/net/dev").unwrap().lines().count();
    let before = links();
    let namespaces = Namespaces::start(2).unwrap();
    assert_eq!(links(), before);
    let (paths, inside) =
        (vec![namespaces.path(0).to_owned(), namespaces.path(1).to_owned()], namespaces.switches.path.clone());
    // Two interfaces of a member beside its loopback.
    let output = command_in(&paths[0], "cat").arg("/proc/self/net/dev").output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 2 + 3);
    drop(namespaces);
    assert!(paths.into_iter().chain([inside]).all(|path| !path.exists()));
    assert_eq!(links(), before);
}

#[test]
fn what_cannot_be_done_to_a_link_is_said() {
    let namespace = Namespace::new().unwrap();
    let error = namespace.ip(&["link set nothing up".to_owned()]).unwrap_err();
    assert!(error.to_string().contains("nothing"), "{error:#}");
}
