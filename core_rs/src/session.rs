//! Sessions and their keys.
//!
//! A session is two nonces ([`Session`], part of the ledger's state and so of the journal: it survives a restart). What
//! follows from the nonces and the terminal's master key, the MAC keys, is worked out once and kept in the [`KeyRing`]
//! beside the ledger; the ledger itself never sees a key in the clear. PIN keys are worked out when one is needed: most
//! messages carry no PIN, and a key that is not kept cannot be found.
//!
//! Always true here: a message is proved by at most one key; after a sign-on the previous session's key proves messages
//! until the first one under the new key, for the answer to the sign-on may have been lost.

use zeroize::Zeroizing;

use crate::mac::{KeyEncryptionKey, MacKey, MacMismatch, MasterKey};
use crate::pin::{PinKey, PinVerificationKey};

/// The nonces that a session's keys come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nonces {
    /// The terminal's, DE48 tag 01 of the sign-on.
    pub terminal: [u8; 8],
    /// The switch's, DE48 tag 02 of the answer.
    pub switch: [u8; 8],
}

/// A terminal's session as the ledger remembers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Session {
    /// The newest, if the terminal is signed on.
    pub current: Option<Nonces>,
    /// The one before, until the newest has proved a message.
    pub previous: Option<Nonces>,
}

impl Session {
    /// A sign-on was approved.
    pub fn sign_on(&mut self, nonces: Nonces) {
        self.previous = self.current.replace(nonces);
    }

    /// The terminal signed off.
    pub fn sign_off(&mut self) {
        *self = Self::default();
    }

    /// A message was proved by the key in `slot`.
    pub fn proved(&mut self, slot: KeySlot) {
        if slot == KeySlot::Current {
            self.previous = None;
        }
    }
}

/// Which key proved a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum KeySlot {
    /// The sign-on key.
    SignOn = 0,
    /// The newest session's.
    Current = 1,
    /// The session's before.
    Previous = 2,
}

impl KeySlot {
    /// The slot with this journal number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::SignOn, Self::Current, Self::Previous].get(usize::from(number)).copied()
    }
}

struct Keys {
    master: MasterKey,
    sign_on: MacKey,
    current: Option<MacKey>,
    previous: Option<MacKey>,
}

/// The working keys of every terminal, by the terminal's index.
pub struct KeyRing {
    own: KeyEncryptionKey,
    pin_verification: PinVerificationKey,
    keys: Vec<Keys>,
}

impl KeyRing {
    /// An empty ring under the switch's own key.
    #[must_use]
    pub fn new(own: KeyEncryptionKey) -> Self {
        let pin_verification = PinVerificationKey::new(&Zeroizing::new(own.pin_verification_key_bytes()));
        Self { own, pin_verification, keys: Vec::new() }
    }

    /// The key under which the journal holds PINs.
    #[must_use]
    pub fn pin_verification(&self) -> &PinVerificationKey {
        &self.pin_verification
    }

    /// Wraps a master key for the journal.
    #[must_use]
    pub fn wrap(&self, master: &MasterKey) -> [u8; 24] {
        self.own.wrap(master)
    }

    /// Whether the switch's own key opens this wrapped master key.
    #[must_use]
    pub fn opens(&self, wrapped: &[u8; 24]) -> bool {
        self.own.unwrap(wrapped).is_ok()
    }

    /// Works out the keys of the terminal at `index` again: it is new, has another master key, or its session changed.
    ///
    /// # Panics
    /// If its master key cannot be unwrapped; [`Self::opens`] tells beforehand.
    pub fn refresh(&mut self, index: u32, id: &[u8; 8], wrapped_key: &[u8; 24], session: Session) {
        let master = self.own.unwrap(wrapped_key).expect("a terminal's key is tried before it is taken up");
        let key = |nonces: Nonces| master.session_mac_key(id, &nonces.terminal, &nonces.switch);
        let keys = Keys {
            sign_on: master.sign_on_key(id),
            current: session.current.map(key),
            previous: session.previous.map(key),
            master,
        };
        match self.keys.get_mut(index as usize) {
            Some(place) => *place = keys,
            None => {
                assert_eq!(self.keys.len(), index as usize, "terminals are entered in order");
                self.keys.push(keys);
            }
        }
    }

    /// The terminal at `index` signed on.
    pub fn sign_on(&mut self, index: u32, id: &[u8; 8], nonces: Nonces) {
        let keys = &mut self.keys[index as usize];
        keys.previous = keys.current.take();
        keys.current = Some(keys.master.session_mac_key(id, &nonces.terminal, &nonces.switch));
    }

    /// The terminal at `index` signed off.
    pub fn sign_off(&mut self, index: u32) {
        let keys = &mut self.keys[index as usize];
        (keys.current, keys.previous) = (None, None);
    }

    /// Finds the key that proves `tag` over `covered`: the sign-on key if `sign_on`, else one of the session's.
    ///
    /// # Errors
    /// [`MacMismatch`] where none does, or there is no session.
    pub fn prove(&mut self, index: u32, sign_on: bool, covered: &[u8], tag: &[u8; 8]) -> Result<KeySlot, MacMismatch> {
        let keys = &mut self.keys[index as usize];
        if sign_on {
            return keys.sign_on.verify(covered, tag).map(|()| KeySlot::SignOn);
        }
        if let Some(current) = &keys.current
            && current.verify(covered, tag).is_ok()
        {
            // An inquiry too proves that the terminal has the new key, though it leaves no record: after a restart the
            // previous key may be taken once more, which harms nobody.
            keys.previous = None;
            return Ok(KeySlot::Current);
        }
        match &keys.previous {
            Some(previous) => previous.verify(covered, tag).map(|()| KeySlot::Previous),
            None => Err(MacMismatch),
        }
    }

    /// The key in `slot`, for the reply to a request that it proved.
    #[must_use]
    pub fn key(&self, index: u32, slot: KeySlot) -> Option<&MacKey> {
        let keys = &self.keys[index as usize];
        match slot {
            KeySlot::SignOn => Some(&keys.sign_on),
            KeySlot::Current => keys.current.as_ref(),
            KeySlot::Previous => keys.previous.as_ref(),
        }
    }

    /// The key of the PIN blocks in messages that the key in `slot` proved; `None` where there is no such session, or the slot
    /// is the sign-on key's. `session` is the session of the terminal at `index`, whose DE41 is `id`.
    #[must_use]
    pub fn pin_key(&self, index: u32, id: &[u8; 8], session: Session, slot: KeySlot) -> Option<PinKey> {
        let nonces = match slot {
            KeySlot::SignOn => None,
            KeySlot::Current => session.current,
            KeySlot::Previous => session.previous,
        }?;
        let key = self.keys[index as usize].master.session_pin_key_bytes(id, &nonces.terminal, &nonces.switch);
        Some(PinKey::new(&Zeroizing::new(key)))
    }

    /// Bytes held.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.keys.capacity() * size_of::<Keys>()
    }
}
