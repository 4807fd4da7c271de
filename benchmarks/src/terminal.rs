//! What a terminal does: its keys, its requests, and its mistrust of every answer.
//!
//! Always true here: a request is encoded and its MAC made when it is sent, as a till does it, never before; an answer is
//! good only if its MAC proves it and every element says what this terminal asked for.

use std::path::Path;

use switch_core::calendar::{CampusCalendar, Timestamp};
use switch_core::card_number::CardNumber;
use switch_core::iso8583::{Message, Writer};
use switch_core::mac::{MacKey, MasterKey};

use crate::Failure;

/// Fen; with the cards' opening balances nobody runs out of money within a run.
const AMOUNT_MAX: u64 = 2_000;

/// The campus as the switch imported it.
pub(crate) struct Campus {
    /// DE41, DE42 and master key of each till.
    pub(crate) tills: Vec<([u8; 8], [u8; 15], MasterKey)>,
    /// Cards to pay with.
    pub(crate) cards: Vec<CardNumber>,
}

impl Campus {
    /// Reads `terminals.csv` and `cards.csv` in `folder`. Terminals of other kinds than pos are left out.
    pub(crate) fn read(folder: &Path) -> Result<Self, Failure> {
        let mut campus = Self { tills: Vec::new(), cards: Vec::new() };
        for row in csv::Reader::from_path(folder.join("terminals.csv"))?.records() {
            let row = row?;
            if &row[2] == "pos" {
                let key = u128::from_str_radix(&row[4], 16)?.to_be_bytes();
                campus.tills.push((padded(&row[0])?, padded(&row[1])?, MasterKey::new(key)));
            }
        }
        for row in csv::Reader::from_path(folder.join("cards.csv"))?.records() {
            let number = row?[0].to_owned();
            let card = CardNumber::from_digits(number.as_bytes()).ok_or_else(|| format!("{number} is no card number"))?;
            campus.cards.push(card);
        }
        Ok(campus)
    }
}

fn padded<const N: usize>(text: &str) -> Result<[u8; N], Failure> {
    let mut field = [b' '; N];
    field.get_mut(..text.len()).ok_or_else(|| format!("{text:?} has more than {N} characters"))?.copy_from_slice(text.as_bytes());
    Ok(field)
}

/// The moment that a request carries: DE13 (MMDD) and DE12 (hhmmss), in the time zone of the campus, which is UTC here.
#[derive(Clone, Copy)]
pub(crate) struct Stamp {
    date: u16,
    time: u32,
}

/// Gives stamps; works one out once a second.
pub(crate) struct Clock {
    calendar: CampusCalendar,
    second: u64,
    stamp: Stamp,
}

impl Clock {
    pub(crate) fn new() -> Result<Self, Failure> {
        Ok(Self { calendar: CampusCalendar::new("UTC")?, second: 0, stamp: Stamp { date: 101, time: 0 } })
    }

    pub(crate) fn stamp(&mut self, now: Timestamp) -> Stamp {
        let second = now / 1_000_000;
        if second != self.second {
            self.second = second;
            let of_day = (second % 86_400) as u32;
            let time = of_day / 3_600 * 10_000 + of_day / 60 % 60 * 100 + of_day % 60;
            self.stamp = Stamp { date: self.calendar.date(now).month_day(), time };
        }
        self.stamp
    }
}

/// A purchase that has no answer yet.
pub(crate) struct Purchase {
    /// DE11.
    pub(crate) stan: u32,
    /// When it was sent, by the driver's clock, in nanoseconds.
    pub(crate) sent: u64,
    /// DE4, in fen.
    pub(crate) amount: u64,
    card: CardNumber,
    stamp: Stamp,
}

/// One terminal with its session.
pub(crate) struct Terminal {
    id: [u8; 8],
    merchant: [u8; 15],
    master: MasterKey,
    nonce: [u8; 8],
    /// The sign-on key, then the session's.
    key: MacKey,
    stan: u32,
}

impl Terminal {
    pub(crate) fn new((id, merchant, master): &([u8; 8], [u8; 15], MasterKey)) -> Self {
        let nonce = fastrand::u64(..).to_be_bytes();
        Self { id: *id, merchant: *merchant, master: master.clone(), nonce, key: master.sign_on_key(id), stan: 0 }
    }

    /// Writes the request for a session.
    pub(crate) fn sign_on(&mut self, stamp: Stamp, out: &mut Vec<u8>) {
        self.stan += 1;
        let mut request = Writer::begin(out, None, 800, true);
        request.number(11, u64::from(self.stan));
        request.number(12, u64::from(stamp.time));
        request.number(13, u64::from(stamp.date));
        request.text(41, &self.id);
        request.text(42, &self.merchant);
        request.text(48, format!("0116{:016X}", u64::from_be_bytes(self.nonce)).as_bytes());
        request.number(70, 1);
        request.finish(Some(&self.key));
    }

