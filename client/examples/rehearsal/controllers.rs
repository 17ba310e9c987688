//! The scheduler and the replica set controller, elected; the kubelets and the namespace controller, of which there is one each.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use cairn_client::Compare;
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    task::JoinHandle,
};

use super::{
    Result, World,
    audit::Audit,
    election::{Term, campaign},
    informer::{Change, Informer},
    registry::{Object, Written, fields},
};

/// What a namespace can hold.
const KINDS: [&str; 4] = ["replicasets", "pods", "configmaps", "events"];

/// Starts everybody. They end when the world stops.
pub fn start(world: &Arc<World>) -> Vec<JoinHandle<Result<()>>> {
    let mut all = Vec::new();
    for candidate in ["a", "b"] {
        all.push(tokio::spawn(lead(world.clone(), Role::Scheduler, candidate)));
        all.push(tokio::spawn(lead(world.clone(), Role::ReplicaSets, candidate)));
    }
    all.push(tokio::spawn(until_stopped(world.clone(), Role::Kubelets)));
    all.push(tokio::spawn(until_stopped(world.clone(), Role::Namespaces)));
    all
}

#[derive(Debug, Clone, Copy)]
enum Role {
    Scheduler,
    ReplicaSets,
    Kubelets,
    Namespaces,
}

async fn until_stopped(world: Arc<World>, role: Role) -> Result<()> {
    tokio::select! {
        result = work(&world, role, None) => result,
        () = world.stopped() => Ok(()),
    }
}

/// Is a candidate for good. Whoever leads at half time falls silent then, and learns of it from the store.
async fn lead(world: Arc<World>, role: Role, candidate: &str) -> Result<()> {
    let half_time = Instant::now() + world.options.run / 2;
    let leading = async {
        loop {
            let term = campaign(&world, &format!("{role:?}"), candidate).await?;
            let is_first_half = Instant::now() < half_time;
            let silence = async {
                tokio::time::sleep_until(half_time.into()).await;
                term.fall_silent();
                std::future::pending::<()>().await;
            };
            tokio::select! {
                result = work(&world, role, Some(&term)) => result?,
                () = silence, if is_first_half => {}
            }
        }
    };
    tokio::select! {
        result = leading => result,
        () = world.stopped() => Ok(()),
    }
}

/// Looks at every object, then at every one that changes. Ends when the term is over.
async fn work(world: &World, role: Role, term: Option<&Term>) -> Result<()> {
    let (mut pods, mut sets, mut namespaces) =
        (world.pods.subscribe(), world.sets.subscribe(), world.namespaces.subscribe());
    let mut turn = 0;
    let mut objects = everything(world, role);
    loop {
        for object in objects {
            let written = match role {
                Role::Scheduler => bind(world, term, &object, &mut turn).await?,
                Role::ReplicaSets => replicate(world, term, &object).await?,
                Role::Kubelets => run(world, &object).await?,
                Role::Namespaces => sweep(world, &object).await?,
            };
            if written == Written::Deposed {
                return Ok(());
            }
        }
        let change = match role {
            Role::Scheduler | Role::Kubelets => next(&mut pods).await?,
            Role::Namespaces => next(&mut namespaces).await?,
            Role::ReplicaSets => tokio::select! {
                change = next(&mut pods) => change?,
                change = next(&mut sets) => change?,
            },
        };
        objects = match change {
            Some(change) => vec![change.object().clone()],
            None => everything(world, role),
        };
    }
}

/// All that a role looks after.
fn everything(world: &World, role: Role) -> Vec<Arc<Object>> {
    let informer: &Informer = match role {
        Role::Scheduler | Role::Kubelets => &world.pods,
        Role::ReplicaSets => &world.sets,
        Role::Namespaces => &world.namespaces,
    };
    informer.objects().values().cloned().collect()
}

/// The next change; none if some were missed.
async fn next(changes: &mut Receiver<Change>) -> Result<Option<Change>> {
    match changes.recv().await {
        Ok(change) => Ok(Some(change)),
        Err(RecvError::Lagged(_)) => Ok(None),
        Err(RecvError::Closed) => Err("an informer ended".into()),
    }
}

const NOTHING: Written = Written::Conflict;

/// Gives a pod without a node the next node.
async fn bind(world: &World, term: Option<&Term>, seen: &Object, turn: &mut usize) -> Result<Written> {
    let Some(pod) = world.pods.get(&seen.key).filter(|pod| pod.get("node").is_empty()) else { return Ok(NOTHING) };
    let node = {
        let nodes = world.nodes.objects();
        nodes.values().nth(*turn % nodes.len().max(1)).map(|node| node.name().to_owned())
    };
    let Some(node) = node else { return Ok(NOTHING) };
    *turn += 1;
    let mut bound = pod.with("node", &node);
    bound.insert("term".into(), term.map_or(0, |term| term.revision).to_string());
    world.registry.update(term, &pod, &bound).await
}

/// Runs a pod that is bound.
async fn run(world: &World, seen: &Object) -> Result<Written> {
    let Some(pod) = world.pods.get(&seen.key) else { return Ok(NOTHING) };
    if pod.get("node").is_empty() || pod.get("phase") == "Running" {
        return Ok(NOTHING);
    }
    world.registry.update(None, &pod, &pod.with("phase", "Running")).await
}

