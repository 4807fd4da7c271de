//! What is left to chance: which card comes, what it is there for, and what it pays.

use std::str::FromStr;

use fastrand::Rng;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand_distr::{Distribution, Zipf};
use switch_core::card_number::CardNumber;

use crate::Failure;
use crate::terminal::Operation;

/// Which cards come how often.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) enum Popularity {
    /// All alike.
    #[default]
    Uniform,
    /// The card of rank r as often as 1 / r to this power.
    Zipf(f64),
    /// A hot set.
    Hot {
        /// Its share of the cards, above 0 and up to 1.
        cards: f64,
        /// Its share of what is asked, 0 to 1; the other cards have the rest.
        requests: f64,
    },
}

impl FromStr for Popularity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
        let parts: Vec<&str> = text.split(':').collect();
        let popularity = match *parts {
            ["uniform"] => Some(Self::Uniform),
            ["zipf", exponent] => number(exponent).map(Self::Zipf),
            ["hot", cards, requests] => match (number(cards), number(requests)) {
                (Some(cards), Some(requests)) if cards > 0.0 && cards <= 1.0 && requests <= 1.0 => {
                    Some(Self::Hot { cards, requests })
                }
                _ => None,
            },
            _ => None,
        };
        popularity.ok_or_else(|| {
            format!(
                "{text:?} does not say which cards come how often; say uniform, zipf:EXPONENT or hot:CARDS:REQUESTS, both as shares \
                 (hot:0.01:0.9: one card in a hundred makes nine requests in ten)"
            )
        })
    }
}

enum Draw {
    Uniform,
    Zipf(Zipf<f64>, SmallRng),
    Hot { cards: usize, requests: f64 },
}

/// The cards with how often each comes.
pub(crate) struct Cards {
    numbers: Vec<CardNumber>,
    draw: Draw,
}

impl Cards {
    /// Where not all come alike, which come more often does not hang on their order in the file, by which the switch keeps them,
    /// and is the same in every run.
    pub(crate) fn new(mut numbers: Vec<CardNumber>, popularity: Popularity) -> Result<Self, Failure> {
        if numbers.is_empty() {
            return Err("the campus has no cards".into());
        }
        if popularity != Popularity::Uniform {
            Rng::with_seed(1).shuffle(&mut numbers);
        }
        #[expect(clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "a share of millions of cards")]
        let draw = match popularity {
            Popularity::Uniform => Draw::Uniform,
            Popularity::Zipf(exponent) => {
                Draw::Zipf(Zipf::new(numbers.len() as f64, exponent)?, SmallRng::seed_from_u64(fastrand::u64(..)))
            }
            Popularity::Hot { cards, requests } => {
                Draw::Hot { cards: ((numbers.len() as f64 * cards).ceil() as usize).clamp(1, numbers.len()), requests }
            }
        };
        Ok(Self { numbers, draw })
    }

    /// The next card to come.
    #[inline]
    pub(crate) fn draw(&mut self, chance: &mut Rng) -> CardNumber {
        let count = self.numbers.len();
        let index = match &mut self.draw {
            Draw::Uniform => chance.usize(..count),
            #[expect(clippy::cast_sign_loss, reason = "a rank is 1 or more")]
            Draw::Zipf(ranks, chance) => (ranks.sample(chance) as usize - 1).min(count - 1),
            Draw::Hot { cards, requests } if *cards == count || chance.f64() < *requests => chance.usize(..*cards),
            Draw::Hot { cards, .. } => chance.usize(*cards..count),
        };
        self.numbers[index]
    }
}

/// How often each operation is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mix([u32; Operation::MIXED.len()]);

impl Mix {
    /// Nothing but purchases.
    pub(crate) const PURCHASES: Self = Self([1, 0, 0, 0]);

    /// The next operation.
    #[inline]
    pub(crate) fn draw(self, chance: &mut Rng) -> Operation {
        if self == Self::PURCHASES {
            return Operation::Purchase;
        }
        let mut ahead = chance.u32(..self.0.iter().sum::<u32>());
        for (operation, weight) in Operation::MIXED.into_iter().zip(self.0) {
            match ahead.checked_sub(weight) {
                Some(rest) => ahead = rest,
                None => return operation,
            }
        }
        unreachable!("what is drawn is below the sum of the weights")
    }

