//! What really happened: counts by kind. A simulator that injects nothing proves nothing, so a test holds them against
//! [`KINDS`].

use std::collections::BTreeMap;
use std::fmt;

/// Every kind of fault and event.
pub const KINDS: &[&str] = &[
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
    "decided.advice_flagged",
    "decided.again",
    "decided.batch_differs",
    "decided.batch_empty",
    "decided.batch_equal",
    "decided.completed",
    "decided.completed_unused",
    "decided.completion_of_lapsed",
    "decided.debt_blocks",
    "decided.debt_made",
    "decided.debt_repaid",
    "decided.discount",
    "decided.door_shut",
    "decided.flagged_for_funds",
    "decided.flagged_for_rules",
    "decided.flagged_for_status",
    "decided.held_less",
    "decided.late_advice",
    "decided.late_reversal",
    "decided.nothing_to_undo",
    "decided.passed_back",
    "decided.pin_right_again",
    "decided.refunded_in_parts",
    "decided.reversal_before_original",
    "decided.reversal_of_another",
    "decided.sold_offline",
    "decided.split",
    "decided.status_reported",
    "decided.surcharge",
    "decided.tombstone_hit",
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
    "hold.lapsed",
    "hotlist.card_taken_off",
    "hotlist.changed_while_read",
    "hotlist.read",
    "hotlist.read_anew",
    "hotlist.reading_forgotten",
    "hotlist.second_piece",
    "import.applied",
    "import.cut_off",
    "import.many_rows",
    "import.pin",
    "import.refused_for_room",
    "import.refused_line",
    "import.rules",
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
    "lie.outlived",
    "lie.refused_damaged",
    "lie.refused_lost",
    "lie.stale_content",
    "lie.undetectable",
    "network.connection_lost",
    "network.corrupted",
    "network.doubled",
    "network.dropped",
    "network.garbage",
    "network.lost_for_a_dead_switch",
    "recovery.decision_kept_unacknowledged",
    "recovery.decision_lost_unacknowledged",
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
    "terminal.counted_alike",
    "terminal.doubled",
    "terminal.gave_up",
    "terminal.repeated",
    "terminal.reversed_unanswered",
    "terminal.stan_used_twice",
    "terminal.vanished",
    "terminal.wrong_key",
    "undone.bill_payment",
    "undone.completion",
    "undone.hold",
    "undone.load",
    "undone.offline_sale",
    "undone.purchase",
    "undone.refund",
    "undone.refund_of_undone",
    "undone.refund_spent",
    "undone.refunded_in_part",
];

/// Of [`KINDS`], those that so few seeds as the tests run need not show.
pub const RARE: [&str; 2] = ["undone.refund_of_undone", "undone.refund_spent"];

/// From so many seeds on, everything must have occurred.
pub const SEEDS_FOR_ALL: u64 = 10_000;

/// What each operation may be answered.
pub const ANSWERS: &[(&str, &str)] = &[
    ("purchase", "00 12 13 14 30 41 51 54 55 57 58 61 62 63 65 75 78 91 94"),
    ("offline_sale", "00 12 13 14 30 58 63 91 94"),
    ("void", "00 12 14 25 30 58 63 91 94"),
    ("refund", "00 12 13 14 25 30 58 61 63 91 94"),
    ("load", "00 12 13 14 30 41 54 58 61 62 63 78 91 94"),
    ("bill_payment", "00 12 13 14 30 41 51 54 55 57 58 61 62 63 65 75 78 91 94"),
    ("hold", "00 12 13 14 30 41 51 54 55 57 58 61 62 63 65 75 78 91 94"),
    ("completion", "00 12 13 14 25 30 58 61 63 91 94"),
    ("balance", "00 12 14 30 58 63"),
    ("verify", "00 12 14 30 41 54 58 62 63 78"),
    ("enter", "00 12 14 30 41 54 57 58 62 63 78 91 94"),
    ("leave", "00 12 14 30 41 54 57 58 62 63 78 91 94"),
    ("borrow", "00 12 14 30 41 54 58 62 63 78 91 94"),
    ("return", "00 12 14 25 30 41 54 57 58 62 63 78 91 94"),
    ("attendance", "00 12 14 30 41 54 58 62 63 78 91 94"),
    ("identity_advice", "00 12 14 25 30 57 58 63 91 94"),
    ("loss", "00 12 14 30 58 62 63 78 91 94"),
    ("found", "00 12 14 30 58 62 63 78 91 94"),
    ("hotlist", "00 12 30 58 63"),
    ("batch_close", "00 12 30 58 63 91 95"),
    ("event", "00 12 30 58 63 91"),
    ("reversal", "00 12 30 58 63 91 94"),
    ("sign_on", "00 12 63 91"),
    ("sign_off", "00 12 30 58 63 91"),
    ("echo", "00 30 58 63"),
    ("unknown", "12 30 58 63 91"),
];

/// Counts by kind, and by operation and answer.
#[derive(Clone, Default)]
pub struct Coverage {
    kinds: BTreeMap<&'static str, u64>,
    answers: BTreeMap<(&'static str, &'static str), u64>,
}

impl Coverage {
    /// Counts one.
    pub fn count(&mut self, kind: &'static str) {
        *self.kinds.entry(kind).or_default() += 1;
    }

    /// Counts an answer to an operation.
    pub fn answer(&mut self, operation: &'static str, code: &'static str) {
        *self.answers.entry((operation, code)).or_default() += 1;
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        for (kind, count) in &other.kinds {
            *self.kinds.entry(kind).or_default() += count;
        }
        for (answer, count) in &other.answers {
            *self.answers.entry(*answer).or_default() += count;
        }
    }

    /// How often this happened.
    #[must_use]
    pub fn of(&self, kind: &str) -> u64 {
        self.kinds.get(kind).copied().unwrap_or(0)
    }

    /// Kinds of [`KINDS`] that never occurred.
    #[must_use]
    pub fn missing_kinds(&self) -> Vec<&'static str> {
        KINDS.iter().copied().filter(|kind| self.of(kind) == 0).collect()
    }

    /// Answers of [`ANSWERS`] that were never given.
    #[must_use]
    pub fn missing_answers(&self) -> Vec<String> {
        let answers = ANSWERS.iter().flat_map(|(operation, codes)| codes.split(' ').map(move |code| (*operation, code)));
        let answers = answers.filter(|answer| !self.answers.contains_key(answer));
        answers.map(|(operation, code)| format!("{operation} {code}")).collect()
    }

    /// Kinds that occurred and are not among [`KINDS`], and answers that are not among [`ANSWERS`].
    #[must_use]
    pub fn unlisted(&self) -> Vec<String> {
        let kinds = self.kinds.keys().filter(|kind| !KINDS.contains(kind)).map(|kind| (*kind).to_owned());
        let is_listed = |operation: &str, code: &str| ANSWERS.iter().any(|(own, codes)| *own == operation && codes.contains(code));
        let answers = self.answers.keys().filter(|(operation, code)| !is_listed(operation, code));
        kinds.chain(answers.map(|(operation, code)| format!("{operation} {code}"))).collect()
    }
}

impl fmt::Display for Coverage {
    /// A line a kind, then a line an operation.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kinds.iter().try_for_each(|(kind, count)| writeln!(formatter, "  {kind:<42} {count:>12}"))?;
        for (operation, _) in ANSWERS {
            write!(formatter, "  {operation:<14}")?;
            for ((_, code), count) in self.answers.iter().filter(|((own, _), _)| own == operation) {
                write!(formatter, " {code}: {count}")?;
            }
            writeln!(formatter)?;
        }
        Ok(())
    }
}
