//! When what is sent: the open loop's arrivals, set before the first of them and moved by no answer.

use std::str::FromStr;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Exp1};

use crate::terminal::Errand;

/// Something that a terminal is to do at a moment.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Arrival {
    /// Nanoseconds from the run's beginning.
    pub(crate) due: u64,
    /// Which terminal, by the driver's count.
    pub(crate) seat: u32,
    /// What; drawn from the mix when it is sent, if none is said.
    pub(crate) errand: Option<Errand>,
}

/// How arrivals lie in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Spacing {
    /// At equal distances, terminal after terminal.
    #[default]
    Constant,
    /// A Poisson process: each arrival by itself, at a terminal of its own choice.
    Poisson,
}

impl Spacing {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Poisson => "poisson",
        }
    }
}

impl FromStr for Spacing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Constant, Self::Poisson]
            .into_iter()
            .find(|spacing| spacing.name() == text)
            .ok_or_else(|| format!("arrivals are constant or poisson, not {text:?}"))
    }
}

/// Arrivals at a rate, in the order of their moments, all before the end; the same for the same seed.
pub(crate) struct Schedule {
    per_second: f64,
    terminals: u32,
    end: u64,
    chance: SmallRng,
    spacing: Spacing,
    count: u64,
    /// Seconds; of a Poisson process.
    at: f64,
}

impl Schedule {
    pub(crate) fn new(spacing: Spacing, per_second: f64, terminals: u32, length: Duration, seed: u64) -> Self {
        let chance = SmallRng::seed_from_u64(seed);
        Self { per_second, terminals, end: length.as_nanos() as u64, chance, spacing, count: 0, at: 0.0 }
    }
}

impl Iterator for Schedule {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        if self.per_second <= 0.0 {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "a run has far less than 2^53 arrivals")]
        let (at, seat) = match self.spacing {
            // Each by itself from the beginning, so that no error adds up.
            Spacing::Constant => (self.count as f64 / self.per_second, (self.count % u64::from(self.terminals)) as u32),
            Spacing::Poisson => {
                let gap: f64 = Exp1.sample(&mut self.chance);
                self.at += gap / self.per_second;
                (self.at, self.chance.random_range(..self.terminals))
            }
        };
        self.count += 1;
        #[expect(clippy::cast_sign_loss, reason = "time goes on")]
        let due = (at * 1e9) as u64;
        (due < self.end).then_some(Arrival { due, seat, errand: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(spacing: Spacing, per_second: f64, seconds: u64) -> Vec<Arrival> {
        Schedule::new(spacing, per_second, 7, Duration::from_secs(seconds), 1).collect()
    }

    #[test]
    fn constant_arrivals_keep_their_distance_to_the_nanosecond_over_an_hour() {
        let arrivals = arrivals(Spacing::Constant, 300.0, 3600);
        assert_eq!(arrivals.len(), 300 * 3600);
        for (index, arrival) in (0_u64..).zip(&arrivals) {
            let expected = index * 10_000_000 / 3;
            assert!(arrival.due.abs_diff(expected) <= 1, "{index}: {} and not {expected}", arrival.due);
            assert_eq!(u64::from(arrival.seat), index % 7);
        }
    }

    #[test]
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    fn poisson_arrivals_have_the_rate_and_the_spread_of_their_process() {
        let arrivals = arrivals(Spacing::Poisson, 1000.0, 200);
        assert!((198_000..202_000).contains(&arrivals.len()), "{}", arrivals.len());
        assert!(arrivals.is_sorted_by_key(|arrival| arrival.due));
        assert_eq!(arrivals, self::arrivals(Spacing::Poisson, 1000.0, 200), "the same seed gives the same");
        let gaps: Vec<f64> = arrivals.windows(2).map(|pair| (pair[1].due - pair[0].due) as f64 / 1e6).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
        // Of an exponential distribution both are the same, here 1 ms.
        assert!((0.98..1.02).contains(&mean) && (0.97..1.03).contains(&deviation), "{mean} {deviation}");
        let seats = (0..7).map(|seat| arrivals.iter().filter(|arrival| arrival.seat == seat).count());
        for count in seats {
            assert!((27_500..29_700).contains(&count), "{count}");
        }
    }

    #[test]
    fn a_rate_of_nothing_has_no_arrivals_and_a_low_one_few() {
        assert_eq!(arrivals(Spacing::Constant, 0.0, 10), []);
        assert_eq!(arrivals(Spacing::Poisson, 0.0, 10), []);
        let dues: Vec<u64> = arrivals(Spacing::Constant, 0.4, 10).iter().map(|arrival| arrival.due).collect();
        assert_eq!(dues, [0, 2_500_000_000, 5_000_000_000, 7_500_000_000]);
    }

    #[test]
    fn spacings_have_names() {
        assert_eq!("poisson".parse(), Ok(Spacing::Poisson));
        assert_eq!(Spacing::default().name().parse(), Ok(Spacing::Constant));
        assert!("uniform".parse::<Spacing>().unwrap_err().contains("constant or poisson"));
    }
}
