//! A member: the generated services, behaving as told, remembering what was asked.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use cairn_client::proto::{
    ApiError,
    etcdserverpb::{
        self as pb,
        cluster_server::{Cluster, ClusterServer},
        kv_server::{Kv, KvServer},
        lease_server::{Lease, LeaseServer},
        maintenance_server::{Maintenance, MaintenanceServer},
        watch_server::{Watch, WatchServer},
    },
    mvccpb,
};
use parking_lot::Mutex;
use tokio_stream::{Iter, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming, async_trait, service::Routes};

use crate::history::History;

#[derive(Debug, Clone, Copy)]
pub enum Behaviour {
    Serve,
    Fail(ApiError),
    /// Takes requests and never answers.
    Hang,
}

pub struct Member {
    id: u64,
    behaviour: Mutex<Behaviour>,
    seen: Mutex<Vec<&'static str>>,
    with_leader_required: Mutex<Vec<bool>>,
    tokens: Mutex<Vec<Option<String>>>,
    /// The time to live of every lease, in seconds.
    ttl: AtomicI64,
    renewed: Mutex<Vec<i64>>,
    history: Arc<History>,
    /// How far its store is.
    revision: AtomicI64,
    /// What it knows of its cluster.
    cluster: Mutex<Vec<pb::Member>>,
}

impl Member {
    pub fn new(id: u64) -> Arc<Self> {
        Self::with_history(id, &History::new())
    }

    /// A member whose watches tell of a history that it shares with others.
    pub fn with_history(id: u64, history: &Arc<History>) -> Arc<Self> {
        Arc::new(Self {
            history: Arc::clone(history),
            id,
            behaviour: Mutex::new(Behaviour::Serve),
            seen: Mutex::default(),
            with_leader_required: Mutex::default(),
            tokens: Mutex::default(),
            ttl: AtomicI64::new(1),
            renewed: Mutex::default(),
            revision: AtomicI64::new(1),
            cluster: Mutex::default(),
        })
    }

    pub fn behaving(id: u64, behaviour: Behaviour) -> Arc<Self> {
        let member = Self::new(id);
        member.behave(behaviour);
        member
    }

    pub fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock() = behaviour;
    }

    /// From now on its answers are of this revision.
    pub fn is_at(&self, revision: i64) {
        self.revision.store(revision, Ordering::SeqCst);
    }

    /// From now on these are the members of its cluster.
    pub fn knows(&self, members: Vec<pb::Member>) {
        *self.cluster.lock() = members;
    }

    /// The methods called so far.
    pub fn seen(&self) -> Vec<&'static str> {
        self.seen.lock().clone()
    }

    /// Whether each request so far asked for a leader.
    pub fn leader_requirements(&self) -> Vec<bool> {
        self.with_leader_required.lock().clone()
    }

    /// The token each request so far showed.
    pub fn tokens(&self) -> Vec<Option<String>> {
        self.tokens.lock().clone()
    }

    /// From now on no lease is there.
    pub fn forget_leases(&self) {
        self.ttl.store(0, Ordering::SeqCst);
    }

    /// The leases renewed so far.
    pub fn renewed(&self) -> Vec<i64> {
        self.renewed.lock().clone()
    }

    pub fn routes(self: &Arc<Self>) -> Routes {
        // The services want to own what implements them, the tests want to look at it.
        let service = || Service(Arc::clone(self));
        Routes::new(KvServer::new(service()))
            .add_service(ClusterServer::new(service()))
            .add_service(LeaseServer::new(service()))
            .add_service(MaintenanceServer::new(service()))
            .add_service(WatchServer::new(service()))
            .prepare()
    }

    async fn take<T>(&self, method: &'static str, request: &Request<T>) -> Result<pb::ResponseHeader, Status> {
        self.seen.lock().push(method);
        self.with_leader_required.lock().push(request.metadata().get("hasleader").is_some_and(|value| value == "true"));
        let token = request.metadata().get("token").map(|token| token.to_str().unwrap().to_owned());
        self.tokens.lock().push(token);
        let behaviour = *self.behaviour.lock();
        match behaviour {
            Behaviour::Serve => {
                let revision = self.revision.load(Ordering::SeqCst);
                Ok(pb::ResponseHeader { member_id: self.id, revision, ..Default::default() })
            }
            Behaviour::Fail(error) => Err(error.into()),
            Behaviour::Hang => std::future::pending().await,
        }
    }
}

