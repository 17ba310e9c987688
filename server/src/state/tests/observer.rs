//! The observer of applying is told of its steps.

use parking_lot::Mutex;

use super::*;
use crate::state::{ApplyObserver, command::RequestKind};

/// Notes what it is told of.
#[derive(Default)]
struct Steps(Mutex<Vec<String>>);

impl ApplyObserver for Steps {
    fn evaluated(&self, kind: RequestKind, outcome: Result<(), ApiError>) {
        self.0.lock().push(format!("{kind:?} {outcome:?}"));
    }

    fn written(&self) {
        self.0.lock().push("written".to_owned());
    }
}

#[test]
fn each_step_of_applying_is_observed_once_however_often_the_store_stalls() {
    let store = Arc::new(MemStore::new());
    let mut member = Member::on(store.clone());
    let steps = Arc::new(Steps::default());
    let options = StateOptions { observer: Some(steps.clone()), ..StateOptions::default() };
    member.state = State::open(store.clone(), options).unwrap();
    let put = |lease| Request::Put(pb::PutRequest { key: "k".into(), lease, ..Default::default() });
    let compact = Request::Compact(pb::CompactionRequest { revision: 2, physical: false });
    let entry = member.entry([put(0), put(5), compact]);
    store.set_stalled(true);
    assert!(matches!(member.state.apply(&[entry]), Err(StateError::Stalled)));
    assert!(matches!(member.state.retry(), Err(StateError::Stalled)));
    store.set_stalled(false);
    member.state.retry().unwrap();
    let expected = ["Put Ok(())", "Put Err(LeaseNotFound)", "Compact Ok(())", "written"];
    assert_eq!(*steps.0.lock(), expected);
}
