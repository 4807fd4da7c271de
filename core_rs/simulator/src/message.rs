//! What a terminal sends: the meaning, which the model reads, and the bytes, which the switch reads.

use std::fmt::{self, Write};

use switch_core::card_number::CardNumber;
use switch_core::iso8583::{Tpdu, Writer};
use switch_core::mac::{MacKey, MasterKey};
use switch_core::pin::{Pin, PinKey};

/// Nonces of a session: the terminal's and the switch's.
pub type Nonces = ([u8; 8], [u8; 8]);

/// The key that a message is sent under.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key {
    /// No MAC at all.
    None,
    /// A key that nobody knows.
    Wrong,
    /// The sign-on key of this master key.
    SignOn([u8; 16]),
    /// A session's, of this master key.
    Session([u8; 16], Nonces),
}

impl Key {
    /// The working key for the terminal `id`; `None` without a MAC.
    #[must_use]
    pub fn working(self, id: &[u8; 8]) -> Option<MacKey> {
        match self {
            Self::None => None,
            Self::Wrong => Some(MacKey::new(&[0x99; 16])),
            Self::SignOn(master) => Some(MasterKey::new(master).sign_on_key(id)),
            Self::Session(master, (terminal, switch)) => Some(MasterKey::new(master).session_mac_key(id, &terminal, &switch)),
        }
    }

    /// The PIN key that goes with it; under anything but a session's no PIN can be enciphered.
    fn pin_key(self, id: [u8; 8]) -> PinKey {
        match self {
            Self::Session(master, (terminal, switch)) => {
                PinKey::new(&MasterKey::new(master).session_pin_key_bytes(&id, &terminal, &switch))
            }
            _ => PinKey::new(&[0x99; 16]),
        }
    }
}

/// What stands in DE48 tag 52.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PinEntry {
    /// A block of these digits.
    Digits(String),
    /// 32 hex digits that are no block.
    NoBlock,
    /// Fewer than 32 hex digits.
    Short,
}

/// DE74 to DE77, then DE86 to DE89: numbers and amounts of credits, credit reversals, debits, debit reversals.
pub type Totals = [u64; 8];

/// The elements of [`Totals`], in its order.
pub const TOTALS: [u8; 8] = [74, 75, 76, 77, 86, 87, 88, 89];

/// The original that a reversal names in DE90.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Original {
    /// Its MTI.
    pub mti: u16,
    /// Its STAN.
    pub stan: u32,
    /// Its DE13, MMDD.
    pub month_day: u16,
    /// Its DE12.
    pub time: u32,
}

/// A request as the terminal means it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Draft {
    /// MTI.
    pub mti: u16,
    /// DE41, eight bytes.
    pub terminal: [u8; 8],
    /// DE11.
    pub stan: u32,
    /// DE12.
    pub time: u32,
    /// DE13, MMDD.
    pub month_day: u16,
    /// DE2.
    pub card: Option<String>,
    /// DE3.
    pub processing: Option<u32>,
    /// DE4, fen.
    pub amount: Option<u64>,
    /// Whether DE49 is there.
    pub currency: bool,
    /// DE24.
    pub nii: Option<u16>,
    /// DE42.
    pub merchant: Option<&'static str>,
    /// DE60.
    pub batch: Option<u32>,
    /// DE70.
    pub network: Option<u16>,
    /// DE48 tag 01 of a sign-on.
    pub nonce: Option<[u8; 8]>,
    /// DE37 where it is asked for: the transaction number of an original, as it was typed.
    pub number: Option<String>,
    /// DE48's other sub-elements: tag and value.
    pub private: Vec<(u8, String)>,
    /// DE48 tag 52.
    pub pin: Option<PinEntry>,
    /// What the terminal has counted.
    pub totals: Option<Totals>,
    /// DE90.
    pub original: Option<Original>,
    /// DE91.
    pub update: Option<char>,
    /// DE101.
    pub file: Option<&'static str>,
}

impl fmt::Display for Draft {
    /// As an operator would write it down.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mti, stan, month_day, time, .. } = self;
        write!(formatter, "{mti:04} {} #{stan} {month_day:04} {time:06}", String::from_utf8_lossy(&self.terminal).trim_end())?;
        if let Some(card) = &self.card {
            write!(formatter, " card {card}")?;
        }
        if let Some(processing) = self.processing {
            write!(formatter, " DE3 {processing:06}")?;
        }
        if let Some(amount) = self.amount {
            write!(formatter, " {amount} fen{}", if self.currency { "" } else { " of no currency" })?;
        }
        if let Some(merchant) = self.merchant {
            write!(formatter, " at {merchant}")?;
        }
        if let Some(network) = self.network {
            write!(formatter, " DE70 {network:03}")?;
        }
        if let Some(Original { mti, stan, month_day, .. }) = self.original {
            write!(formatter, " of {mti:04} #{stan} {month_day:04}")?;
        }
        if let Some(number) = &self.number {
            write!(formatter, " of transaction {number}")?;
        }
        if let Some(batch) = self.batch {
            write!(formatter, " batch {batch}")?;
        }
        for (tag, value) in &self.private {
            write!(formatter, " tag {tag} {value:?}")?;
        }
        match (&self.pin, &self.totals, self.update) {
            (Some(pin), ..) => write!(formatter, " PIN {pin:?}"),
            (_, Some(totals), _) => write!(formatter, " totals {totals:?}"),
            (_, _, Some(update)) => write!(formatter, " DE91 {update}"),
            _ => Ok(()),
        }
    }
}