/// The key under which every member has a value larger than most limits.
pub const LARGE_KEY: &str = "large";
pub const LARGE_VALUE_BYTES: usize = 6 << 20;

struct Service(Arc<Member>);

type Answer<T> = Result<Response<T>, Status>;

#[async_trait]
impl Kv for Service {
    type RangeStreamStream = Iter<std::vec::IntoIter<Result<pb::RangeStreamResponse, Status>>>;

    async fn range(&self, request: Request<pb::RangeRequest>) -> Answer<pb::RangeResponse> {
        let header = Some(self.0.take("range", &request).await?);
        let value = if request.get_ref().key == LARGE_KEY { vec![7; LARGE_VALUE_BYTES] } else { b"value".to_vec() };
        let kv = mvccpb::KeyValue { key: request.into_inner().key, value: value.into(), ..Default::default() };
        Ok(Response::new(pb::RangeResponse { header, kvs: vec![kv], count: 1, more: false }))
    }

    async fn range_stream(&self, request: Request<pb::RangeRequest>) -> Answer<Self::RangeStreamStream> {
        let header = self.0.take("range_stream", &request).await?;
        let piece = |key: &'static str, header| pb::RangeStreamResponse {
            range_response: Some(pb::RangeResponse {
                header,
                kvs: vec![mvccpb::KeyValue { key: key.into(), ..Default::default() }],
                ..Default::default()
            }),
        };
        let pieces = vec![Ok(piece("a", None)), Ok(piece("b", None)), Ok(piece("c", Some(header)))];
        Ok(Response::new(tokio_stream::iter(pieces)))
    }

    async fn put(&self, request: Request<pb::PutRequest>) -> Answer<pb::PutResponse> {
        let header = Some(self.0.take("put", &request).await?);
        Ok(Response::new(pb::PutResponse { header, prev_kv: None }))
    }

    async fn delete_range(&self, request: Request<pb::DeleteRangeRequest>) -> Answer<pb::DeleteRangeResponse> {
        let header = Some(self.0.take("delete_range", &request).await?);
        Ok(Response::new(pb::DeleteRangeResponse { header, ..Default::default() }))
    }

    async fn txn(&self, request: Request<pb::TxnRequest>) -> Answer<pb::TxnResponse> {
        let header = Some(self.0.take("txn", &request).await?);
        Ok(Response::new(pb::TxnResponse { header, succeeded: true, responses: Vec::new() }))
    }

    async fn compact(&self, request: Request<pb::CompactionRequest>) -> Answer<pb::CompactionResponse> {
        let header = Some(self.0.take("compact", &request).await?);
        Ok(Response::new(pb::CompactionResponse { header }))
    }
}

#[async_trait]
impl Lease for Service {
    type LeaseKeepAliveStream = Iter<std::vec::IntoIter<Result<pb::LeaseKeepAliveResponse, Status>>>;

    /// Answers one renewal for each stream, which is what the client asks for.
    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Answer<Self::LeaseKeepAliveStream> {
        let header = Some(self.0.take("keep_alive", &request).await?);
        let id = request.into_inner().message().await?.unwrap_or_default().id;
        self.0.renewed.lock().push(id);
        let answer = pb::LeaseKeepAliveResponse { header, id, ttl: self.0.ttl.load(Ordering::SeqCst) };
        Ok(Response::new(tokio_stream::iter(vec![Ok(answer)])))
    }

    async fn lease_grant(&self, _: Request<pb::LeaseGrantRequest>) -> Answer<pb::LeaseGrantResponse> {
        Err(Status::unimplemented("grant"))
    }

