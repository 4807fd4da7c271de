//! What cards are shown for beside money: doors, the library, attendance; and what becomes of cards: lost, found.
//!
//! Always true here: an item is on loan to one holder at most; what is decided about a door is remembered either way; an
//! advice tells of what has happened, so it is not refused for the card's status or a door's rules, only flagged.

use super::command::{Outcome, Request};
use super::identities::{Deed, Remembered};
use super::ladder::card_decline;
use super::loans::Loan;
use super::presence::Direction;
use super::registry::{Act, CardStatus, EventKind, NONE};
use super::{Ledger, Response};

/// The minute that a message tells of, by its terminal's clock, since 2000-01-01.
fn local_minute(request: &Request) -> u64 {
    let time = u64::from(request.echo.time());
    u64::from(request.identity.date.0) * 1_440 + time / 10_000 * 60 + time / 100 % 100
}

impl Ledger {
    pub(super) fn identity_act(
        &mut self,
        position: u64,
        request: &Request,
        act: Act,
        item: &str,
        is_advice: bool,
        outcome: &mut Outcome,
    ) {
        let number = request.content.card().expect("a card is shown");
        if self.was_reversed_before(request) {
            return self.remembered(position, request, Response::InvalidTransaction, outcome);
        }
        let Some(index) = self.registry.cards.find(&number) else {
            return self.remembered(position, request, Response::NoSuchCard, outcome);
        };
        let direction = match act {
            Act::Enter => Some(Direction::In),
            Act::Leave => Some(Direction::Out),
            _ => None,
        };
        let card = &self.registry.cards[index];
        let refused = card_decline(card, self.business_date)
            .or_else(|| direction.filter(|&way| !self.lets_through(request, index, way)).map(|_| Response::NotPermitted));
        if is_advice {
            outcome.flag = refused;
        } else if let Some(response) = refused {
            return self.remembered(position, request, response, outcome);
        }
        let holder = card.holder;
        let impossible = match act {
            Act::Borrow => self.loans.find(item).map(|_| Response::InvalidTransaction),
            Act::Return => match self.loans.find(item) {
                None => Some(Response::OriginalNotFound),
                Some(loan) => (loan.holder != holder).then_some(Response::NotPermitted),
            },
            _ => None,
        };
        if let Some(response) = impossible {
            outcome.flag = None;
            return self.remembered(position, request, response, outcome);
        }

        // The point of no return.
        match act {
            Act::Borrow => self.loans.open(item, Loan { holder, card: index, position, date: self.business_date }),
            Act::Return => outcome.original = self.loans.close(item).map(|loan| loan.position),
            _ => {}
        }
        if let Some(direction) = direction {
            let zone = self.registry.terminals[request.identity.terminal()].zone;
            if self.rules.anti_passback(&zone).is_some() {
                self.presence.note(holder, zone, direction, local_minute(request));
            }
        }
        self.remembered(position, request, Response::Approved, outcome);
    }

    /// Whether the rules let this card through the terminal's door now.
    fn lets_through(&self, request: &Request, card: u32, direction: Direction) -> bool {
        let zone = &self.registry.terminals[request.identity.terminal()].zone;
        let card = &self.registry.cards[card];
        let (date, time) = (request.identity.date, request.echo.time());
        let passes_back = || {
            self.rules
                .anti_passback(zone)
                .is_some_and(|minutes| self.presence.refuses(card.holder, *zone, direction, local_minute(request), minutes))
        };
        self.rules.lets_through(card.class, zone, date, time) && !passes_back()
    }

    pub(super) fn card_report(&mut self, position: u64, request: &Request, is_found: bool, outcome: &mut Outcome) {
        let number = request.content.card().expect("a report is about a card");
        let Some(index) = self.registry.cards.find(&number) else {
            return self.remembered(position, request, Response::NoSuchCard, outcome);
        };
        let card = &self.registry.cards[index];
        let live = self.registry.holders[card.holder].live_card;
        let response = match card.status {
            CardStatus::Frozen | CardStatus::Blacklisted => Response::CardFrozen,
            CardStatus::Inactive | CardStatus::Cancelled => Response::CardInactive,
            // Its holder has another card by now: this one is of no use any more.
            CardStatus::Lost if is_found && live != NONE => Response::CardInactive,
            CardStatus::Active | CardStatus::Lost => Response::Approved,
        };
        if response == Response::Approved {
            self.set_status(index, if is_found { CardStatus::Active } else { CardStatus::Lost });
        }
        self.remembered(position, request, response, outcome);
    }

    /// Gives a card another status, and keeps its holder's live card and the hotlist in step.
    pub(super) fn set_status(&mut self, index: u32, status: CardStatus) {
        let card = self.registry.cards.row_mut(index);
        let was_listed = card.status.is_listed();
        card.status = status;
        let (number, holder) = (card.number, card.holder);
        if was_listed != status.is_listed() {
            self.hotlist.change(index, number);
        }
        let live = &mut self.registry.holders.row_mut(holder).live_card;
        if status.is_live() {
            assert!(*live == NONE || *live == index, "one person, one live card");
            *live = index;
        } else if *live == index {
            *live = NONE;
        }
    }

    pub(super) fn event(&mut self, position: u64, request: &Request, kind: EventKind, outcome: &mut Outcome) {
        let entry = Remembered {
            deed: if kind.trips() { Deed::Trip } else { Deed::Report },
            ..self.entry(position, request, Response::Approved)
        };
        outcome.place = Some(self.identities.remember(request.identity.date, &entry));
    }
}
