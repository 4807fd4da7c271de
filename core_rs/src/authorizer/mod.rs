//! From a message's bytes to its reply's: the order of decisions of the terminal protocol, section 6.
//!
//! [`Authorizer::handle`] parses, finds the terminal, proves the MAC, checks what the operation needs, recalls what was
//! decided before or has the ledger decide, appends the record to the journal's open batch and writes the reply. It does no
//! I/O and reads no clock. Which of two buffers a reply is written to says when it may leave: at once, or only when all that
//! was appended so far is durable. Everything that rests on the ledger's state waits, a balance too: it must not show a
//! debit that a crash could still take back.
//!
//! Always true here: a reply that says or repeats a decision is in the waiting buffer; a request whose MAC proves nothing
//! changes nothing; the ledger's position and the journal's are equal.

mod reply;
mod request;

use reply::{Answer, Echoed, put_hotlist, put_sub_element, sign_on_answer, write_refusal, write_reply};
use request::{Days, Needs, Particulars, needs, operation_of, particulars, pin_block};

use crate::calendar::{CampusCalendar, Date, Timestamp};
use crate::card_number::CardNumber;
use crate::iso8583::frame::Tpdu;
use crate::iso8583::{Message, Unreadable, card_number_ahead};
use crate::journal::Journal;
use crate::ledger::hotlist::Readings;
use crate::ledger::identities::{Content, Deed, Family, Place, Remembered};
use crate::ledger::record::encode;
use crate::ledger::registry::{Act, TerminalKind, TerminalStanding};
use crate::ledger::{Command, Ledger, Outcome, Pin, Policy, Response, Told, is_advice};
use crate::limits::{
    CLOSURE_DAYS_MAX, CUTOVER_DAYS_MAX, DECISION_BYTES_MAX, HOTLIST_PIECE_CARDS_MAX, LAPSES_AT_ONCE, POSITION_MAX,
    SIGN_ON_MICROSECONDS, SIGN_ONS_AT_ONCE,
};
use crate::mac::{KeyEncryptionKey, MacKey};
use crate::session::{KeyRing, KeySlot, Nonces};
use crate::stats::Operation;

/// Where decisions are written down. The journal; in a benchmark of the core alone, nothing.
pub trait Log {
    /// Whether a record of this size can still be taken now.
    fn has_room(&self, bytes: usize) -> bool;
    /// Makes room for records of so many bytes in one batch, which may take a moment.
    ///
    /// # Errors
    /// A sentence, where there is none.
    fn reserve(&mut self, bytes: usize) -> Result<(), String>;
    /// Takes a record and gives its position.
    fn append(&mut self, record: &[u8]) -> u64;
}

impl Log for Journal {
    fn has_room(&self, bytes: usize) -> bool {
        Journal::has_room(self, bytes)
    }
    fn reserve(&mut self, bytes: usize) -> Result<(), String> {
        Journal::reserve(self, bytes).map_err(|error| error.to_string())
    }
    fn append(&mut self, record: &[u8]) -> u64 {
        Journal::append(self, record)
    }
}

/// Where replies go.
#[derive(Default)]
pub struct Replies {
    /// What may leave at once.
    pub at_once: Vec<u8>,
    /// What waits until everything appended so far is durable.
    pub durable: Vec<u8>,
}

/// What became of a message, for the counters and for its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handled {
    /// What was asked.
    pub operation: Operation,
    /// What was answered.
    pub response: Response,
    /// Whether its MAC was right.
    pub proved: bool,
}

/// How an authorizer is set up.
pub struct Settings {
    /// The limits that decisions depend on.
    pub policy: Policy,
    /// The campus's time zone.
    pub timezone: String,
    /// The switch's own key.
    pub key: KeyEncryptionKey,
    /// Today's campus date as an operator confirms it, after a closure that is longer than a wrong clock is likely to make.
    pub accept_date: Option<Date>,
}

