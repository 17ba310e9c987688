//! What is done to the network between members.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rand::{Rng, rngs::StdRng, seq::SliceRandom};

use super::{Members, WRITES_BETWEEN, client::Load};
use crate::network::{
    Way,
    namespaces::{Namespaces, Unplugged},
};

/// Short elections, so that much happens in little time.
pub(super) const ARGUMENTS: [&str; 6] =
    ["--log-level", "warn", "--heartbeat-interval", "50", "--election-timeout", "500"];
/// The longest delay of a piece where the network is slow: less than an election time-out.
const SLOW: Duration = Duration::from_millis(60);
/// The longest delay of a connection where connections overtake each other.
const LATE: Duration = Duration::from_millis(300);
/// How often connections are ended where they are.
const RESETS: usize = 10;
/// The longest time between that.
const RESET_PAUSE: Duration = Duration::from_millis(200);

/// What is done to the network between members, by proxies or in namespaces. Everything is undone afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The leader and all others cannot reach each other: bytes wait; in a namespace, its link leads to no bridge.
    LeaderCutOff,
    /// The same, and bytes are lost; in a namespace, its interface is down.
    LeaderInBlackHole,
    /// A follower's connections are closed, and it gets no new ones; in a namespace, its link has no carrier.
    FollowerCutOff,
    /// As many as may be missing, whoever they are, are cut off from the others, not from each other.
    Split,
    /// What the leader sends arrives nowhere; what is sent to it does.
    LeaderMute,
    /// Nothing arrives at the leader; what it sends does.
    LeaderDeaf,
    /// What the leader sends to one follower does not arrive; what that one sends does.
    FollowerDeaf,
    /// The leader and a follower cannot reach each other; the others reach both.
    Bridge,
    /// Everything takes its time, every piece another one.
    Slow,
    /// All connections end, again and again; in namespaces, all links are down and up again.
    Resets,
    /// All connections end, again and again, and what was sent on them arrives beside and behind what is sent on new ones.
    Reordered,
}

impl Trouble {
    /// All kinds.
    pub const ALL: [Self; 11] = [
        Self::LeaderCutOff,
        Self::LeaderInBlackHole,
        Self::FollowerCutOff,
        Self::Split,
        Self::LeaderMute,
        Self::LeaderDeaf,
        Self::FollowerDeaf,
        Self::Bridge,
        Self::Slow,
        Self::Resets,
        Self::Reordered,
    ];

    /// Whether links of namespaces can be brought into it: those that no packet has to be delayed for.
    pub fn is_of_links(self) -> bool {
        !matches!(self, Self::Slow | Self::Reordered)
    }

    /// Does it, and undoes it. How long it took until a write was acknowledged again.
    pub(super) async fn inflict(
        self,
        members: &mut Members,
        load: &Load,
        leader: usize,
        follower: usize,
        random: &mut StdRng,
    ) -> Result<Duration> {
        let minority = self.minority(members.len(), leader, follower, random);
        let recovery = load.recovery();
        match members.namespaces() {
            Some(namespaces) => self.unplug(namespaces, leader, follower, &minority)?,
            None => self.begin(members, leader, follower, &minority)?,
        }
        if matches!(self, Self::Resets | Self::Reordered) {
            for _ in 0..RESETS {
                tokio::time::sleep(RESET_PAUSE.mul_f64(random.random())).await;
                members.reset()?;
            }
        }
        let took = recovery.await.context("under the trouble")?;
        for &member in &minority {
            members.expect_no_leader(member).await?;
            members.expect_no_acknowledgement(member).await?;
        }
        if matches!(self, Self::LeaderMute | Self::LeaderDeaf) {
            let next = members.leader_among(|member| member != leader).await.context("nobody leads instead")?;
            ensure!(next != leader, "who cannot lead leads");
            members.expect_no_acknowledgement(leader).await?;
        }
        load.wait_for_writes(WRITES_BETWEEN).await.context("under the trouble")?;
        members.heal()?;
        members.wait_until_serving().await.context("after the trouble")?;
        Ok(took)
    }

    /// Who is cut off from a majority, both ways.
    fn minority(self, count: usize, leader: usize, follower: usize, random: &mut StdRng) -> Vec<usize> {
        match self {
            Self::LeaderCutOff | Self::LeaderInBlackHole => vec![leader],
            Self::FollowerCutOff => vec![follower],
            Self::Split => {
                let mut all: Vec<_> = (0..count).collect();
                all.shuffle(random);
                all.truncate((count - 1) / 2);
                all
            }
            _ => Vec::new(),
        }
    }

    fn begin(self, members: &Members, leader: usize, follower: usize, minority: &[usize]) -> Result<()> {
        members.network()?.change(|ways| {
            let inside = |member| minority.contains(&member);
            match self {
                Self::LeaderCutOff | Self::Split => ways.split(inside, Way::Held),
                Self::LeaderInBlackHole => ways.split(inside, Way::Lost),
                Self::FollowerCutOff => ways.split(inside, Way::Closed),
                Self::LeaderMute => (0..ways.len()).for_each(|to| ways.set(leader, to, Way::Held)),
                Self::LeaderDeaf => (0..ways.len()).for_each(|from| ways.set(from, leader, Way::Held)),
                Self::FollowerDeaf => ways.set(leader, follower, Way::Held),
                Self::Bridge => {
                    ways.set(leader, follower, Way::Held);
                    ways.set(follower, leader, Way::Held);
                }
                Self::Slow => ways.all(Way::Slow(SLOW)),
                Self::Resets => {}
                Self::Reordered => ways.all(Way::Late(LATE)),
            }
        });
        Ok(())
    }

    fn unplug(self, namespaces: &Namespaces, leader: usize, follower: usize, minority: &[usize]) -> Result<()> {
        let others = || (0..namespaces.len()).filter(|&member| member != leader);
        match self {
            Self::LeaderCutOff => namespaces.unplug(leader, Unplugged::FromBridge),
            Self::LeaderInBlackHole => namespaces.unplug(leader, Unplugged::InterfaceDown),
            Self::FollowerCutOff => namespaces.unplug(follower, Unplugged::WithoutCarrier),
            Self::Split => namespaces.set_apart(minority),
            Self::LeaderMute => others().try_for_each(|to| namespaces.lose(leader, to)),
            Self::LeaderDeaf => others().try_for_each(|from| namespaces.lose(from, leader)),
            Self::FollowerDeaf => namespaces.lose(leader, follower),
            Self::Bridge => {
                namespaces.lose(leader, follower)?;
                namespaces.lose(follower, leader)
            }
            Self::Resets => Ok(()),
            Self::Slow | Self::Reordered => bail!("links of namespaces cannot be {self:?}"),
        }
    }
}
