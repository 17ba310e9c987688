//! Sockets that connections come in at: TCP, or a file of the file system.
//!
//! A [`Listening`] socket accepts [`Stream`]s, and a [`Detached`] stream is on its way from the thread that accepted it
//! to the thread that serves it. What is done with the bytes knows no difference.
//!
//! A listening socket in the file system takes the place of a socket that is left there, as etcd's does: a process that
//! was killed leaves its own behind. Its file goes when it goes. Unlike etcd's it takes the place of nothing else: a
//! path to a file that is no socket is refused.

use std::{
    fs,
    io::{self, IoSlice},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::AsFd,
        unix::{
            fs::{FileTypeExt, MetadataExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
};

use rustix::net::RecvFlags;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use crate::types::Place;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;

/// A socket that listens, not yet bound to a runtime.
#[derive(Debug)]
pub struct Listening {
    socket: StdListener,
}

#[derive(Debug)]
enum StdListener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

impl Listening {
    /// Listens at a place. `reuse_port` lets other processes listen on the same TCP port.
    pub fn bind(place: &Place, reuse_port: bool) -> io::Result<Self> {
        let socket = match place {
            Place::Tcp(addr) => {
                let socket = Socket::new(Domain::for_address(*addr), Type::STREAM, Some(Protocol::TCP))?;
                // Without this a restart has to wait until the old connections are forgotten.
                socket.set_reuse_address(true)?;
                socket.set_reuse_port(reuse_port)?;
                listen(&socket, &SockAddr::from(*addr))?;
                StdListener::Tcp(socket.into())
            }
            Place::Unix(path) => {
                remove_socket(path)?;
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                listen(&socket, &SockAddr::unix(path)?)?;
                StdListener::Unix(socket.into(), SocketFile::at(path)?)
            }
        };
        Ok(Self { socket })
    }

    /// Where it really listens.
    pub fn place(&self) -> io::Result<Place> {
        Ok(match &self.socket {
            StdListener::Tcp(socket) => Place::Tcp(socket.local_addr()?),
            StdListener::Unix(_, file) => Place::Unix(file.path.clone()),
        })
    }

    /// Accepts connections on the runtime of the caller.
    pub fn attach(self) -> io::Result<Accepting> {
        let socket = match self.socket {
            StdListener::Tcp(socket) => Listener::Tcp(tokio::net::TcpListener::from_std(socket)?),
            StdListener::Unix(socket, file) => Listener::Unix(tokio::net::UnixListener::from_std(socket)?, file),
        };
        Ok(Accepting { socket })
    }
}

fn listen(socket: &Socket, addr: &SockAddr) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Makes room for a socket: removes one that is there.
fn remove_socket(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => fs::remove_file(path),
        Ok(_) => {
            let reason = "there is a file that is no socket: remove it, or give another path";
            Err(io::Error::new(io::ErrorKind::AlreadyExists, reason))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The file of a listening socket, removed when it is dropped, unless another socket has taken its place.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), inode: inode(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            // A file that stays is removed by the next socket.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let data = fs::symlink_metadata(path)?;
    Ok((data.dev(), data.ino()))
}

/// A socket that accepts.
#[derive(Debug)]
pub struct Accepting {
    socket: Listener,
}

#[derive(Debug)]
enum Listener {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener, #[expect(dead_code, reason = "removes the file when it is dropped")] SocketFile),
}

impl Accepting {
    /// The next connection.
    pub async fn accept(&self) -> io::Result<Stream> {
        Ok(match &self.socket {
            Listener::Tcp(socket) => Stream::Tcp(socket.accept().await?.0),
            Listener::Unix(socket, _) => Stream::Unix(socket.accept().await?.0),
        })
    }
}

/// A connection that came in.
#[derive(Debug)]
pub enum Stream {
    /// By TCP.
    Tcp(tokio::net::TcpStream),
    /// Through a file.
    Unix(tokio::net::UnixStream),
}

impl From<tokio::net::TcpStream> for Stream {
    fn from(stream: tokio::net::TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

/// A connection that belongs to no runtime for the moment.
#[derive(Debug)]
pub enum Detached {
    /// By TCP.
    Tcp(TcpStream),
    /// Through a file.
    Unix(UnixStream),
}

impl Detached {
    /// Takes the connection to the runtime of the caller.
    pub fn attach(self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(stream) => Stream::Tcp(tokio::net::TcpStream::from_std(stream)?),
            Self::Unix(stream) => Stream::Unix(tokio::net::UnixStream::from_std(stream)?),
        })
    }
}

impl Stream {
    /// Takes the connection from its runtime.
    pub fn detach(self) -> io::Result<Detached> {
        Ok(match self {
            Self::Tcp(stream) => Detached::Tcp(stream.into_std()?),
            Self::Unix(stream) => Detached::Unix(stream.into_std()?),
        })
    }

    /// The address of the other side; none where it came through a file.
    pub fn peer_addr(&self) -> io::Result<Option<SocketAddr>> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().map(Some),
            Self::Unix(_) => Ok(None),
        }
    }

    /// Sends what is small at once: otherwise small answers wait for the other side's delayed acknowledgements (40 ms).
    pub fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nodelay(true),
            Self::Unix(_) => Ok(()),
        }
    }

    /// Waits for the first byte without taking it; none if the other side hangs up before.
    pub async fn first_byte(&self) -> io::Result<Option<u8>> {
        match self {
            Self::Tcp(stream) => stream.async_io(Interest::READABLE, || peek(stream)).await,
            Self::Unix(stream) => stream.async_io(Interest::READABLE, || peek(stream)).await,
        }
    }
}

fn peek(stream: &impl AsFd) -> io::Result<Option<u8>> {
    let mut first = [0];
    let (read, _) = rustix::net::recv(stream, &mut first, RecvFlags::PEEK)?;
    Ok((read > 0).then_some(first[0]))
}

/// Polls whichever stream there is.
macro_rules! either {
    ($stream:expr, $method:ident $(, $argument:expr)*) => {
        match $stream {
            Stream::Tcp(stream) => Pin::new(stream).$method($($argument),*),
            Stream::Unix(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), poll_read, cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), poll_write, cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), poll_write_vectored, cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), poll_flush, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), poll_shutdown, cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &Path) -> io::Result<Listening> {
        Listening::bind(&Place::Unix(path.to_owned()), false)
    }

    #[test]
    fn a_socket_takes_the_place_of_one_left_behind_and_of_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("name:0");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "the system leaves the file of a socket");
        let socket = at(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        drop(socket);
        assert!(!path.exists());
        fs::write(&path, "text").unwrap();
        assert!(at(&path).unwrap_err().to_string().contains("no socket"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
    }

    #[test]
    fn a_socket_that_lost_its_place_leaves_the_others_file_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let old = at(&path).unwrap();
        let new = at(&path).unwrap();
        drop(old);
        UnixStream::connect(&path).unwrap();
        drop(new);
        assert!(!path.exists());
    }
}
