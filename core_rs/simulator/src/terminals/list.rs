//! The hotlist as a terminal keeps it, by nothing but the answers that it got.

use std::collections::BTreeSet;

use super::Heard;
use crate::message::Draft;

/// What is put aside until a reading is whole.
struct Reading {
    /// The version that its first piece has named.
    reached: u64,
    changes: Vec<(bool, String)>,
}

/// A terminal's own list.
#[derive(Default)]
pub(super) struct OwnList {
    /// Its version.
    pub(super) version: u64,
    /// The cards on it.
    pub(super) cards: BTreeSet<String>,
    reading: Option<Reading>,
    /// The piece that was asked for: its request.
    asked: Option<usize>,
}

/// What a piece has led to.
#[derive(PartialEq, Eq)]
pub(super) enum Progress {
    /// To nothing.
    None,
    /// The reading was forgotten or disturbed, and begins anew.
    Anew,
    /// The list is whole.
    Whole,
}

impl OwnList {
    /// Whether a reading is under way and its next piece can be asked for.
    pub(super) fn goes_on(&self) -> bool {
        self.reading.is_some() && self.asked.is_none()
    }

    pub(super) fn waits(&self) -> bool {
        self.asked.is_some()
    }

    /// What to ask for next.
    pub(super) fn fill(&self, draft: &mut Draft) {
        (draft.update, draft.file) = (Some('5'), Some("HOTLIST"));
        draft.private.push((50, format!("{:010}", self.version)));
        if let Some((_, card)) = self.reading.as_ref().and_then(|reading| reading.changes.last()) {
            draft.private.push((51, card.clone()));
        }
    }

    pub(super) fn ask(&mut self, request: usize) {
        self.asked = Some(request);
    }

    /// Nobody waits for this piece any more.
    pub(super) fn give_up(&mut self, request: usize) {
        self.asked = self.asked.filter(|asked| *asked != request);
    }

    pub(super) fn hear(&mut self, request: usize, heard: &Heard) -> Progress {
        if self.asked.take_if(|asked| *asked == request).is_none() {
            return Progress::None;
        }
        let tag = |tag: u8| heard.private.iter().find(|(own, _)| *own == tag).map(|(_, value)| value.as_str());
        let reached = tag(50).and_then(|version| version.parse::<u64>().ok());
        let (Some(reached), "00") = (reached, heard.code.as_str()) else {
            self.reading = None;
            return Progress::None;
        };
        let reading = self.reading.get_or_insert(Reading { reached, changes: Vec::new() });
        if reading.reached != reached {
            self.reading = None;
            return Progress::Anew;
        }
        let changes = heard.private.iter().filter(|(tag, _)| *tag == 53);
        reading.changes.extend(changes.map(|(_, change)| (change.starts_with('+'), change[1..].to_owned())));
        if tag(52) == Some("1") {
            return Progress::None;
        }
        let reading = self.reading.take().expect("it was just read");
        for (came, card) in reading.changes {
            if came {
                self.cards.insert(card)
            } else {
                self.cards.remove(&card)
            };
        }
        self.version = reached;
        Progress::Whole
    }
}