/// Creates and deletes pods of the replica set that changed, or whose pod did.
async fn replicate(world: &World, term: Option<&Term>, seen: &Object) -> Result<Written> {
    let namespace = seen.namespace();
    let set_name = match seen.fields.get("set") {
        Some(set) => set.as_str(),
        None => seen.name(),
    };
    let Some(set) = world.sets.get(&format!("/registry/replicasets/{namespace}/{set_name}")) else {
        return Ok(NOTHING);
    };
    let namespace_key = format!("/registry/namespaces/{namespace}");
    let Some(active) = world.namespaces.get(&namespace_key).filter(|it| it.get("phase") == "Active") else {
        return Ok(NOTHING);
    };
    let replicas: usize = set.get("replicas").parse()?;
    let prefix = format!("/registry/pods/{namespace}/{set_name}-");
    for number in 0..replicas {
        let key = format!("{prefix}{number}");
        if world.pods.get(&key).is_some() {
            continue;
        }
        let pod = fields([("set", set_name), ("phase", "Pending"), ("node", "")]);
        // Nothing is created in a namespace that is going.
        let still_active = Compare::mod_revision(namespace_key.clone()).equal_to(active.mod_revision);
        if world.registry.create(term, &key, &pod, 0, Some(still_active)).await? == Written::Deposed {
            return Ok(Written::Deposed);
        }
    }
    let surplus: Vec<_> = {
        let pods = world.pods.objects();
        let of_set = pods.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
        let is_surplus = |key: &str| key[prefix.len()..].parse::<usize>().is_ok_and(|number| number >= replicas);
        of_set.filter(|(key, _)| is_surplus(key)).map(|(_, pod)| pod.clone()).collect()
    };
    for pod in surplus {
        if world.registry.delete(term, &pod).await? == Written::Deposed {
            return Ok(Written::Deposed);
        }
    }
    Ok(NOTHING)
}

/// Deletes a namespace that is going, with all it holds.
async fn sweep(world: &World, seen: &Object) -> Result<Written> {
    let Some(namespace) = world.namespaces.get(&seen.key).filter(|it| it.get("phase") == "Terminating") else {
        return Ok(NOTHING);
    };
    for kind in KINDS {
        let swept = world.registry.delete_all(&format!("/registry/{kind}/{}/", namespace.name())).await?;
        (0..swept).for_each(|_| world.audit.swept.add());
    }
    let written = world.registry.delete(None, &namespace).await?;
    if let Written::At(revision) = written {
        world.audit.namespaces.add();
        for kind in KINDS {
            let prefix = format!("/registry/{kind}/{}/", namespace.name());
            let left = world.registry.count_at(&prefix, revision).await?;
            world.audit.expect(left == 0, || format!("{left} objects outlived their namespace: {prefix}"));
        }
    }
    Ok(written)
}

/// What holds for pods at every revision.
pub struct PodRules {
    audit: Arc<Audit>,
    state: Mutex<PodState>,
}

#[derive(Default)]
struct PodState {
    namespaces: HashMap<String, Counts>,
    /// The scheduler's newest term that bound a pod.
    term: i64,
}

#[derive(Default)]
struct Counts {
    pods: usize,
    running: usize,
    /// While a replica set is rolled over: how many pods have to run.
    held: Option<usize>,
}

impl PodRules {
    pub fn new(audit: Arc<Audit>) -> Self {
        Self { audit, state: Mutex::default() }
    }

    /// From now on this many pods run at every revision, and at most one more exists.
    pub fn hold(&self, namespace: &str, running: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.namespaces.entry(namespace.to_owned()).or_default().held = Some(running);
    }

    /// From now on the namespace may have as many pods as it likes.
    pub fn release(&self, namespace: &str) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).namespaces.remove(namespace);
    }

    /// Checks one change.
    pub fn check(&self, change: &Change) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (old, new) = (change.old.as_deref(), change.new.as_deref());
        let node = |pod: Option<&Object>| pod.map(|pod| pod.get("node").to_owned()).unwrap_or_default();
        if let (Some(was), Some(is)) = (old, new) {
            let (from, to) = (node(old), node(new));
            self.audit.expect(from.is_empty() || from == to, || format!("{} moved from {from} to {to}", is.key));
            let went_back = was.get("phase") == "Running" && is.get("phase") != "Running";
            self.audit.expect(!went_back, || format!("{} stopped running", is.key));
            if from.is_empty() && !to.is_empty() {
                self.audit.bound.add();
                let term = is.get("term").parse().unwrap_or(0);
                self.audit.expect(term >= state.term, || format!("{} was bound in the old term {term}", is.key));
                state.term = term;
            }
        }
        let running = |pod: Option<&Object>| usize::from(pod.is_some_and(|pod| pod.get("phase") == "Running"));
        let namespace = change.object().namespace().to_owned();
        let counts = state.namespaces.entry(namespace).or_default();
        counts.pods = (counts.pods + usize::from(new.is_some())).saturating_sub(usize::from(old.is_some()));
        counts.running = (counts.running + running(new)).saturating_sub(running(old));
        if let Some(held) = counts.held {
            let (runs, exist) = (counts.running, counts.pods);
            self.audit.expect(runs >= held && exist <= held + 1, || {
                format!("{runs} of {exist} pods run where {held} were asked for: {}", change.object().key)
            });
        }
    }
}
