//! What really happened: counts by kind. A simulator that injects nothing proves nothing, so a test holds them against
//! [`KINDS`].

use std::collections::BTreeMap;
use std::fmt;

/// Every kind of fault and event. Each must occur in the seeds that the tests run.
pub const KINDS: &[&str] = &[
    "answer.00",
    "answer.12",
    "answer.13",
    "answer.14",
    "answer.30",
    "answer.41",
    "answer.51",
    "answer.54",
    "answer.57",
    "answer.58",
    "answer.62",
    "answer.63",
    "answer.78",
    "answer.91",
    "answer.94",
    "ask.balance",
    "ask.echo",
    "ask.purchase",
    "ask.reversal",
    "ask.sign_off",
    "ask.sign_on",
    "ask.unknown",
    "clock.ahead_not_followed",
    "clock.closure",
    "clock.closure_confirmed",
    "clock.cutover",
    "clock.jump_back",
    "clock.jump_days",
    "clock.jump_hours",
    "clock.jump_years",
    "clock.start_refused",
    "crash.power_idle",
    "crash.power_in_batch",
    "crash.power_in_create",
    "crash.power_in_mark",
    "crash.power_in_other_write",
    "crash.power_in_remove",
    "crash.power_in_rename",
    "crash.power_in_snapshot",
    "crash.process_idle",
    "crash.process_in_batch",
    "crash.process_in_create",
    "crash.process_in_mark",
    "crash.process_in_other_write",
    "crash.process_in_remove",
    "crash.process_in_rename",
    "crash.process_in_snapshot",
    "crash.while_starting",
    "decided.again",
    "decided.reversal_before_purchase",
    "decided.reversal_of_another",
    "decided.tombstone_hit",
    "decided.undone",
    "disk.cached_sector_dropped",
    "disk.full",
    "disk.name_dropped",
    "disk.orphaned_sector_dropped",
    "disk.written_back",
    "error.create",
    "error.read",
    "error.remove",
    "error.rename",
    "error.write_batch",
    "error.write_mark",
    "error.write_other",
    "error.write_snapshot",
    "follower.chunk",
    "follower.compared",
    "follower.opened",
    "follower.refused_damage",
    "import.applied",
    "import.cut_off",
    "import.many_rows",
    "import.refused_for_room",
    "import.refused_line",
    "import.terminal_key",
    "lie.flip_anywhere",
    "lie.flip_in_batch",
    "lie.flip_in_header",
    "lie.flip_in_mark_or_unfinished",
    "lie.flip_in_snapshot",
    "lie.lost_batch",
    "lie.lost_other_write",
    "lie.lost_rename",
    "lie.lost_snapshot",
    "lie.misdirected_in_file",
    "lie.misdirected_to_other_file",
    "lie.stale_content",
    "lie.outlived",
    "lie.refused_damaged",
    "lie.refused_lost",
    "lie.undetectable",
    "network.connection_lost",
    "network.corrupted",
    "network.dropped",
    "network.doubled",
    "network.garbage",
    "network.lost_for_a_dead_switch",
    "recovery.decision_lost_unacknowledged",
    "recovery.decision_kept_unacknowledged",
    "recovery.started",
    "recovery.torn_tail",
    "snapshot.made",
    "snapshot.newer_is_there",
    "snapshot.passed_over",
    "snapshot.refused",
    "snapshot.retired",
    "snapshot.started_from",
    "switch.policy_changed",
    "switch.segment_begun",
    "switch.stopped",
    "terminal.doubled",
    "terminal.gave_up",
    "terminal.repeated",
    "terminal.reversed_unanswered",
    "terminal.stan_used_twice",
    "terminal.vanished",
    "terminal.wrong_key",
];

/// Counts by kind.
#[derive(Clone, Default)]
pub struct Coverage(BTreeMap<&'static str, u64>);

impl Coverage {
    /// Counts one.
    pub fn count(&mut self, kind: &'static str) {
        *self.0.entry(kind).or_default() += 1;
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        for (kind, count) in &other.0 {
            *self.0.entry(kind).or_default() += count;
        }
    }

    /// How often this happened.
    #[must_use]
    pub fn of(&self, kind: &str) -> u64 {
        self.0.get(kind).copied().unwrap_or(0)
    }

    /// Kinds of [`KINDS`] that never occurred.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        KINDS.iter().copied().filter(|kind| self.of(kind) == 0).collect()
    }

    /// Kinds that occurred and are not among [`KINDS`].
    #[must_use]
    pub fn unlisted(&self) -> Vec<&'static str> {
        self.0.keys().copied().filter(|kind| !KINDS.contains(kind)).collect()
    }
}

impl fmt::Display for Coverage {
    /// A line a kind.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(kind, count)| writeln!(formatter, "  {kind:<42} {count:>12}"))
    }
}
