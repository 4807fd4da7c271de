//! What the pump counted, and the page of figures that operators' dashboards read.

use std::collections::BTreeMap;

use super::{Reactor, Slot};
use crate::limits::DECISION_BYTES_MAX;
use crate::stats::{Answers, Histogram};

/// What the pump counted.
#[derive(Default)]
pub struct Statistics {
    /// Answers by operation and response code.
    pub answers: Answers,
    /// Microseconds from a request's first byte to its reply.
    pub latency: Histogram,
    /// Connections ever taken up.
    pub accepted: u64,
    /// Connections closed, by reason.
    pub closed: BTreeMap<&'static str, u64>,
    /// Messages whose MAC proved nothing.
    pub mac_failures: u64,
    /// Bytes read and sent.
    pub bytes: [u64; 2],
    /// Waves.
    pub waves: u64,
}

impl Reactor {
    /// Bytes held for connections.
    #[must_use]
    pub fn connection_memory(&self) -> usize {
        let each = |slot: &Slot| {
            slot.connection.as_ref().map_or(0, |connection| connection.partial.capacity() + connection.unsent.capacity())
        };
        self.slots.capacity() * size_of::<Slot>()
            + self.unproved.capacity() * size_of::<(u32, u32)>()
            + self.slots.iter().map(each).sum::<usize>()
    }

    /// All that operators' dashboards ask for, as JSON. Times are in microseconds, money in fen, memory in bytes.
    #[must_use]
    pub fn report(&self) -> serde_json::Value {
        let authorizer = self.lanes.authorizer();
        let ledger = authorizer.ledger();
        let registry = ledger.registry();
        let journal = authorizer.log();
        let written = journal.statistics();
        let (statistics, batches) = (&self.statistics, self.lanes.batches());
        serde_json::json!({
            "position": journal.position(),
            "durable": journal.durable(),
            "business_date": ledger.business_date().to_string(),
            "clock_ahead_days": authorizer.clock_ahead_days(),
            "journal": {
                "mode": written.mode,
                "segment": written.segment,
                "segment_bytes_left": written.segment_bytes_left,
                "prepared": written.prepared,
                "batches": written.batches,
                "bytes": written.bytes,
                "torn_bytes": written.torn_bytes,
                "sync": batches.sync.report(),
                "batch_records": batches.records.report(),
            },
            "requests": statistics.answers.report(),
            "latency": statistics.latency.report(),
            "connections": {
                "open": self.open,
                "accepted": statistics.accepted,
                "closed": statistics.closed,
                "bytes_read": statistics.bytes[0],
                "bytes_sent": statistics.bytes[1],
            },
            "mac_failures": statistics.mac_failures,
            "waves": statistics.waves,
            "room": journal.has_room(DECISION_BYTES_MAX),
            "debug_build": cfg!(debug_assertions),
            "entries": {
                "merchants": registry.merchants.rows().len(),
                "terminals": registry.terminals.rows().len(),
                "holders": registry.holders.rows().len(),
                "cards": registry.cards.rows().len(),
                "accounts": ledger.accounts().count(),
                "identities": ledger.identities().count(),
                "holds": ledger.holds().count(),
                "loans": ledger.loans().count(),
                "hotlist": ledger.hotlist().count(),
                "rules": ledger.rules().list().len(),
            },
            "memory": {
                "accounts": ledger.accounts().memory(),
                "cards": registry.cards.memory() + registry.holders.memory(),
                "terminals": registry.terminals.memory() + registry.merchants.memory() + authorizer.keys().memory(),
                "identities": ledger.identities().memory(),
                "lists": ledger.lists_memory(),
                "connections": self.connection_memory(),
                "replies": self.lanes.memory(),
            },
        })
    }
}
