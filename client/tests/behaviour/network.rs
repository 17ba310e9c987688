//! A network in memory. Hosts have one-letter names; each refuses, swallows or accepts connections, as told.

use std::{collections::HashMap, io, sync::Arc};

use cairn_client::{Client, ClientBuilder, Endpoint};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    task::JoinSet,
};
use tonic::service::Routes;

use crate::member::Member;

const BUFFER_BYTES: usize = 64 << 10;

#[derive(Default)]
pub struct Network {
    hosts: Mutex<HashMap<String, Host>>,
}

struct Host {
    reaction: Reaction,
    dials: usize,
    connections: JoinSet<()>,
}

#[derive(Clone)]
enum Reaction {
    Refuse,
    Swallow,
    Hold,
    Accept(Routes),
}

impl Network {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    fn react(&self, host: &str, reaction: Reaction) {
        let mut hosts = self.hosts.lock();
        let host = hosts.entry(host.to_owned()).or_insert_with(|| Host {
            reaction: Reaction::Refuse,
            dials: 0,
            connections: JoinSet::new(),
        });
        host.reaction = reaction;
    }

    /// From now on `member` answers at `host`.
    pub fn accept(&self, host: &str, member: &Arc<Member>) {
        self.react(host, Reaction::Accept(member.routes()));
    }

    /// From now on `host` refuses connections.
    pub fn refuse(&self, host: &str) {
        self.react(host, Reaction::Refuse);
    }

    /// From now on connecting to `host` takes forever.
    pub fn swallow(&self, host: &str) {
        self.react(host, Reaction::Swallow);
    }

    /// From now on `host` takes connections and says nothing, as the system of a member does that does not serve yet.
    pub fn hold(&self, host: &str) {
        self.react(host, Reaction::Hold);
    }

    /// Cuts all connections to `host`.
    pub fn cut(&self, host: &str) {
        self.hosts.lock().get_mut(host).unwrap().connections.abort_all();
    }

    /// How often a connection to `host` was tried.
    pub fn dials(&self, host: &str) -> usize {
        self.hosts.lock().get(host).map_or(0, |host| host.dials)
    }

    async fn connect(self: Arc<Self>, endpoint: Endpoint) -> io::Result<DuplexStream> {
        let reaction = {
            let mut hosts = self.hosts.lock();
            let host = hosts.get_mut(endpoint.host()).unwrap();
            host.dials += 1;
            host.reaction.clone()
        };
        match reaction {
            Reaction::Refuse => Err(io::ErrorKind::ConnectionRefused.into()),
            Reaction::Swallow => std::future::pending().await,
            Reaction::Hold => {
                let (here, there) = tokio::io::duplex(BUFFER_BYTES);
                let held = async move {
                    std::future::pending::<()>().await;
                    drop(there);
                };
                self.hosts.lock().get_mut(endpoint.host()).unwrap().connections.spawn(held);
                Ok(here)
            }
            Reaction::Accept(routes) => {
                let (here, there) = tokio::io::duplex(BUFFER_BYTES);
                self.hosts.lock().get_mut(endpoint.host()).unwrap().connections.spawn(serve(there, routes));
                Ok(here)
            }
        }
    }

    /// A client whose connections go through this network.
    pub fn client<const N: usize>(self: &Arc<Self>, hosts: [&str; N]) -> ClientBuilder {
        let network = Arc::clone(self);
        Client::builder(hosts).connector(move |endpoint| Arc::clone(&network).connect(endpoint))
    }
}

/// Serves one connection until it ends.
pub async fn serve(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, routes: Routes) {
    let service = TowerToHyperService::new(routes);
    // How a connection ends is the client's business, which is what the tests look at.
    let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(io), service).await;
}
