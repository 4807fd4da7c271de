//! What a run counted, and its figures as JSON.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use switch_core::ledger::Response;

use crate::Failure;
use crate::terminal::{Operation, Terminal, Totals};

/// Nanoseconds beyond which latencies count as this.
const LATENCY_MAX: u64 = 600_000_000_000;

/// Counts and latencies of one operation.
struct Answers {
    by_response: [u64; Response::ALL.len()],
    /// Nanoseconds, of the answers that count.
    latency: Histogram<u64>,
}

/// What was counted so far.
pub(crate) struct Tally {
    answers: Vec<Answers>,
    /// Nanoseconds by which the driver itself came to an arrival too late.
    lateness: Histogram<u64>,
    /// Arrivals that had to wait for their terminal.
    pub(crate) held: u64,
    /// All answers.
    pub(crate) total: u64,
}

impl Tally {
    pub(crate) fn new() -> Result<Self, Failure> {
        let answers = || -> Result<Answers, Failure> {
            let latency = Histogram::new_with_bounds(1_000, LATENCY_MAX, 3)?;
            Ok(Answers { by_response: [0; Response::ALL.len()], latency })
        };
        Ok(Self {
            answers: Operation::ALL.iter().map(|_| answers()).collect::<Result<_, _>>()?,
            lateness: Histogram::new_with_bounds(100, LATENCY_MAX, 3)?,
            held: 0,
            total: 0,
        })
    }

    /// Counts an answer, and its latency where there is one.
    #[inline]
    pub(crate) fn answer(&mut self, operation: Operation, response: Response, latency: Option<u64>) {
        let answers = &mut self.answers[operation as usize];
        answers.by_response[response as usize - 1] += 1;
        self.total += 1;
        if let Some(latency) = latency {
            answers.latency.saturating_record(latency);
        }
    }

    #[inline]
    pub(crate) fn late(&mut self, nanoseconds: u64) {
        self.lateness.saturating_record(nanoseconds);
    }

    /// Latencies of all operations together.
    pub(crate) fn latency(&self) -> Result<Histogram<u64>, Failure> {
        let mut all = Histogram::new_with_bounds(1_000, LATENCY_MAX, 3)?;
        for answers in &self.answers {
            all.add(&answers.latency)?;
        }
        Ok(all)
    }

    /// By how much the driver was late, if there was anything that it could be late with.
    pub(crate) fn lateness(&self) -> Value {
        percentiles(&self.lateness)
    }

    /// For each operation that was asked for: how often it was answered what, and its latency.
    pub(crate) fn operations(&self) -> Value {
        let asked = Operation::ALL.into_iter().zip(&self.answers).filter(|(_, answers)| answers.by_response != [0; _]);
        let operations = asked.map(|(operation, answers)| {
            // Counted by their numbers, which are not in the order of `ALL`.
            let codes = Response::ALL.iter().map(|&response| (response, answers.by_response[response as usize - 1]));
            let codes = codes.filter(|&(_, count)| count > 0);
            let codes: Map<String, Value> = codes.map(|(response, count)| (response.code().to_owned(), count.into())).collect();
            (operation.name().to_owned(), json!({ "answers": codes, "latency_ns": percentiles(&answers.latency) }))
        });
        Value::Object(operations.collect())
    }
}

/// Null where nothing was counted.
pub(crate) fn percentiles(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return Value::Null;
    }
    json!({
        "p50": histogram.value_at_quantile(0.5),
        "p90": histogram.value_at_quantile(0.9),
        "p99": histogram.value_at_quantile(0.99),
        "p999": histogram.value_at_quantile(0.999),
        "p9999": histogram.value_at_quantile(0.9999),
        "max": histogram.max(),
        "mean": histogram.mean(),
    })
}

/// The whole of it: pairs of a value (the highest that counts as the same) and how often it came.
pub(crate) fn export(histogram: &Histogram<u64>) -> Value {
    histogram.iter_recorded().map(|at| json!([at.value_iterated_to(), at.count_at_value()])).collect()
}

/// What the ledger must hold of these terminals, in all and by merchant.
pub(crate) fn ledger<'a>(terminals: impl Iterator<Item = &'a Terminal>) -> (Totals, Value, Value) {
    let mut all = Totals::default();
    let mut merchants: BTreeMap<String, Totals> = BTreeMap::new();
    for terminal in terminals {
        all += *terminal.totals();
        *merchants.entry(terminal.merchant()).or_default() += *terminal.totals();
    }
    let merchants: Map<String, Value> = merchants.iter().map(|(merchant, totals)| (merchant.clone(), money(totals))).collect();
    let mut held = money(&all);
    held["records"] = all.records.into();
    (all, held, Value::Object(merchants))
}

fn money(totals: &Totals) -> Value {
    json!({
        "approved": totals.approved,
        "approved_fen": totals.approved_fen,
        "reversed": totals.reversed,
        "reversed_fen": totals.reversed_fen,
        "fen": totals.approved_fen - totals.reversed_fen,
    })
}
