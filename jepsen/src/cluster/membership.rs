//! Members that come and go, and what is known of their logs.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cairn_proto::{
    ApiError,
    etcdserverpb::{
        MemberAddRequest, MemberListRequest, MemberRemoveRequest, StatusRequest, cluster_client::ClusterClient,
        maintenance_client::MaintenanceClient,
    },
    peer::{MembersRequest, MembersResponse, peer_client::PeerClient},
};
use tokio::time::{Instant, timeout};
use tonic::transport::Endpoint;

use super::{DEADLINE, Members};

/// Pause between two looks at a condition.
const LOOK: Duration = Duration::from_millis(20);
/// How long one attempt to change the membership may take.
const CHANGE: Duration = Duration::from_secs(10);

impl Members {
    /// Adds a member, asked at another one, and starts it. It is refused as long as the others have not been connected for
    /// five seconds.
    pub async fn join(&mut self, at: usize, new: usize) -> Result<()> {
        let peer_url = self.member(new).peer_url();
        let deadline = Instant::now() + DEADLINE;
        let listed = loop {
            let mut client = ClusterClient::new(self.member(at).connect().await.context("connect to who is asked")?);
            let add = MemberAddRequest { peer_urls: vec![peer_url.clone()], is_learner: false };
            let outcome = match timeout(CHANGE, client.member_add(add)).await {
                Ok(Ok(added)) => break added.into_inner().members,
                // An answer was lost.
                Ok(Err(status)) if ApiError::from_status(&status) == Some(ApiError::PeerUrlExists) => {
                    break client.member_list(MemberListRequest { linearizable: true }).await?.into_inner().members;
                }
                outcome => outcome.map(|refused| refused.map(drop)),
            };
            ensure!(Instant::now() < deadline, "it cannot be added: {outcome:?}");
            tokio::time::sleep(LOOK).await;
        };
        let own = self.member(new).name().to_owned();
        let name = |name: &str| if name.is_empty() { own.clone() } else { name.to_owned() };
        let listed: Vec<_> = listed
            .iter()
            .flat_map(|member| member.peer_urls.iter().map(|url| format!("{}={url}", name(&member.name))))
            .collect();
        let member = self.member(new);
        member.set_initial_cluster(&listed.join(","));
        member.add_arguments(&["--initial-cluster-state", "existing"]);
        member.start().await.map(drop).context("the new member does not serve")
    }

    /// Removes a member, asked at another one.
    pub async fn remove(&mut self, at: usize, id: u64) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let mut client = ClusterClient::new(self.member(at).connect().await.context("connect to who is asked")?);
            let outcome = timeout(CHANGE, client.member_remove(MemberRemoveRequest { id })).await;
            match &outcome {
                Ok(Ok(_)) => return Ok(()),
                // An answer was lost.
                Ok(Err(status)) if ApiError::from_status(status) == Some(ApiError::MemberNotFound) => return Ok(()),
                _ => {}
            }
            ensure!(Instant::now() < deadline, "it cannot be removed: {outcome:?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Takes a member that does not run its data directory away.
    pub fn wipe(&mut self, member: usize) -> Result<()> {
        let dir = self.member(member).data_dir();
        std::fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))
    }

    /// Waits until the process of a removed member has ended by itself.
    pub async fn wait_for_end(&mut self, member: usize) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        while self.member(member).ended().is_none() {
            ensure!(Instant::now() < deadline, "a removed member goes on:\n{}", self.member(member).log_tail());
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// The last entry that a member knows to be committed.
    pub async fn raft_index(&mut self, member: usize) -> Result<u64> {
        let mut client = MaintenanceClient::new(self.member(member).connect().await?);
        Ok(client.status(StatusRequest {}).await?.into_inner().raft_index)
    }

    /// What a member tells other members of the cluster.
    pub async fn known_to(&mut self, member: usize) -> Result<MembersResponse> {
        let channel = Endpoint::from_shared(self.member(member).peer_url())?.connect().await?;
        Ok(PeerClient::new(channel).members(MembersRequest {}).await?.into_inner())
    }

    /// The first entry that a member's log still holds.
    pub async fn first_index(&mut self, member: usize) -> Result<u64> {
        Ok(self.known_to(member).await?.first_index)
    }

    /// Waits until all of these members have cut from their logs everything up to `index`.
    pub async fn wait_until_cut(&mut self, members: &[usize], index: u64) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        for &member in members {
            while self.first_index(member).await? <= index + 1 {
                ensure!(Instant::now() < deadline, "{} does not cut its log", self.member(member).name());
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }

    /// Which state directory a member uses, as its file `CURRENT` says.
    pub fn state(&mut self, member: usize) -> Result<String> {
        let path = self.member(member).data_dir().join("member/CURRENT");
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }
}