/// The ledger with its keys, its journal and its calendar.
pub struct Authorizer<L> {
    ledger: Ledger,
    keys: KeyRing,
    log: L,
    calendar: CampusCalendar,
    /// Days by which the calendar is ahead of the business date and is not followed; 0 while it is.
    clock_ahead_days: u16,
    record: Vec<u8>,
    days: Days,
    /// The day that [`month_day`] was asked for last.
    printed: (Date, u16),
    /// For each terminal the moment from which it would have been given all of its sign-ons at one each
    /// [`SIGN_ON_MICROSECONDS`]: how far that is ahead of the clock says how much it has used of what it may have at once.
    signed_on_until: Vec<Timestamp>,
    /// The clock at the last sign-on.
    signed_on_at: Timestamp,
    /// The readings of the hotlist that are under way.
    readings: Readings,
    /// DE48 of a reply, while it is written.
    private: Vec<u8>,
    nonces: fn() -> [u8; 8],
}

/// What stops a request before it reaches the ledger, or answers it without a change.
enum Verdict {
    /// Refused or answered 12 or 94 without being remembered.
    Plain(Response),
    /// Approved without a change: an echo test.
    Echo,
    /// An inquiry: it changes nothing, and is answered afresh each time. What it says in DE48 stands in the authorizer's `private`.
    Inquiry {
        response: Response,
        /// Available in cash and subsidy purse.
        available: Option<[i64; 2]>,
    },
    /// Decided, now or before, and remembered there.
    Decided(Place),
}

/// A message that was read far enough to be answered.
struct Inbound<'a> {
    message: &'a Message<'a>,
    operation: Operation,
    terminal: u32,
    slot: KeySlot,
}

/// The business date of a ledger that has none yet: whatever the calendar says first is taken.
const NO_DATE: Date = Date(0);

/// Whether a start may move the business date on to `today`, unless an operator has confirmed it.
fn refuse_wrong_clock(business_date: Date, today: Date, accepted: Option<Date>) -> Result<(), String> {
    if let Some(accepted) = accepted.filter(|accepted| *accepted != today) {
        return Err(format!(
            "--accept-date names {accepted}, but by this machine's clock the campus's date is {today}; set the clock right, or name that date if it is right"
        ));
    }
    let ahead = today.0.saturating_sub(business_date.0);
    if ahead > CLOSURE_DAYS_MAX && business_date != NO_DATE && accepted.is_none() {
        return Err(format!(
            "by this machine's clock the campus's date is {today}, {ahead} days after the business date {business_date}, and a date once taken cannot be taken back; \
             set the clock right, or, if the switch was really out of use for so long, confirm it once by: switch serve --accept-date {today}"
        ));
    }
    Ok(())
}

impl<L: Log> Authorizer<L> {
    /// Takes over a ledger that was replayed from `log`, and writes down the policy if it is another than before.
    /// `nonces` gives the switch's nonces: random in service.
    ///
    /// # Errors
    /// A sentence, where the time zone is unknown, the switch's own key does not open a terminal's master key, or the clock is so
    /// far ahead of the business date that it must be confirmed.
    pub fn new(ledger: Ledger, log: L, settings: Settings, nonces: fn() -> [u8; 8], now: Timestamp) -> Result<Self, String> {
        let mut keys = KeyRing::new(settings.key);
        for (index, terminal) in ledger.registry().terminals.rows().iter().enumerate() {
            if !keys.opens(&terminal.wrapped_key) {
                return Err(format!(
                    "the key encryption key does not open the master key of terminal {}: it is not the key that this journal was written with; restore the right key file",
                    String::from_utf8_lossy(&terminal.id)
                ));
            }
            keys.refresh(index as u32, &terminal.id, &terminal.wrapped_key, terminal.session);
        }
        let mut calendar = CampusCalendar::new(&settings.timezone)?;
        refuse_wrong_clock(ledger.business_date(), calendar.date(now), settings.accept_date)?;
        let mut authorizer = Self {
            ledger,
            keys,
            log,
            calendar,
            clock_ahead_days: 0,
            record: Vec::with_capacity(256),
            days: Days::default(),
            printed: (Date(0), 101),
            signed_on_until: Vec::new(),
            signed_on_at: 0,
            readings: Readings::default(),
            private: Vec::new(),
            nonces,
        };
        // The policy and the business date may have to be written down before the first message.
        authorizer.log.reserve(2 * DECISION_BYTES_MAX)?;
        if authorizer.ledger.policy() != settings.policy {
            authorizer.decide(now, &Command::Policy(settings.policy));
        }
        authorizer.move_date(now);
        Ok(authorizer)
    }

