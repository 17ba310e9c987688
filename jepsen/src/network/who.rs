//! Who connects: the process that owns the other end of a socket.

use std::{fs, net::SocketAddr};

/// Which of these processes has the other end of a connection between `theirs` and `ours`, both of them on this machine.
pub(super) fn owner(theirs: SocketAddr, ours: SocketAddr, processes: &[Option<u32>]) -> Option<usize> {
    let inode = inode(&fs::read_to_string("/proc/net/tcp").ok()?, theirs, ours)?;
    let socket = format!("socket:[{inode}]");
    processes.iter().position(|process| process.is_some_and(|pid| has_open(pid, &socket)))
}

/// The inode of the socket that is bound to `local` and connected to `remote`, in the system's list of sockets.
fn inode(list: &str, local: SocketAddr, remote: SocketAddr) -> Option<u64> {
    let (local, remote) = (as_listed(local)?, as_listed(remote)?);
    list.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let found = words.nth(1)? == local && words.next()? == remote;
        // After the addresses: state, queues, timer, retransmissions, user, time-out.
        let inode = words.nth(6)?;
        found.then(|| inode.parse().ok()).flatten()
    })
}

/// An address as the list has it: the four bytes as a number in this machine's order.
fn as_listed(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else { return None };
    Some(format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port()))
}

fn has_open(pid: u32, socket: &str) -> bool {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    open.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == socket))
}
