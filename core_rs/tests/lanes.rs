//! When the open batch goes to the journal: the part of the lanes that the simulator cannot see, because either way is safe.

mod college;

use std::time::{Duration, Instant};

use college::{NOON, Terminal, college, unframed};
use switch_core::journal::{Journal, Options};
use switch_core::lanes::{Lanes, Origin};

const OPTIONS: Options = Options { segment_bytes: 1 << 20, batch_bytes_max: 1 << 18 };

#[test]
fn a_batch_that_is_held_open_goes_with_all_that_came_meanwhile() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    Journal::create(folder.path(), &OPTIONS).expect("an empty folder");
    let journal = Journal::open(folder.path(), &OPTIONS, &mut |_, _| Ok(())).expect("a sound journal");
    let mut authorizer = college(journal);
    let mut till = Terminal::new("POS00001", 1);
    till.sign_on(&mut authorizer, 1);
    authorizer.log_mut().flush();
    let mut lanes = Lanes::new(authorizer);
    let before = lanes.authorizer().log().durable();

    let mut answers = Vec::new();
    for stan in [2, 3] {
        let frame = till.purchase(stan, "1003", 1).frame(Some(till.key()));
        let (tpdu, message) = unframed(&frame);
        let origin = Origin { slot: stan, generation: 0, since: u64::from(stan) };
        lanes.handle(NOON, tpdu, message, origin).expect("a message that can be read");
        assert!(lanes.leaving(true).is_none());
        assert!(!lanes.are_waiting(), "the journal has been handed nothing");
    }
    assert_eq!((lanes.open_replies(), lanes.open_since(), lanes.authorizer().log().durable()), (2, 3, before));
    let end = Instant::now() + Duration::from_secs(20);
    while answers.is_empty() {
        assert!(Instant::now() < end, "no answer leaves");
        if let Some(lane) = lanes.leaving(false) {
            answers.extend(lane.origins().map(|origin| origin.slot));
            lanes.take_back(lane);
        }
    }
    assert_eq!((answers, lanes.batches().records.report().count), (vec![2, 3], 1));
    assert_eq!(lanes.authorizer().log().durable(), before + 2);
}
