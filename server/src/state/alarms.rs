//! Raised alarms. They are replicated, because they change what apply answers.

use std::collections::BTreeSet;

use cairn_proto::etcdserverpb::{AlarmMember, AlarmType};

/// The raised alarms, by kind and member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Alarms(BTreeSet<(i32, u64)>);

impl Alarms {
    /// Whether any member has raised an alarm of this kind.
    pub fn any(&self, kind: AlarmType) -> bool {
        self.0.range((kind as i32, 0)..=(kind as i32, u64::MAX)).next().is_some()
    }

    /// Whether this alarm is raised for this member.
    pub fn is_raised(&self, kind: AlarmType, member: u64) -> bool {
        self.0.contains(&(kind as i32, member))
    }

    /// The alarms of a kind, or all if the kind is [`AlarmType::None`].
    pub fn list(&self, kind: i32) -> Vec<AlarmMember> {
        self.0
            .iter()
            .filter(|(own, _)| kind == AlarmType::None as i32 || *own == kind)
            .map(|(alarm, member_id)| AlarmMember { member_id: *member_id, alarm: *alarm })
            .collect()
    }

    /// Raises an alarm; `false` if it is raised already.
    pub(super) fn raise(&mut self, kind: i32, member: u64) -> bool {
        self.0.insert((kind, member))
    }

    /// Lowers an alarm; `false` if it is not raised.
    pub(super) fn lower(&mut self, kind: i32, member: u64) -> bool {
        self.0.remove(&(kind, member))
    }
}
