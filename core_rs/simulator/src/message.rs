//! What a terminal sends: the meaning, which the model reads, and the bytes, which the switch reads.

use std::fmt;

use switch_core::card_number::CardNumber;
use switch_core::iso8583::{Tpdu, Writer};
use switch_core::mac::{MacKey, MasterKey};

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
}

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
    /// DE90.
    pub original: Option<Original>,
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
        Ok(())
    }
}

impl Draft {
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
            original: None,
        }
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self, tpdu: Option<Tpdu>, key: Key) -> Vec<u8> {
        let mut out = Vec::new();
        let second = self.network.is_some() || self.original.is_some();
        let mut writer = Writer::begin(&mut out, tpdu, self.mti, second);
        if let Some(card) = &self.card {
            writer.card_number(CardNumber::from_digits(card.as_bytes()).expect("digits"));
        }
        let mut number = |element: u8, value: Option<u64>| {
            if let Some(value) = value {
                writer.number(element, value);
            }
        };
        number(3, self.processing.map(u64::from));
        number(4, self.amount);
        number(11, Some(u64::from(self.stan)));
        number(12, Some(u64::from(self.time)));
        number(13, Some(u64::from(self.month_day)));
        number(24, self.nii.map(u64::from));
        writer.text(41, &self.terminal);
        if let Some(merchant) = self.merchant {
            writer.text(42, merchant.as_bytes());
        }
        if let Some(nonce) = self.nonce {
            writer.text(48, format!("0116{:016X}", u64::from_be_bytes(nonce)).as_bytes());
        }
        if self.currency {
            writer.text(49, b"156");
        }
        if let Some(batch) = self.batch {
            writer.text(60, format!("{batch:06}").as_bytes());
        }
        if let Some(network) = self.network {
            writer.number(70, u64::from(network));
        }
        if let Some(Original { mti, stan, month_day, time }) = self.original {
            writer.digits(90, format!("{mti:04}{stan:06}{month_day:04}{time:06}{:022}", 0).as_bytes());
        }
        writer.finish(key.working(&self.terminal).as_ref());
        out
    }
}
