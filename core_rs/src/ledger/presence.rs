//! Who went through which door last, and in which direction: so that a card is not passed back to the next one at the gate.
//!
//! It is kept for the zones that have a rule about it. Moments are the terminals' own, by DE13 and DE12, so that what
//! happened offline counts when it happened.

use std::collections::BTreeMap;

use super::bytes::{Decoder, Encoder};
use super::registry::Zone;
use crate::calendar::Date;
use crate::limits::ANTI_PASSBACK_MINUTES_MAX;

/// Minutes in a day.
const DAY_MINUTES: u64 = 1_440;

/// Through a door.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Direction {
    In = 1,
    Out = 2,
}

/// The last passage of each holder through each zone's doors: the direction, and the minute since 2000-01-01.
#[derive(Default)]
pub(super) struct Presence(BTreeMap<(u32, Zone), (Direction, u64)>);

impl Presence {
    /// Whether the holder went the same way within so many minutes, and not the other way since. Before or after: the clocks of two
    /// gates are never quite the same.
    pub(super) fn refuses(&self, holder: u32, zone: Zone, direction: Direction, minute: u64, minutes: u32) -> bool {
        self.0.get(&(holder, zone)).is_some_and(|&(last, at)| last == direction && at.abs_diff(minute) < u64::from(minutes))
    }

    /// The holder went through. An older passage, told of late, changes nothing.
    pub(super) fn note(&mut self, holder: u32, zone: Zone, direction: Direction, minute: u64) {
        let last = self.0.entry((holder, zone)).or_insert((direction, minute));
        if last.1 <= minute {
            *last = (direction, minute);
        }
    }

    /// Other rules are in force: forgets the zones that have none any more, because who goes through their doors is not noted from
    /// here on.
    pub(super) fn follow(&mut self, is_ruled: impl Fn(&Zone) -> bool) {
        self.0.retain(|(_, zone), _| is_ruled(zone));
    }

    /// Forgets what no rule looks back to from this business date.
    pub(super) fn cut_over(&mut self, date: Date) {
        let oldest = (u64::from(date.0) * DAY_MINUTES).saturating_sub(ANTI_PASSBACK_MINUTES_MAX.unsigned_abs());
        self.0.retain(|_, &mut (_, minute)| minute >= oldest);
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        self.0.len() * 2 * size_of::<((u32, Zone), (Direction, u64))>()
    }

    /// All of them, by holder and zone.
    pub(super) fn rows(&self) -> impl ExactSizeIterator<Item = ((u32, Zone), (Direction, u64))> {
        self.0.iter().map(|(&key, &passage)| (key, passage))
    }

    pub(super) fn put(row: &mut Encoder<'_>, ((holder, zone), (direction, minute)): ((u32, Zone), (Direction, u64))) {
        row.u32(holder);
        row.text(zone.as_str());
        row.u8(direction as u8);
        row.u64(minute);
    }

    /// Takes a row of the image, where there are so many holders; rows come in order.
    pub(super) fn take(&mut self, row: &mut Decoder<'_>, holders: usize) -> Option<()> {
        let key = (row.u32()?, Zone::new(row.text()?)?);
        let direction = match row.u8()? {
            1 => Direction::In,
            2 => Direction::Out,
            _ => return None,
        };
        let minute = row.u64()?;
        let in_order = self.0.last_key_value().is_none_or(|(&last, _)| last < key);
        ((key.0 as usize) < holders && in_order).then(|| {
            self.0.insert(key, (direction, minute));
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_way_twice_is_refused_for_so_long_and_the_other_way_never() {
        let zone = Zone::new("library").unwrap();
        let mut presence = Presence::default();
        assert!(!presence.refuses(1, zone, Direction::In, 100, 30));
        presence.note(1, zone, Direction::In, 100);
        for (minute, refused) in [(70, false), (71, true), (99, true), (100, true), (129, true), (130, false)] {
            assert_eq!(presence.refuses(1, zone, Direction::In, minute, 30), refused, "{minute}");
        }
        assert!(!presence.refuses(1, zone, Direction::Out, 101, 30));
        assert!(!presence.refuses(2, zone, Direction::In, 101, 30));
        assert!(!presence.refuses(1, Zone::new("dorm").unwrap(), Direction::In, 101, 30));
        presence.note(1, zone, Direction::Out, 90);
        assert!(presence.refuses(1, zone, Direction::In, 101, 30), "what is told late does not undo what came after");
        presence.note(1, zone, Direction::Out, 110);
        assert!(!presence.refuses(1, zone, Direction::In, 111, 30));
        presence.note(1, Zone::new("dorm").unwrap(), Direction::In, 110);
        presence.follow(|ruled| *ruled == zone);
        assert!(presence.refuses(1, zone, Direction::Out, 111, 30));
        assert!(!presence.refuses(1, Zone::new("dorm").unwrap(), Direction::In, 111, 30));
    }

    #[test]
    fn a_cutover_forgets_what_no_rule_looks_back_to() {
        let zone = Zone::new("library").unwrap();
        let mut presence = Presence::default();
        presence.note(1, zone, Direction::In, 8 * DAY_MINUTES - 1);
        presence.note(2, zone, Direction::In, 8 * DAY_MINUTES);
        presence.cut_over(Date(15));
        assert_eq!(presence.rows().map(|((holder, _), _)| holder).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn an_image_holds_what_was_there_and_nothing_that_cannot_be() {
        let (gate, library) = (Zone::new("gate").unwrap(), Zone::new("library").unwrap());
        let mut presence = Presence::default();
        presence.note(1, library, Direction::Out, 200);
        presence.note(1, gate, Direction::In, 100);
        presence.note(0, library, Direction::In, 300);
        let mut bytes = Vec::new();
        presence.rows().for_each(|passage| Presence::put(&mut Encoder(&mut bytes), passage));
        let take = |bytes: &[u8], holders: usize| {
            let (mut row, mut taken) = (Decoder(bytes), Presence::default());
            while !row.0.is_empty() {
                taken.take(&mut row, holders)?;
            }
            Some(taken.0)
        };
        assert_eq!(take(&bytes, 2), Some(presence.0));
        assert_eq!(take(&bytes, 1), None, "a holder who is not there");
        assert_eq!(take(&bytes[..bytes.len() - 1], 2), None, "a row cut short");
        assert_eq!(take(&bytes.repeat(2), 2), None, "rows out of order");
        let first = 4 + 2 + "library".len() + 1 + 8;
        assert_eq!(take(&bytes[..first].repeat(2), 2), None, "a row twice");
        let direction = 4 + 2 + "library".len();
        for (number, is_one) in [(0, false), (1, true), (2, true), (3, false)] {
            bytes[direction] = number;
            assert_eq!(take(&bytes, 2).is_some(), is_one, "direction {number}");
        }
    }
}
