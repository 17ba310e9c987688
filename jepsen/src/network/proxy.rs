//! The proxy in front of one member.

use std::{
    io,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, PoisonError},
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};

use super::{
    CONNECTIONS_MAX, Place, Processes,
    pipe::{Watched, pipe},
    way::{Traffic, Way, Ways},
    who,
};

/// Pause after the system had no resources for another connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// The proxy in front of one member.
pub(super) struct Proxy {
    pub(super) member: usize,
    pub(super) place: Place,
    pub(super) ways: watch::Receiver<Ways>,
    pub(super) traffic: Arc<Traffic>,
    pub(super) processes: Processes,
    pub(super) seed: u64,
}

impl Proxy {
    /// Accepts connections until the runtime ends.
    pub(super) async fn run(self) {
        let Self { member: to, place, ways, traffic, processes, seed } = self;
        let listener = TcpListener::from_std(place.listener).expect("the socket does not block, and this is a runtime");
        let target = SocketAddr::from(([127, 0, 0, 1], place.target_port));
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut random = StdRng::seed_from_u64(seed);
        loop {
            // The semaphore is never closed.
            let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
            let Ok((stream, theirs)) = listener.accept().await else {
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
                continue;
            };
            let Ok(ours) = stream.local_addr() else { continue };
            let from = {
                let processes = processes.lock().unwrap_or_else(PoisonError::into_inner);
                who::owner(theirs, ours, &processes)
            };
            // Closed already, or nobody of whom anything is known.
            let Some(from) = from else { continue };
            let connection = Connection {
                from,
                to,
                ways: ways.clone(),
                traffic: Arc::clone(&traffic),
                seed: random.random(),
                lateness: random.random(),
            };
            tokio::spawn(async move {
                // However it ends, the members see it.
                let _ = connection.serve(stream, target).await;
                drop(permit);
            });
        }
    }
}

/// A connection that `from` made to `to`.
struct Connection {
    from: usize,
    to: usize,
    ways: watch::Receiver<Ways>,
    traffic: Arc<Traffic>,
    seed: u64,
    /// Which share of what connections are delayed by is its own.
    lateness: f64,
}

impl Connection {
    async fn serve(self, near: TcpStream, target: SocketAddr) -> io::Result<()> {
        let (mut there, mut back) = (self.watched(self.from, self.to), self.watched(self.to, self.from));
        if there.way() == Way::Closed || back.way() == Way::Closed {
            return Ok(());
        }
        let ended = self.ended(self.ways.borrow().generation);
        let far = TcpStream::connect(target).await?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let (near_read, near_write) = near.into_split();
        let (far_read, far_write) = far.into_split();
        let (from_near, to_far) = pipe(near_read, far_write, there, self.seed, self.lateness);
        let (from_far, to_near) = pipe(far_read, near_write, back, !self.seed, self.lateness);
        let mut delivery = pin!(to_far.run(&self.traffic));
        let carried = async {
            // A direction that failed is the end of both; one that came to its end is not.
            tokio::try_join!(from_near.run(), &mut delivery, from_far.run(), to_near.run(&self.traffic)).map(drop)
        };
        let late = tokio::select! {
            result = carried => return result,
            late = ended => late,
        };
        if late { delivery.await } else { Ok(()) }
    }

    fn watched(&self, from: usize, to: usize) -> Watched {
        Watched { ways: self.ways.clone(), from, to }
    }

    /// Waits until the connection is ended by the network. Whether what is under way to the member still arrives.
    async fn ended(&self, generation: u64) -> bool {
        let mut ways = self.ways.clone();
        loop {
            {
                let ways = ways.borrow_and_update();
                let (there, back) = (ways.get(self.from, self.to), ways.get(self.to, self.from));
                if ways.generation != generation || there == Way::Closed || back == Way::Closed {
                    return matches!(there, Way::Late(_));
                }
            }
            if ways.changed().await.is_err() {
                return false;
            }
        }
    }
}
