//! Counts and histograms of the hot path: plain numbers of the one thread that changes them, read by the same thread when
//! a dashboard asks.

use serde::Serialize;

use crate::ledger::Response;

/// What a terminal asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Operation {
    /// 0200, DE3 00aa00.
    Purchase = 0,
    /// 0220, DE3 00aa00, without DE37.
    OfflineSale = 1,
    /// 0200, DE3 020000.
    Void = 2,
    /// 0200, DE3 200000.
    Refund = 3,
    /// 0200, DE3 210000.
    Load = 4,
    /// 0200, DE3 500000.
    BillPayment = 5,
    /// 0100, DE3 000000.
    Hold = 6,
    /// 0220, DE3 000000, with DE37.
    Completion = 7,
    /// 0100, DE3 310000.
    Balance = 8,
    /// 0100, DE3 900000.
    Verify = 9,
    /// 0100, DE3 910000.
    Enter = 10,
    /// 0100, DE3 920000.
    Leave = 11,
    /// 0100, DE3 930000.
    Borrow = 12,
    /// 0100, DE3 940000.
    Return = 13,
    /// 0100, DE3 950000.
    Attendance = 14,
    /// 0120, DE3 9x0000.
    Advice = 15,
    /// 0300, DE91 1.
    Loss = 16,
    /// 0300, DE91 3.
    Found = 17,
    /// 0300, DE91 5.
    Hotlist = 18,
    /// 0500.
    BatchClose = 19,
    /// 0600.
    Event = 20,
    /// 0400 and 0420.
    Reversal = 21,
    /// 0800, DE70 001.
    SignOn = 22,
    /// 0800, DE70 002.
    SignOff = 23,
    /// 0800, DE70 301.
    Echo = 24,
    /// Everything else.
    Unknown = 25,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 26] = [
        Self::Purchase,
        Self::OfflineSale,
        Self::Void,
        Self::Refund,
        Self::Load,
        Self::BillPayment,
        Self::Hold,
        Self::Completion,
        Self::Balance,
        Self::Verify,
        Self::Enter,
        Self::Leave,
        Self::Borrow,
        Self::Return,
        Self::Attendance,
        Self::Advice,
        Self::Loss,
        Self::Found,
        Self::Hotlist,
        Self::BatchClose,
        Self::Event,
        Self::Reversal,
        Self::SignOn,
        Self::SignOff,
        Self::Echo,
        Self::Unknown,
    ];

    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Purchase => "purchase",
            Self::OfflineSale => "offline_sale",
            Self::Void => "void",
            Self::Refund => "refund",
            Self::Load => "load",
            Self::BillPayment => "bill_payment",
            Self::Hold => "hold",
            Self::Completion => "completion",
            Self::Balance => "balance",
            Self::Verify => "verify",
            Self::Enter => "enter",
            Self::Leave => "leave",
            Self::Borrow => "borrow",
            Self::Return => "return",
            Self::Attendance => "attendance",
            Self::Advice => "identity_advice",
            Self::Loss => "loss",
            Self::Found => "found",
            Self::Hotlist => "hotlist",
            Self::BatchClose => "batch_close",
            Self::Event => "event",
            Self::Reversal => "reversal",
            Self::SignOn => "sign_on",
            Self::SignOff => "sign_off",
            Self::Echo => "echo",
            Self::Unknown => "unknown",
        }
    }
}

/// How often each operation got each answer.
#[derive(Default)]
pub struct Answers([[u64; Response::ALL.len()]; Operation::ALL.len()]);

impl Answers {
    /// Counts one.
    #[inline]
    pub fn count(&mut self, operation: Operation, response: Response) {
        self.0[operation as usize][response as usize - 1] += 1;
    }

    /// Those that occurred: operation, DE39, count.
    #[must_use]
    pub fn report(&self) -> Vec<(&'static str, &'static str, u64)> {
        let pairs = Operation::ALL.iter().flat_map(|&operation| Response::ALL.iter().map(move |&response| (operation, response)));
        pairs
            .map(|(operation, response)| (operation.name(), response.code(), self.0[operation as usize][response as usize - 1]))
            .filter(|&(.., count)| count > 0)
            .collect()
    }
}

/// Buckets of a histogram: two to each doubling.
const BUCKETS: usize = 48;

/// A histogram over whole numbers from 1 up to 2^24, two buckets to each doubling; what is above counts in the last.
pub struct Histogram {
    counts: [u64; BUCKETS],
    sum: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], sum: 0 }
    }
}

impl Histogram {
    /// Counts one value.
    #[inline]
    pub fn record(&mut self, value: u64) {
        self.counts[Self::bucket(value)] += 1;
        self.sum += value;
    }

    fn bucket(value: u64) -> usize {
        // Bounds are 1, 2, 3, 4, 6, 8, 12, 16 …: the bucket is the first whose bound is not below the value.
        let below = value.saturating_sub(1);
        if below == 0 {
            return 0;
        }
        let doubling = below.ilog2();
        let half = if doubling == 0 { 0 } else { below >> (doubling - 1) & 1 };
        (1 + doubling as usize * 2 + half as usize).saturating_sub(usize::from(doubling > 0)).min(BUCKETS - 1)
    }

    fn bound(bucket: usize) -> u64 {
        match bucket {
            0 => 1,
            1 => 2,
            _ if bucket.is_multiple_of(2) => 3 << ((bucket - 2) / 2),
            _ => 4 << ((bucket - 3) / 2),
        }
    }

    /// Upper bounds with their counts (not cumulated), the sum, and the number of values. The last bucket has no bound.
    #[must_use]
    pub fn report(&self) -> HistogramReport {
        HistogramReport {
            bounds: (0..BUCKETS - 1).map(Self::bound).collect(),
            counts: self.counts.to_vec(),
            sum: self.sum,
            count: self.counts.iter().sum(),
        }
    }
}

/// A histogram as the operators' side reads it.
#[derive(Serialize)]
pub struct HistogramReport {
    /// Upper bounds, inclusive, in the histogram's unit.
    pub bounds: Vec<u64>,
    /// Values in each bucket; one more than the bounds.
    pub counts: Vec<u64>,
    /// Sum of all values.
    pub sum: u64,
    /// Number of values.
    pub count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_the_first_bucket_whose_bound_is_not_below_it() {
        for value in (0..5_000).chain([1 << 20, (1 << 20) + 1, u64::MAX >> 8]) {
            let bucket = Histogram::bucket(value);
            assert!(bucket == BUCKETS - 1 || value <= Histogram::bound(bucket), "{value} in {bucket}");
            assert!(bucket == 0 || value > Histogram::bound(bucket - 1), "{value} in {bucket}");
        }
    }

    #[test]
    fn answers_are_counted_apart() {
        let mut answers = Answers::default();
        answers.count(Operation::Purchase, Response::Approved);
        answers.count(Operation::Purchase, Response::Approved);
        answers.count(Operation::Echo, Response::FormatError);
        assert_eq!(answers.report(), [("purchase", "00", 2), ("echo", "30", 1)]);
    }
}