    async fn lease_revoke(&self, _: Request<pb::LeaseRevokeRequest>) -> Answer<pb::LeaseRevokeResponse> {
        Err(Status::unimplemented("revoke"))
    }

    async fn lease_time_to_live(&self, _: Request<pb::LeaseTimeToLiveRequest>) -> Answer<pb::LeaseTimeToLiveResponse> {
        Err(Status::unimplemented("time to live"))
    }

    async fn lease_leases(&self, _: Request<pb::LeaseLeasesRequest>) -> Answer<pb::LeaseLeasesResponse> {
        Err(Status::unimplemented("leases"))
    }
}

#[async_trait]
impl Watch for Service {
    type WatchStream = ReceiverStream<Result<pb::WatchResponse, Status>>;

    async fn watch(&self, request: Request<Streaming<pb::WatchRequest>>) -> Answer<Self::WatchStream> {
        self.0.take("watch", &request).await?;
        let answers = Arc::clone(&self.0.history).serve(request.into_inner());
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

#[async_trait]
impl Cluster for Service {
    async fn member_list(&self, request: Request<pb::MemberListRequest>) -> Answer<pb::MemberListResponse> {
        let header = Some(self.0.take("member_list", &request).await?);
        Ok(Response::new(pb::MemberListResponse { header, members: self.0.cluster.lock().clone() }))
    }

    async fn member_add(&self, _: Request<pb::MemberAddRequest>) -> Answer<pb::MemberAddResponse> {
        Err(Status::unimplemented("add"))
    }

    async fn member_remove(&self, _: Request<pb::MemberRemoveRequest>) -> Answer<pb::MemberRemoveResponse> {
        Err(Status::unimplemented("remove"))
    }

    async fn member_update(&self, _: Request<pb::MemberUpdateRequest>) -> Answer<pb::MemberUpdateResponse> {
        Err(Status::unimplemented("update"))
    }

    async fn member_promote(&self, _: Request<pb::MemberPromoteRequest>) -> Answer<pb::MemberPromoteResponse> {
        Err(Status::unimplemented("promote"))
    }
}

#[async_trait]
impl Maintenance for Service {
    type SnapshotStream = Iter<std::vec::IntoIter<Result<pb::SnapshotResponse, Status>>>;

    async fn status(&self, request: Request<pb::StatusRequest>) -> Answer<pb::StatusResponse> {
        let header = Some(self.0.take("status", &request).await?);
        Ok(Response::new(pb::StatusResponse { header, version: "3.7.1".into(), ..Default::default() }))
    }

    async fn hash_kv(&self, request: Request<pb::HashKvRequest>) -> Answer<pb::HashKvResponse> {
        let header = Some(self.0.take("hash_kv", &request).await?);
        let hash_revision = request.get_ref().revision;
        Ok(Response::new(pb::HashKvResponse { header, hash_revision, ..Default::default() }))
    }

    async fn alarm(&self, _: Request<pb::AlarmRequest>) -> Answer<pb::AlarmResponse> {
        Err(Status::unimplemented("alarm"))
    }

    async fn defragment(&self, _: Request<pb::DefragmentRequest>) -> Answer<pb::DefragmentResponse> {
        Err(Status::unimplemented("defragment"))
    }

    async fn hash(&self, _: Request<pb::HashRequest>) -> Answer<pb::HashResponse> {
        Err(Status::unimplemented("hash"))
    }

    async fn snapshot(&self, _: Request<pb::SnapshotRequest>) -> Answer<Self::SnapshotStream> {
        Err(Status::unimplemented("snapshot"))
    }

    async fn move_leader(&self, _: Request<pb::MoveLeaderRequest>) -> Answer<pb::MoveLeaderResponse> {
        Err(Status::unimplemented("move leader"))
    }

    async fn downgrade(&self, _: Request<pb::DowngradeRequest>) -> Answer<pb::DowngradeResponse> {
        Err(Status::unimplemented("downgrade"))
    }
}