    /// The ledger.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &KeyRing {
        &self.keys
    }

    /// The journal.
    #[must_use]
    pub fn log(&self) -> &L {
        &self.log
    }

    /// The journal.
    pub fn log_mut(&mut self) -> &mut L {
        &mut self.log
    }

    /// Moves the business date on where the campus's calendar has. A clock set back changes nothing, and one that is more than
    /// [`CUTOVER_DAYS_MAX`] ahead is not followed: the date could never be taken back, nor could the holds that it lets lapse.
    /// [`Self::clock_ahead_days`] tells.
    pub fn keep_date(&mut self, now: Timestamp) {
        let ahead = self.calendar.date(now).0.saturating_sub(self.ledger.business_date().0);
        let is_first = self.ledger.business_date() == NO_DATE;
        self.clock_ahead_days = if ahead > CUTOVER_DAYS_MAX && !is_first { ahead } else { 0 };
        if self.clock_ahead_days == 0 {
            if ahead > 0 {
                self.move_date(now);
            }
            self.let_lapse(now);
        }
    }

    /// Ends the holds that have lasted as long as they may, some at a time.
    fn let_lapse(&mut self, now: Timestamp) {
        for _ in 0..LAPSES_AT_ONCE {
            match self.ledger.lapsing(now) {
                Some(hold) if self.log.has_room(DECISION_BYTES_MAX) => drop(self.decide(now, &Command::Lapse { hold })),
                _ => break,
            }
        }
    }

    fn move_date(&mut self, now: Timestamp) {
        let today = self.calendar.date(now);
        if today > self.ledger.business_date() && self.log.has_room(DECISION_BYTES_MAX) {
            self.decide(now, &Command::Cutover(today));
        }
    }

    /// Days by which the calendar is ahead of the business date and is not followed, because the clock is taken to be wrong; 0
    /// while it is followed.
    #[must_use]
    pub fn clock_ahead_days(&self) -> u16 {
        self.clock_ahead_days
    }

    /// Applies a command and writes it down: the one way in which the ledger changes. The caller has seen that there is room.
    pub(crate) fn decide(&mut self, now: Timestamp, command: &Command<'_>) -> Outcome {
        let outcome = self.ledger.apply(now, command);
        if outcome.response.is_remembered() {
            self.record.clear();
            encode(&mut self.record, now, command, &outcome);
            let position = self.log.append(&self.record);
            assert_eq!(position, self.ledger.position(), "ledger and journal count alike");
            self.follow_keys(command);
        }
        outcome
    }

    /// Keeps the working keys in step with what a command changed.
    fn follow_keys(&mut self, command: &Command<'_>) {
        match command {
            Command::Terminal { id, .. } => {
                let index = self.ledger.registry().terminals.find(id).expect("it was just entered");
                let terminal = &self.ledger.registry().terminals[index];
                self.keys.refresh(index, &terminal.id, &terminal.wrapped_key, terminal.session);
            }
            Command::SignOn { request, terminal_nonce, switch_nonce } => {
                let index = request.identity.terminal();
                let nonces = Nonces { terminal: *terminal_nonce, switch: *switch_nonce };
                self.keys.sign_on(index, &self.ledger.registry().terminals[index].id, nonces);
            }
            _ => {}
        }
    }

    /// Fetches from memory what these messages, which are about to be handled, will need. Nothing is decided by it, and nothing
    /// has been proved: they may be anything.
    #[inline]
    pub fn look_ahead<'a>(&self, messages: impl Iterator<Item = &'a [u8]>) {
        self.ledger.look_ahead(&mut messages.filter_map(card_number_ahead));
    }

    /// Handles one message: everything from its bytes to its reply's.
    ///
    /// # Errors
    /// [`Unreadable`] where MTI or bitmap cannot be read: there is no reply, and the connection is to be closed.
    pub fn handle(
        &mut self,
        now: Timestamp,
        tpdu: Option<Tpdu>,
        bytes: &[u8],
        replies: &mut Replies,
    ) -> Result<Handled, Unreadable> {
        let message = Message::parse(bytes)?;
        let operation = operation_of(&message);
        let today = month_day(&mut self.printed, self.ledger.business_date());
        let refuse = |response: Response, key: Option<&MacKey>, replies: &mut Replies| {
            write_refusal(&mut replies.at_once, tpdu, &message, response, today, key);
            Ok(Handled { operation, response, proved: key.is_some() })
        };
        if message.fault().is_some() || ![11, 12, 13, 41].into_iter().all(|element| message.has(element)) {
            return refuse(Response::FormatError, None, replies);
        }
        let terminal_id = message.text(41).and_then(|text| text.try_into().ok()).expect("DE41 has eight bytes");
        let Some(terminal) = self.ledger.registry().terminals.find(&terminal_id) else {
            return refuse(Response::TerminalNotPermitted, None, replies);
        };
        let Some(slot) = self.prove(&message, operation, terminal) else {
            return refuse(Response::SecurityViolation, None, replies);
        };
        self.private.clear();
        let inbound = Inbound { message: &message, operation, terminal, slot: slot.unwrap_or(KeySlot::SignOn) };
        let position_before = self.ledger.position();
        let verdict = self.judge(now, &inbound);
        let key = slot.and_then(|slot| self.keys.key(terminal, slot));
        let response = match verdict {
            Verdict::Plain(
                response @ (Response::FormatError | Response::TerminalNotPermitted | Response::Unavailable | Response::Malfunction),
            ) => {
                return refuse(response, key, replies);
            }
            Verdict::Echo => return refuse(Response::Approved, key, replies),
            Verdict::Plain(response) => {
                write_refusal(&mut replies.durable, tpdu, &message, response, today, key);
                response
            }
            Verdict::Inquiry { response, available } => {
                let private = Some(self.private.as_slice()).filter(|private| !private.is_empty());
                let answer =
                    Answer { response, month_day: today, position: None, approval: false, private, available, totals: None };
                write_reply(&mut replies.durable, tpdu, &message, &Echoed::Sent(&message), &answer, key);
                response
            }
            Verdict::Decided(place) => {
                let remembered = self.ledger.identities().get(place);
                assert!(remembered.position() <= self.ledger.position(), "what is remembered was decided");
                let decided_on = month_day(&mut self.printed, remembered.business_date);
                let merchant = self.ledger.registry().merchants[remembered.merchant()].id;
                let echoed = Echoed::Remembered(remembered.echo, merchant.as_bytes());
                // By class, not by operation: another message of the class that repeats the identity gets this same answer.
                let family = Family::of(message.mti());
                let money = matches!(family, Family::Financial | Family::Reversal) && remembered.response == Response::Approved;
                if !matches!(family, Family::Financial | Family::Reversal) {
                    say_privately(&self.ledger, &remembered, place, &mut self.private);
                }
                let totals = self.ledger.identities().extra(place).filter(|_| remembered.has_extra);
                let answer = Answer {
                    response: remembered.response,
                    month_day: decided_on,
                    position: Some(remembered.position()),
                    approval: money,
                    private: Some(self.private.as_slice()).filter(|private| !private.is_empty()),
                    available: remembered.after().filter(|_| money && remembered.content.card().is_some()),
                    totals: totals.and_then(|extra| extra.totals.as_deref()),
                };
                write_reply(&mut replies.durable, tpdu, &message, &echoed, &answer, key);
                // Only where it was decided now: under an identity that is known already it changes nothing.
                if operation == Operation::SignOff && self.ledger.position() > position_before {
                    self.keys.sign_off(terminal);
                }
                remembered.response
            }
        };
        Ok(Handled { operation, response, proved: true })
    }

    /// Proves the message's MAC. `None`: refused. `Some(None)`: an echo test without a MAC.
    #[expect(clippy::option_option, reason = "refused, allowed without, proved")]
    fn prove(&mut self, message: &Message<'_>, operation: Operation, terminal: u32) -> Option<Option<KeySlot>> {
        match message.mac() {
            Some((covered, tag)) => self.keys.prove(terminal, operation == Operation::SignOn, covered, &tag).ok().map(Some),
            None => (operation == Operation::Echo).then_some(None),
        }
    }

    /// The ladder from the proved MAC on, in the order of section 6.
    fn judge(&mut self, now: Timestamp, inbound: &Inbound<'_>) -> Verdict {
        let Inbound { message, operation, terminal, slot } = *inbound;
        let Some(needs) = needs(message, operation, terminal, self.ledger.business_date(), &mut self.days) else {
            return Verdict::Plain(Response::FormatError);
        };
        let (particulars, block) = if is_plain(operation) && !message.has(48) {
            (Particulars::None, None)
        } else {
            match (particulars(message, operation, self.ledger.hotlist().version()), pin_block(message)) {
                (Some(particulars), Some(block)) => (particulars, block),
                _ => return Verdict::Plain(Response::FormatError),
            }
        };
        if !self.terminal_may(message, operation, terminal, &needs, &particulars) {
            return Verdict::Plain(Response::TerminalNotPermitted);
        }
        if operation == Operation::Echo {
            return Verdict::Echo;
        }
        let window = self.ledger.window();
        if !window.contains(&needs.identity.date) {
            return self.too_late(now, inbound, &needs, &particulars);
        }
        if is_kept_when_late(message, operation) && self.ledger.is_late_known(needs.identity, needs.content) {
            // It was dated ahead of its day, and has been given to a person. Now that its day has come, the switch must not post it as
            // well.
            return Verdict::Plain(Response::InvalidTransaction);
        }
        let card = needs.content.card();
        match (operation, &particulars) {
            (Operation::Balance, _) => return self.balance(needs.content),
            (Operation::Verify, _) => return self.verify(needs.content),
            (Operation::Hotlist, &Particulars::Hotlist(held, after)) => {
                let (version, piece) = self.readings.read(self.ledger.hotlist(), terminal, held, after, HOTLIST_PIECE_CARDS_MAX);
                put_hotlist(&mut self.private, version, &piece);
                return Verdict::Inquiry { response: Response::Approved, available: None };
            }
            _ => {}
        }
        if let Some((place, remembered)) = self.ledger.recall(needs.identity) {
            return if remembered.content == needs.content {
                Verdict::Decided(place)
            } else if operation == Operation::Unknown {
                Verdict::Plain(Response::InvalidTransaction)
            } else {
                Verdict::Plain(Response::DuplicateDiffers)
            };
        }
        if needs.original.is_some_and(|original| !window.contains(&original.date)) {
            return self.too_late(now, inbound, &needs, &particulars);
        }
        if !self.has_room() {
            return Verdict::Plain(Response::Unavailable);
        }
        if operation == Operation::SignOn && !self.may_sign_on(now, terminal) {
            return Verdict::Plain(Response::Unavailable);
        }
        let pin = block.map_or(Pin::Absent, |block| self.try_pin(terminal, slot, card, &block));
        let command = self.command_of(inbound, &needs, &particulars, pin);
        let outcome = self.decide(now, &command);
        match outcome.place {
            Some(place) => Verdict::Decided(place),
            None => Verdict::Plain(outcome.response),
        }
    }

    fn has_room(&self) -> bool {
        self.log.has_room(DECISION_BYTES_MAX) && self.ledger.position() < POSITION_MAX
    }

    /// What the message commands.
    fn command_of<'m>(&self, inbound: &Inbound<'m>, needs: &Needs, particulars: &Particulars<'m>, pin: Pin) -> Command<'m> {
        let request = needs.request(inbound.slot, inbound.message.mti());
        match (inbound.operation, particulars) {
            (Operation::Purchase, _) => Command::Purchase { request, purse: needs.purse, pin },
            (Operation::OfflineSale, _) => Command::OfflineSale { request, purse: needs.purse },
            (Operation::Hold, _) => Command::Hold { request, pin },
            (Operation::Completion, &Particulars::Original(original)) => Command::Completion { request, original },
            (Operation::Void, &Particulars::Original(original)) => Command::Void { request, original },
            (Operation::Refund, &Particulars::Original(original)) => Command::Refund { request, original },
            (Operation::Load, _) => Command::Load(request),
            (Operation::BillPayment, &Particulars::Bill(payee, reference)) => {
                Command::BillPayment { request, payee, reference, pin }
            }
            (operation, &Particulars::Act(act, item)) => {
                Command::Identity { request, act, item, is_advice: operation == Operation::Advice }
            }
            (Operation::Loss, _) => Command::CardReport { request, is_found: false },
            (Operation::Found, _) => Command::CardReport { request, is_found: true },
            (Operation::BatchClose, Particulars::Totals(totals)) => Command::BatchClose { request, totals: totals.clone() },
            (Operation::Event, &Particulars::Event(kind, place, value)) => Command::Event { request, kind, place, value },
            (Operation::Reversal, _) => {
                Command::Reversal { request, original: needs.original.expect("a reversal names its original") }
            }
            (Operation::SignOn, _) => Command::SignOn { request, terminal_nonce: needs.nonce, switch_nonce: (self.nonces)() },
            (Operation::SignOff, _) => Command::SignOff(request),
            (Operation::Unknown, _) => Command::Unknown(request),
            _ => unreachable!("an inquiry is answered before, and particulars are those of the operation"),
        }
    }

    /// A message dated outside the window, or one that names what lies outside. What an advice tells of has happened, and what a
    /// reversal undoes may have been posted: these are written down for a person, once.
    #[cold]
    fn too_late(&mut self, now: Timestamp, inbound: &Inbound<'_>, needs: &Needs, particulars: &Particulars<'_>) -> Verdict {
        if is_kept_when_late(inbound.message, inbound.operation) && !self.ledger.is_late_known(needs.identity, needs.content) {
            if !self.has_room() {
                return Verdict::Plain(Response::Unavailable);
            }
            let request = needs.request(inbound.slot, inbound.message.mti());
            let told = match (inbound.operation, needs.original, particulars) {
                (Operation::Unknown, ..) => Told::Unknown,
                (_, Some(original), _) => Told::Reversal(original),
                (_, None, &Particulars::Act(act, item)) => Told::Act(act, item),
                (_, None, &Particulars::Original(original)) => Told::Completion(original),
                _ => Told::OfflineSale,
            };
            self.decide(now, &Command::Late { request, told });
        }
        Verdict::Plain(Response::InvalidTransaction)
    }

    /// Whether a PIN block holds the card's PIN.
    #[cold]
    fn try_pin(&self, terminal: u32, slot: KeySlot, card: Option<CardNumber>, block: &[u8; 16]) -> Pin {
        let registry = self.ledger.registry();
        let row = &registry.terminals[terminal];
        let key = self.keys.pin_key(terminal, &row.id, row.session, slot);
        let is_right = card.zip(key).is_some_and(|(card, key)| {
            let (known, pin) = (self.ledger.pin_verification(&card), key.decrypt(block, card));
            known.zip(pin).is_some_and(|(known, pin)| self.keys.pin_verification().is_right(card, &pin, known))
        });
        if is_right { Pin::Right } else { Pin::Wrong }
    }

    /// Whether a terminal may have one more session now, and takes note that it had it.
    fn may_sign_on(&mut self, now: Timestamp, terminal: u32) -> bool {
        let terminals = self.ledger.registry().terminals.rows().len();
        self.signed_on_until.resize(terminals, 0);
        if now < self.signed_on_at {
            // The clock was set back: what was counted by the other one says nothing.
            self.signed_on_until.fill(0);
        }
        self.signed_on_at = now;
        let until = &mut self.signed_on_until[terminal as usize];
        let whole = SIGN_ONS_AT_ONCE * SIGN_ON_MICROSECONDS;
        let used = until.saturating_sub(now);
        let may = used + SIGN_ON_MICROSECONDS <= whole;
        if may {
            *until = now.saturating_add(used + SIGN_ON_MICROSECONDS);
        }
        may
    }

    fn balance(&self, content: Content) -> Verdict {
        let registry = self.ledger.registry();
        match content.card().and_then(|number| registry.cards.find(&number)) {
            Some(card) => {
                let available = Some(self.ledger.available(registry.cards[card].purses));
                Verdict::Inquiry { response: Response::Approved, available }
            }
            None => Verdict::Plain(Response::NoSuchCard),
        }
    }

    fn verify(&mut self, content: Content) -> Verdict {
        let registry = self.ledger.registry();
        let Some(card) = content.card().and_then(|number| registry.cards.find(&number)) else {
            return Verdict::Plain(Response::NoSuchCard);
        };
        let response = self.ledger.card_decline(card).unwrap_or(Response::Approved);
        put_sub_element(&mut self.private, 20, registry.cards[card].class.name().as_bytes());
        Verdict::Inquiry { response, available: None }
    }

    /// Whether DE42 is the terminal's merchant and the operation is one for its kind. A terminal that was given to another
    /// merchant may still repeat or reverse what it did for the one before.
    fn terminal_may(
        &self,
        message: &Message<'_>,
        operation: Operation,
        terminal: u32,
        needs: &Needs,
        particulars: &Particulars<'_>,
    ) -> bool {
        let registry = self.ledger.registry();
        let terminal = &registry.terminals[terminal];
        let is = |named: &[u8], merchant: u32| {
            let padding = named.strip_prefix(registry.merchants[merchant].id.as_bytes());
            padding.is_some_and(|padding| padding.iter().all(|&byte| byte == b' '))
        };
        let own_merchant = message.text(42).is_none_or(|named| {
            let before = || self.ledger.recall(needs.original.unwrap_or(needs.identity));
            is(named, terminal.merchant) || before().is_some_and(|(_, decided)| is(named, decided.merchant()))
        });
        terminal.standing == TerminalStanding::Active && own_merchant && kind_may(terminal.kind, operation, particulars)
    }
}

