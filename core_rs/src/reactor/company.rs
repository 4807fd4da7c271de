//! Whether an open batch waits for more records before it goes to the disk.
//!
//! A batch costs the same work whether it holds two records or sixty: a write, a flush, two changes of thread. Where terminals
//! ask again as soon as they are answered, those of two batches would take turns for ever, each batch half as full as it could
//! be. So where many replies leave at once, the open batch is kept open until as many records are there, or nobody comes any more.
//! Somebody alone at a till never waits.

use crate::limits::{COMPANY_MICROSECONDS, COMPANY_PAUSE_MICROSECONDS, COMPANY_RECORDS, COMPANY_REPLIES_MIN};

/// What is expected after the last replies have left.
#[derive(Default)]
pub(super) struct Company {
    /// Replies that the open batch will have when all who were just answered have asked again.
    expected: usize,
    /// When the last of them were answered, in microseconds of a monotonic clock.
    since: u64,
}

impl Company {
    /// Takes note of replies that are leaving while `open` others are in the open batch.
    pub(super) fn note_leaving(&mut self, leaving: usize, open: usize, now: u64) {
        self.expected = if leaving >= COMPANY_REPLIES_MIN { leaving + open } else { 0 };
        self.since = now;
    }

    /// Takes note that they have left, which took a while.
    pub(super) fn note_left(&mut self, now: u64) {
        self.since = now;
    }

    /// Microseconds for which an open batch with so many replies, the last of which came at `last`, is worth keeping open; 0:
    /// not at all.
    pub(super) fn patience(&self, open: usize, last: u64, now: u64) -> u64 {
        let is_expected = (1..self.expected.min(COMPANY_RECORDS)).contains(&open);
        let until = (self.since.max(last) + COMPANY_PAUSE_MICROSECONDS).min(self.since + COMPANY_MICROSECONDS);
        if is_expected { until.saturating_sub(now) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_waits_for_those_who_were_just_answered_as_long_as_they_keep_coming() {
        let mut company = Company::default();
        assert_eq!(company.patience(1, 5, 5), 0, "nobody was answered");
        company.note_leaving(20, 10, 1_000);
        company.note_left(1_100);
        assert_eq!(company.patience(0, 900, 1_100), 0, "no batch is open");
        assert_eq!(company.patience(10, 900, 1_100), COMPANY_PAUSE_MICROSECONDS);
        assert_eq!(company.patience(29, 1_130, 1_140), COMPANY_PAUSE_MICROSECONDS - 10);
        assert_eq!(company.patience(30, 1_130, 1_130), 0, "all are back");
        assert_eq!(company.patience(10, 900, 1_100 + COMPANY_PAUSE_MICROSECONDS), 0, "nobody comes any more");
        let late = 1_100 + COMPANY_MICROSECONDS;
        assert_eq!(company.patience(10, late - 1, late - 1), 1);
        assert_eq!(company.patience(10, late, late), 0, "those who are here have waited long enough");
    }

    #[test]
    fn a_batch_that_is_large_already_or_a_single_till_does_not_wait() {
        let mut company = Company::default();
        company.note_leaving(500, 100, 1_000);
        assert_eq!(company.patience(COMPANY_RECORDS, 1_000, 1_000), 0);
        assert_eq!(company.patience(COMPANY_RECORDS - 1, 1_000, 1_000), COMPANY_PAUSE_MICROSECONDS);
        company.note_leaving(COMPANY_REPLIES_MIN - 1, 3, 2_000);
        assert_eq!(company.patience(3, 2_000, 2_000), 0);
    }
}
