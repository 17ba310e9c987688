//! A control plane in rehearsal: what a cluster of Kubernetes does to its store, with the store's promises checked while it runs.
//!
//! ```text
//! nodes        each keeps a Lease object under /registry/leases/kube-node-lease/ fresh, by compare-and-swap
//! controllers  the replica set controller and the scheduler, two candidates each, elected; at half time the leaders of both fall silent and go on
//!              writing, which must be refused; a kubelet that runs what is bound
//! users        create namespaces, fill them, roll a replica set over to the next one, delete the namespace with all it holds
//! events       events with a lease, which have to live as long as it and no longer
//!
//! registry     objects under /registry, created if absent and changed only at the revision they were read at
//! informer     list, then watch: a copy of all objects of a kind, every change checked against it
//! election     leadership as a key with a lease; its creation revision guards every write of the leader
//! audit        what was counted, and what was not as promised
//! ```
//!
//! Checked: a watch brings every version of every object once, in order, with the previous value as it was; copies equal the store at the end; a heartbeat that
//! nobody competes with never conflicts and is stored exactly once; a pod is bound once; during a roll-over no fewer pods run than asked for and at most one
//! more exists; no leader writes after it was deposed; at the revision at which a namespace goes, nothing is left in it; an event does not go before its time.
//!
//! ```text
//! cargo run --release -p cairn-client --example rehearsal -- --endpoint 127.0.0.1:2379 --nodes 1000 --seconds 60
//! ```
//! Ends with 1 if anything was not as promised.

mod audit;
mod controllers;
mod election;
mod events;
mod informer;
mod nodes;
mod registry;
mod users;

use std::{
    error::Error,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use audit::Audit;
use controllers::PodRules;
use informer::Informer;
use registry::Registry;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// How long anything that has to happen may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// The size of the rehearsal.
struct Options {
    /// One or several, with commas in between.
    endpoint: String,
    nodes: usize,
    /// How long users go on starting over.
    run: Duration,
    /// Between two heartbeats of a node.
    heartbeat: Duration,
    /// Namespaces at a time.
    namespaces: usize,
    /// Pods of a replica set.
    replicas: usize,
    /// Life of an event: an hour, scaled down. Seconds.
    event_ttl: i64,
}

impl Options {
    fn parse() -> Result<Self> {
        let mut options = Self {
            endpoint: "127.0.0.1:2379".into(),
            nodes: 1000,
            run: Duration::from_mins(1),
            heartbeat: Duration::from_secs(10),
            namespaces: 10,
            replicas: 10,
            event_ttl: 10,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(flag) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{flag} wants a value"))?;
            match flag.as_str() {
                "--endpoint" => options.endpoint = value,
                "--nodes" => options.nodes = value.parse()?,
                "--seconds" => options.run = Duration::from_secs(value.parse()?),
                "--heartbeat-ms" => options.heartbeat = Duration::from_millis(value.parse()?),
                "--namespaces" => options.namespaces = value.parse()?,
                "--replicas" => options.replicas = value.parse()?,
                "--event-ttl" => options.event_ttl = value.parse()?,
                _ => return Err(format!("{flag} is not a flag of the rehearsal").into()),
            }
        }
        if options.nodes == 0 || options.replicas == 0 || options.heartbeat.is_zero() {
            return Err("--nodes, --replicas and --heartbeat-ms are at least 1".into());
        }
        Ok(options)
    }
}

/// What every part of the control plane works with.
struct World {
    options: Options,
    registry: Arc<Registry>,
    audit: Arc<Audit>,
    rules: Arc<PodRules>,
    pods: Informer,
    sets: Informer,
    nodes: Informer,
    namespaces: Informer,
    /// True once everybody has to stop.
    stop: watch::Sender<bool>,
}

impl World {
    /// Ends when everybody has to stop.
    async fn stopped(&self) {
        // The sender is ours: it cannot be gone.
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match rehearse().await {
        Ok(audit) => {
            println!("{audit}");
            if audit.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("the rehearsal could not go on: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn rehearse() -> Result<Arc<Audit>> {
    let options = Options::parse()?;
    let audit = Arc::new(Audit::default());
    let registry = Arc::new(Registry::new(&options.endpoint, audit.clone())?);
    registry.delete_all("/registry/").await?;

    let rules = Arc::new(PodRules::new(audit.clone()));
    let pod_rules = rules.clone();
    let inform = |prefix: &'static str| Informer::start(registry.clone(), prefix, |_| ());
    let pods = Informer::start(registry.clone(), "/registry/pods/", move |change| pod_rules.check(change)).await?;
    let (stop, _) = watch::channel(false);
    let world = Arc::new(World {
        sets: inform("/registry/replicasets/").await?,
        nodes: inform("/registry/minions/").await?,
        namespaces: inform("/registry/namespaces/").await?,
        pods,
        rules,
        registry: registry.clone(),
        audit: audit.clone(),
        stop,
        options,
    });

    let began = Instant::now();
    let heartbeats = nodes::start(&world).await?;
    let events = events::start(&world).await?;
    let controllers = controllers::start(&world);
    users::work(&world).await?;
    audit.note_run(began.elapsed());

    world.stop.send_replace(true);
    for task in controllers {
        task.await??;
    }
    nodes::settle(&world, heartbeats).await?;
    events::settle(&world, events).await?;
    for informer in [&world.pods, &world.sets, &world.nodes, &world.namespaces] {
        informer.settle().await?;
    }
    let left: Vec<_> = world.registry.list("/registry/namespaces/").await?.0;
    audit.expect(left.is_empty(), || format!("namespaces are left: {left:?}"));
    Ok(audit)
}