/// MMDD of a day; nearly all are the same, so the last is kept.
#[inline]
fn month_day(printed: &mut (Date, u16), date: Date) -> u16 {
    if printed.0 != date {
        *printed = (date, date.month_day());
    }
    printed.1
}

/// What the answer to a decision says in DE48.
fn say_privately(ledger: &Ledger, remembered: &Remembered, place: Place, private: &mut Vec<u8>) {
    match remembered.deed {
        Deed::Trip => put_sub_element(private, 43, b"TRIP"),
        Deed::Report => put_sub_element(private, 43, b"NONE"),
        _ => {
            if let Some(nonce) = ledger.identities().nonce(place, remembered.position()) {
                private.extend_from_slice(&sign_on_answer(nonce, remembered.business_date));
            }
        }
    }
}

/// Whether a message is for a person where it is dated outside the window: what it is about may have happened.
#[inline]
fn is_kept_when_late(message: &Message<'_>, operation: Operation) -> bool {
    match operation {
        Operation::OfflineSale | Operation::Completion | Operation::Advice | Operation::Reversal => true,
        Operation::Unknown => is_advice(message.mti()),
        _ => false,
    }
}

/// Whether an operation needs nothing but what nearly all do, where there is no DE48.
#[inline]
fn is_plain(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::Purchase | Operation::OfflineSale | Operation::Balance | Operation::Reversal | Operation::Hold | Operation::Load
    )
}