    pub(crate) const fn has(self, operation: Operation) -> bool {
        self.0[operation as usize] > 0
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut weights = [0; Operation::MIXED.len()];
        for part in text.split(',') {
            let (operation, weight) = part
                .split_once('=')
                .and_then(|(name, weight)| Some((Operation::from_name(name.trim())?, weight.trim().parse::<u16>().ok()?)))
                .filter(|(operation, _)| Operation::MIXED.contains(operation))
                .ok_or_else(|| {
                    let names = Operation::MIXED.map(Operation::name).join(", ");
                    format!("{part:?} is no operation with its weight, as in purchase=90; the operations are {names}, weights go up to 65535")
                })?;
            weights[operation as usize] += u32::from(weight);
        }
        if weights.iter().all(|&weight| weight == 0) {
            return Err(format!("{text:?} asks for nothing; give a weight above 0"));
        }
        let after_purchases = weights[Operation::Reversal as usize] + weights[Operation::Repeat as usize];
        if weights[Operation::Purchase as usize] == 0 && after_purchases > 0 {
            return Err(format!("{text:?} has no purchases, so there is nothing to reverse or to repeat"));
        }
        // So that a mix of nothing but purchases is known as such whatever its weight.
        if weights[1..].iter().all(|&weight| weight == 0) {
            return Ok(Self::PURCHASES);
        }
        Ok(Self(weights))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cards(count: u64) -> Vec<CardNumber> {
        (0..count)
            .map(|number| CardNumber::from_digits(format!("{:016}", 6_230_000_000_000_000 + number).as_bytes()).unwrap())
            .collect()
    }

    /// How often each card came, most often first.
    fn drawn(popularity: &str, count: u64, draws: usize) -> Vec<usize> {
        let mut cards = Cards::new(cards(count), popularity.parse().unwrap()).unwrap();
        let mut chance = Rng::new();
        let mut times = std::collections::HashMap::new();
        for _ in 0..draws {
            *times.entry(cards.draw(&mut chance)).or_insert(0) += 1;
        }
        let mut times: Vec<usize> = times.into_values().collect();
        times.sort_unstable_by(|left, right| right.cmp(left));
        times
    }

    #[test]
    fn uniform_draws_all_cards_alike() {
        let times = drawn("uniform", 10, 100_000);
        assert_eq!(times.len(), 10);
        assert!(times.iter().all(|&times| (9_000..11_000).contains(&times)), "{times:?}");
    }

    #[test]
    fn zipf_draws_the_second_half_as_often_as_the_first() {
        let times = drawn("zipf:1", 100, 200_000);
        // The hundredth harmonic number is 5.187.
        assert!((36_500..40_600).contains(&times[0]), "{times:?}");
        assert!((18_000..20_600).contains(&times[1]), "{times:?}");
        assert!((12_000..13_700).contains(&times[2]), "{times:?}");
        let flat = drawn("zipf:0", 10, 100_000);
        assert!(flat.iter().all(|&times| (9_000..11_000).contains(&times)), "{flat:?}");
    }

    #[test]
    fn a_hot_set_has_its_share() {
        let times = drawn("hot:0.1:0.9", 100, 100_000);
        let hot: usize = times[..10].iter().sum();
        assert!((89_000..91_000).contains(&hot), "{hot}");
        assert_eq!(times.len(), 100);
        assert_eq!(drawn("hot:1:0.5", 10, 10_000).len(), 10);
    }

    #[test]
    fn which_cards_are_popular_is_the_same_in_every_run() {
        let most = || {
            let mut cards = Cards::new(cards(1000), Popularity::Hot { cards: 0.001, requests: 1.0 }).unwrap();
            cards.draw(&mut Rng::new())
        };
        assert_eq!(most(), most());
    }

    #[test]
    fn wrong_popularities_are_refused_with_what_would_be_right() {
        for text in ["", "zipf", "zipf:x", "zipf:-1", "hot:0:0.5", "hot:0.1", "hot:0.1:2", "hot:nan:1", "normal"] {
            assert!(text.parse::<Popularity>().unwrap_err().contains("zipf:EXPONENT"), "{text}");
        }
    }

    #[test]
    fn a_mix_draws_by_weight() {
        let mix: Mix = "purchase=6, balance=3, repeat=1".parse().unwrap();
        let mut chance = Rng::new();
        let mut times = [0; 4];
        for _ in 0..100_000 {
            times[mix.draw(&mut chance) as usize] += 1;
        }
        assert!((58_000..62_000).contains(&times[Operation::Purchase as usize]), "{times:?}");
        assert!((28_500..31_500).contains(&times[Operation::Balance as usize]), "{times:?}");
        assert_eq!(times[Operation::Reversal as usize], 0);
        assert!((9_000..11_000).contains(&times[Operation::Repeat as usize]), "{times:?}");
        assert_eq!("purchase=7".parse(), Ok(Mix::PURCHASES));
        assert!(mix.has(Operation::Repeat) && !mix.has(Operation::Reversal));
    }

    #[test]
    fn wrong_mixes_are_refused() {
        for text in
            ["", "purchase", "purchase=x", "purchase=0", "refund=1", "load=1", "reversal=1", "balance=5,repeat=2", "purchase=70000"]
        {
            assert!(text.parse::<Mix>().is_err(), "{text}");
        }
    }
}
