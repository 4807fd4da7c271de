//! Records: a journal whose checksums are right may still say anything. A replay answers with a sentence, never a panic.
//!
//! After a record whose outcome is another than it says, the state is one that another journal could have led to, so the run goes
//! on in it: that is the way past the outcomes, which no mutation guesses.

use switch_core::ledger::record::{decode, encode, kind_name};
use switch_core::limits::JOURNAL_RECORD_BYTES_MAX;

use crate::Input;
use crate::authorizer::{begun_records, replayed, sample_records};

/// Replays the records that `data` holds, each behind its length in two bytes, after the college's.
pub fn check(data: &[u8]) {
    let mut ledger = replayed(&begun_records());
    let mut input = Input(data);
    while let Some(length) = input.array::<2>() {
        let record = input.bytes(usize::from(u16::from_be_bytes(length)));
        if record.is_empty() || record.len() > JOURNAL_RECORD_BYTES_MAX {
            continue;
        }
        if let Some(decoded) = decode(record) {
            let mut again = Vec::new();
            encode(&mut again, decoded.timestamp, &decoded.command, &decoded.outcome);
            // Limits were first written without those of holds and PINs.
            let is_first = kind_name(record) == Some("policy");
            assert!(again == record || decoded.outcome.paid == [0, 0] || is_first, "what can be read means what is written");
        }
        let (position, digest) = (ledger.position(), ledger.digest());
        let replayed = ledger.replay(position + 1, record).map(|_| ());
        assert_eq!(ledger.accounts().sum(), 0);
        assert!(ledger.position() == position + 1 || (replayed.is_err() && ledger.digest() == digest), "{replayed:?}");
        assert!(ledger.replay(ledger.position(), record).is_err(), "a position is taken once");
    }
}

/// One record behind its length.
fn framed(record: &[u8]) -> Vec<u8> {
    [&(record.len() as u16).to_be_bytes()[..], record].concat()
}

/// The college's own records, one by one and all at once, and records of requests.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let records = begun_records();
    let mut seeds: Vec<Vec<u8>> = records.iter().map(|record| framed(record)).collect();
    let requests = sample_records();
    seeds.extend(requests.iter().map(|record| framed(record)));
    seeds.push(requests.iter().flat_map(|record| framed(record)).collect());
    seeds
}