/// Whether the operation is one for this kind of terminal.
fn kind_may(kind: TerminalKind, operation: Operation, particulars: &Particulars<'_>) -> bool {
    use TerminalKind::{Counter, Gate, Kiosk, Library, Meter, Pos, Water};
    match operation {
        Operation::Purchase => matches!(kind, Pos | Counter | Water | Library),
        Operation::OfflineSale => matches!(kind, Pos | Counter | Water),
        Operation::Void | Operation::Refund => matches!(kind, Pos | Counter),
        Operation::Load => kind == Counter,
        Operation::BillPayment | Operation::Loss | Operation::Found => matches!(kind, Kiosk | Counter),
        Operation::Hold | Operation::Completion => kind == Water,
        Operation::Balance => matches!(kind, Pos | Counter | Water | Kiosk),
        Operation::Verify => matches!(kind, Pos | Counter | Kiosk | Gate | Library),
        Operation::Enter | Operation::Leave | Operation::Attendance => kind == Gate,
        Operation::Borrow | Operation::Return => kind == Library,
        Operation::Advice => match particulars {
            Particulars::Act(Act::Verify, _) => matches!(kind, Gate | Library),
            Particulars::Act(Act::Enter | Act::Leave | Act::Attendance, _) => kind == Gate,
            _ => kind == Library,
        },
        Operation::Event => kind == Meter,
        Operation::Hotlist
        | Operation::BatchClose
        | Operation::Reversal
        | Operation::SignOn
        | Operation::SignOff
        | Operation::Echo
        | Operation::Unknown => true,
    }
}