impl Draft {
    /// The value of DE48's sub-element `tag`.
    #[must_use]
    pub fn tag(&self, tag: u8) -> Option<&str> {
        self.private.iter().find(|(own, _)| *own == tag).map(|(_, value)| value.as_str())
    }

    /// A request with nothing but what each has.
    #[must_use]
    pub fn new(mti: u16, terminal: [u8; 8], stan: u32, time: u32, month_day: u16) -> Self {
        Self {
            mti,
            terminal,
            stan,
            time,
            month_day,
            card: None,
            processing: None,
            amount: None,
            currency: false,
            nii: None,
            merchant: None,
            batch: None,
            network: None,
            nonce: None,
            number: None,
            private: Vec::new(),
            pin: None,
            totals: None,
            original: None,
            update: None,
            file: None,
        }
    }

    /// DE48 as it goes over the wire; empty where there is none.
    fn private_data(&self, key: Key) -> String {
        let mut data = String::new();
        let mut put = |tag: u8, value: &str| write!(data, "{tag:02}{:02}{value}", value.len()).expect("memory");
        if let Some(nonce) = self.nonce {
            put(1, &format!("{:016X}", u64::from_be_bytes(nonce)));
        }
        self.private.iter().for_each(|(tag, value)| put(*tag, value));
        match &self.pin {
            None => {}
            Some(PinEntry::Digits(digits)) => {
                let card = self.card.as_deref().unwrap_or("0");
                let card = CardNumber::from_digits(card.as_bytes()).expect("digits");
                let pin = Pin::from_digits(digits.as_bytes()).expect("a PIN");
                let block = key.pin_key(self.terminal).encrypt(&pin, card, u64::from(self.stan).to_be_bytes());
                put(52, &format!("{:032x}", u128::from_be_bytes(block)));
            }
            Some(PinEntry::NoBlock) => put(52, &format!("{:032X}", u128::from(self.stan) << 64 | 0xabcd)),
            Some(PinEntry::Short) => put(52, "0123456789abcdef"),
        }
        data
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self, tpdu: Option<Tpdu>, key: Key) -> Vec<u8> {
        let mut out = Vec::new();
        let second = self.network.is_some() || self.original.is_some() || self.totals.is_some() || self.update.is_some();
        let mut writer = Writer::begin(&mut out, tpdu, self.mti, second || self.file.is_some());
        if let Some(card) = &self.card {
            writer.card_number(CardNumber::from_digits(card.as_bytes()).expect("digits"));
        }
        let number = |writer: &mut Writer<'_>, element: u8, value: Option<u64>| {
            if let Some(value) = value {
                writer.number(element, value);
            }
        };
        number(&mut writer, 3, self.processing.map(u64::from));
        number(&mut writer, 4, self.amount);
        number(&mut writer, 11, Some(u64::from(self.stan)));
        number(&mut writer, 12, Some(u64::from(self.time)));
        number(&mut writer, 13, Some(u64::from(self.month_day)));
        number(&mut writer, 24, self.nii.map(u64::from));
        if let Some(original) = &self.number {
            writer.text(37, original.as_bytes());
        }
        writer.text(41, &self.terminal);
        if let Some(merchant) = self.merchant {
            writer.text(42, merchant.as_bytes());
        }
        let private = self.private_data(key);
        if !private.is_empty() {
            writer.text(48, private.as_bytes());
        }
        if self.currency {
            writer.text(49, b"156");
        }
        if let Some(batch) = self.batch {
            writer.text(60, format!("{batch:06}").as_bytes());
        }
        number(&mut writer, 70, self.network.map(u64::from));
        for (element, total) in TOTALS.into_iter().zip(self.totals.iter().flatten()) {
            writer.number(element, *total);
        }
        if let Some(Original { mti, stan, month_day, time }) = self.original {
            writer.digits(90, format!("{mti:04}{stan:06}{month_day:04}{time:06}{:022}", 0).as_bytes());
        }
        if let Some(update) = self.update {
            writer.text(91, &[update as u8]);
        }
        if let Some(file) = self.file {
            writer.text(101, file.as_bytes());
        }
        writer.finish(key.working(&self.terminal).as_ref());
        out
    }
}