    /// Takes the answer to [`Self::sign_on`]; from here on the session's key proves messages.
    pub(crate) fn signed_on(&mut self, reply: &[u8]) -> Result<(), Failure> {
        let message = Message::parse(reply)?;
        let proved = message.mac().is_some_and(|(covered, tag)| self.key.verify(covered, &tag).is_ok());
        let nonce = message.sub_element(2).and_then(|text| u64::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok());
        match nonce {
            Some(nonce) if proved && message.text(39) == Some(b"00") => {
                self.key = self.master.session_mac_key(&self.id, &self.nonce, &nonce.to_be_bytes());
                Ok(())
            }
            _ => Err(format!("a sign-on was answered {message:?}, MAC {}", if proved { "good" } else { "wrong" }).into()),
        }
    }

    /// Writes the next purchase. Any card may come to any till.
    #[inline]
    pub(crate) fn purchase(&mut self, cards: &[CardNumber], stamp: Stamp, sent: u64, out: &mut Vec<u8>) -> Purchase {
        self.stan += 1;
        assert!(self.stan < 1_000_000, "a terminal has 999,999 numbers a day; drive more terminals");
        let card = cards[fastrand::usize(..cards.len())];
        let purchase = Purchase { stan: self.stan, sent, amount: fastrand::u64(1..=AMOUNT_MAX), card, stamp };
        let mut request = Writer::begin(out, None, 200, false);
        request.card_number(card);
        request.number(3, 0);
        request.number(4, purchase.amount);
        request.number(11, u64::from(purchase.stan));
        request.number(12, u64::from(stamp.time));
        request.number(13, u64::from(stamp.date));
        request.text(41, &self.id);
        request.text(42, &self.merchant);
        request.text(49, b"156");
        request.finish(Some(&self.key));
        purchase
    }

    /// What is wrong with the answer to a purchase, if anything. All of it is looked at whatever is wrong first, so that a bare
    /// echo's answers cost the driver the same.
    #[inline]
    pub(crate) fn mistrust(&self, purchase: &Purchase, reply: &Message<'_>) -> Option<&'static str> {
        let number = |element: u8, expected: u64| reply.number(element) == Some(expected);
        let transaction = reply.text(37).filter(|digits| digits.iter().all(u8::is_ascii_digit));
        let checks = [
            (reply.mac().is_some_and(|(covered, tag)| self.key.verify(covered, &tag).is_ok()), "its MAC proves nothing"),
            (reply.mti() == 210 && reply.fault().is_none(), "it is no purchase reply"),
            (reply.text(39) == Some(b"00"), "it is not approved"),
            (number(11, purchase.stan.into()) && number(13, purchase.stamp.date.into()), "it answers another request"),
            (number(3, 0) && number(4, purchase.amount) && reply.card_number() == Some(purchase.card), "it has another content"),
            (number(12, purchase.stamp.time.into()) && reply.text(49) == Some(b"156"), "its time or currency is another"),
            (reply.text(41) == Some(&self.id) && reply.text(42) == Some(&self.merchant), "it is for another terminal"),
            (transaction.is_some() && transaction.map(|digits| &digits[6..]) == reply.text(38), "its numbers do not agree"),
            (reply.has(15) && reply.text(54).is_some_and(|purses| purses.len() == 40), "date or balances are missing"),
        ];
        checks.into_iter().find(|(good, _)| !good).map(|(_, fault)| fault)
    }
}

/// A purchase's answer with its frame, as long as the switch's: what the bare echo sends.
pub(crate) fn sample_reply() -> Vec<u8> {
    let mut out = Vec::new();
    let mut reply = Writer::begin(&mut out, None, 210, false);
    reply.card_number(CardNumber::from_digits(b"6230000000000017").expect("sixteen digits"));
    for (element, value) in [(3, 0), (4, 850), (11, 2), (12, 120_501), (13, 1_122), (15, 1_122)] {
        reply.number(element, value);
    }
    let texts: [(u8, &[u8]); 7] = [
        (37, b"000000000001"),
        (38, b"000001"),
        (39, b"00"),
        (41, b"T0000001"),
        (42, b"M00000000000001"),
        (49, b"156"),
        (54, b"1002156C0000000099992002156C000000000000"),
    ];
    for (element, text) in texts {
        reply.text(element, text);
    }
    reply.finish(Some(&MacKey::new(&[0; 16])));
    out
}
