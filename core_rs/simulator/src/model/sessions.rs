//! Terminals: their keys and sessions, and which merchant they may name.

use super::calendar::civil;
use super::request::{Identity, Operation};
use super::{Asked, Effect, Model};
use crate::message::{Draft, Key, Nonces};

/// A terminal.
#[derive(Clone)]
pub(super) struct Terminal {
    pub(super) merchant: &'static str,
    pub(super) kind: &'static str,
    pub(super) zone: &'static str,
    pub(super) key: [u8; 16],
    pub(super) current: Option<Nonces>,
    pub(super) previous: Option<Nonces>,
    /// Whether the running switch still takes the previous session's key; a restart asks the journal again.
    pub(super) takes_previous: bool,
    /// Its open batch.
    pub(super) batch: u32,
}

impl Model {
    /// Whether the key proves the message. `None`: it does not; else whether it is the newest session's.
    pub(super) fn prove(&mut self, draft: &Draft, key: Key, operation: Operation) -> Option<bool> {
        let terminal = self.terminals.get_mut(&draft.terminal).expect("a known terminal");
        match key {
            Key::None if operation == Operation::Echo => Some(false),
            Key::SignOn(master) if operation == Operation::SignOn => (master == terminal.key).then_some(false),
            Key::Session(master, nonces) if operation != Operation::SignOn && master == terminal.key => {
                if terminal.current == Some(nonces) {
                    terminal.takes_previous = false;
                    return Some(true);
                }
                (terminal.takes_previous && terminal.previous == Some(nonces)).then_some(false)
            }
            _ => None,
        }
    }

    /// Once the newest session has proved a remembered message, the one before it is no more.
    pub(super) fn follow_session(&mut self, terminal: [u8; 8], is_current: bool) {
        if is_current {
            self.terminals.get_mut(&terminal).expect("known").previous = None;
        }
    }

    /// Whether a terminal may ask this and names its own merchant, or the one that it had when it did what this is about.
    pub(super) fn terminal_may(&self, draft: &Draft, operation: Operation, about: Identity) -> bool {
        let terminal = &self.terminals[&draft.terminal];
        let before = || self.decisions.get(&about).map(|decided| decided.merchant);
        let own = draft.merchant.is_none_or(|named| named == terminal.merchant || Some(named) == before());
        own && operation.is_allowed_to(terminal.kind)
    }

    pub(super) fn sign_on(&mut self, asked: &Asked<'_>, nonce: [u8; 8]) -> Effect {
        let (year, month, day) = civil(self.day);
        let terminal = self.terminals.get_mut(&asked.draft.terminal).expect("known");
        terminal.previous = terminal.current.replace((asked.draft.nonce.expect("asked for"), nonce));
        terminal.takes_previous = true;
        let private = format!("0216{:016X}0308{year:04}{month:02}{day:02}", u64::from_be_bytes(nonce));
        Effect { private: Some(private), ..Effect::default() }
    }

    pub(super) fn sign_off(&mut self, asked: &Asked<'_>) -> Effect {
        let terminal = self.terminals.get_mut(&asked.draft.terminal).expect("known");
        (terminal.current, terminal.previous) = (None, None);
        Effect::default()
    }
}
