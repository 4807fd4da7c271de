//! Files of merchants, terminals, cards, rules and PINs: what they may say, how a wrong one is refused, and that nothing of it is
//! applied.

mod college;

use college::{CARDS, MERCHANTS, Memory, NOON, TERMINALS, Terminal, ask, card, college, empty};
use switch_core::authorizer::Authorizer;
use switch_core::import::{Report, import};
use switch_core::ledger::record::decode;
use switch_core::ledger::registry::{Holder, MerchantId};
use switch_core::ledger::rules::Rules;
use switch_core::ledger::{Command, Ledger};
use switch_core::pin::{Pin, PinKey};

type Core = Authorizer<Memory>;

const MERCHANT_HEADER: &str = "merchant_id,name,category,fee_bp";
const TERMINAL_HEADER: &str = "terminal_id,merchant_id,kind,zone,key";
const CARD_HEADER: &str = "card_number,holder_id,class,status,expires,cash,subsidy";
const POLICY_HEADER: &str = "rule,class,category,zone,days,from,to,value";
const PIN_HEADER: &str = "card_number,pin";

fn take(authorizer: &mut Core, content: &str) -> Report {
    import(authorizer, NOON, "file.csv", content.as_bytes()).unwrap_or_else(|error| panic!("{content}: {error}"))
}

/// The sentence with which a file is refused, having changed nothing.
fn refusal(authorizer: &mut Core, content: &[u8]) -> String {
    let before = (authorizer.ledger().digest(), authorizer.log().records.len());
    let error = import(authorizer, NOON, "file.csv", content).expect_err("this file must be refused");
    assert_eq!((authorizer.ledger().digest(), authorizer.log().records.len()), before, "{error}");
    error
}

fn counts(report: &Report) -> [u32; 4] {
    [report.rows, report.added, report.changed, report.unchanged]
}

/// Reads all records again from the first, as a start does.
fn replayed(authorizer: &Core) -> Ledger {
    let mut ledger = Ledger::new();
    for (position, record) in (1..).zip(&authorizer.log().records) {
        ledger.replay(position, record).expect("its own records");
    }
    assert_eq!(ledger.digest(), authorizer.ledger().digest());
    ledger
}

fn holder<'a>(authorizer: &'a Core, number: &str) -> &'a Holder {
    let registry = authorizer.ledger().registry();
    registry.holder_of(&registry.cards[registry.cards.find(&card(number)).expect("a known card")])
}

#[test]
fn a_wrong_field_is_named_with_file_line_and_field() {
    // Which file | its second data row, the first one being good | the field | a part of the reason.
    const TABLE: &str = "
        merchants ; ,Name,shop,0                       ; merchant_id ; \"\" is not 1 to 15 printable ASCII characters
        merchants ; M-234567890123456,Name,shop,0      ; merchant_id ; is not 1 to 15 printable
        merchants ; M-\u{e9},Name,shop,0               ; merchant_id ; printable ASCII
        merchants ; M-GOOD,Name,shop,0                 ; merchant_id ; M-GOOD stands on line 2 already
        merchants ; M-X,,shop,0                        ; name        ; the name has 0 bytes
        merchants ; M-X,Name,Shop,0                    ; category    ; \"Shop\" is not one of canteen, shop, clinic
        merchants ; M-X,Name,,0                        ; category    ; \"\" is not one of
        merchants ; M-X,Name,shop,10001                ; fee_bp      ; \"10001\" is not a whole number of basis points from 0 to 10000
        merchants ; M-X,Name,shop,-1                   ; fee_bp      ; is not a whole number
        merchants ; M-X,Name,shop,+1                   ; fee_bp      ; is not a whole number
        merchants ; M-X,Name,shop,1.5                  ; fee_bp      ; is not a whole number
        merchants ; M-X,Name,shop,                     ; fee_bp      ; is not a whole number
        terminals ; ,M-SHOP,pos,,K                     ; terminal_id ; is not 1 to 8 printable
        terminals ; POS000001,M-SHOP,pos,,K            ; terminal_id ; \"POS000001\" is not 1 to 8 printable
        terminals ; GOOD,M-SHOP,pos,,K                 ; terminal_id ; GOOD stands on line 2 already
        terminals ; T2,M-NONE,pos,,K                   ; merchant_id ; merchant M-NONE is not known; import the merchants first
        terminals ; T2,M-SHOP,till,,K                  ; kind        ; \"till\" is not one of pos, kiosk
        terminals ; T2,M-SHOP,pos,A-ZONE-OF-17-BYTE,K  ; zone        ; is not 0 to 16 printable
        terminals ; T2,M-SHOP,pos,,                    ; key         ; the key is not 32 hex digits
        terminals ; T2,M-SHOP,pos,,KK                  ; key         ; the key is not 32 hex digits
        terminals ; T2,M-SHOP,pos,,+1                  ; key         ; the key is not 32 hex digits
        cards     ; ,H2,student,active,2027-01-01,0,0  ; card_number ; \"\" is not 1 to 19 digits
        cards     ; 12x,H2,student,active,2027-01-01,0,0 ; card_number ; is not 1 to 19 digits
        cards     ; 12345678901234567890,H2,student,active,2027-01-01,0,0 ; card_number ; is not 1 to 19 digits
        cards     ; 555,H2,student,active,2027-01-01,0,0 ; card_number ; 555 stands on line 2 already
        cards     ; 556,H1,student,active,2027-01-01,0,0 ; card_number ; holder H1 has the live card 555 already
        cards     ; 556,H1,student,inactive,2027-01-01,0,0 ; card_number ; one person has one live card
        cards     ; 556,S1,student,frozen,2027-01-01,0,0 ; card_number ; holder S1 has the live card 1001 already
        cards     ; 1001,H2,student,active,2027-01-01,0,0 ; holder_id ; card 1001 belongs to holder S1
        cards     ; 556,,student,active,2027-01-01,0,0 ; holder_id   ; is not 1 to 20 printable
        cards     ; 556,123456789012345678901,student,active,2027-01-01,0,0 ; holder_id ; is not 1 to 20 printable
        cards     ; 556,H2,pupil,active,2027-01-01,0,0 ; class       ; \"pupil\" is not one of teacher, student
        cards     ; 556,H2,student,stolen,2027-01-01,0,0 ; status    ; \"stolen\" is not one of active, inactive, lost
        cards     ; 556,H2,student,active,2027-02-29,0,0 ; expires   ; \"2027-02-29\" is not a date
        cards     ; 556,H2,student,active,01.01.2027,0,0 ; expires   ; is not a date
        cards     ; 556,H2,student,active,2027-01-01,-1,0 ; cash     ; is not a whole number of fen
        cards     ; 556,H2,student,active,2027-01-01,1.00,0 ; cash   ; is not a whole number of fen
        cards     ; 556,H2,student,active,2027-01-01,100000000000,0 ; cash ; from 0 to 99999999999
        cards     ; 556,H2,student,active,2027-01-01,99999999999999999999,0 ; cash ; from 0 to 99999999999
        cards     ; 556,H2,student,active,2027-01-01,0, ; subsidy    ; is not a whole number of fen
        cards     ; 556,H1,student,lost,2027-01-01,70,0 ; subsidy    ; holder H1 was opened with 5 fen
        cards     ; 556,S1,student,lost,2027-01-01,999,500 ; cash    ; holder S1 was opened with 1000 fen
    ";
    let mut authorizer = college(Memory::default());
    let mut rows = 0;
    for row in TABLE.lines().map(str::trim).filter(|row| !row.is_empty()) {
        let cells: Vec<&str> = row.split(';').map(str::trim).collect();
        // A reason may have a semicolon itself.
        let reason = cells[3..].join("; ");
        let key = "0123456789abcdef0123456789ABCDE";
        let line = cells[1].replace(",+1", &format!(",+{key}"));
        let line = line.strip_suffix('K').map_or(line.clone(), |line| format!("{line}{key}F"));
        let line = if cells[1].ends_with("KK") { cells[1].replace("KK", key) } else { line };
        let content = match cells[0] {
            "merchants" => format!("{MERCHANT_HEADER}\nM-GOOD,Good,shop,1\n{}\n", cells[1]),
            "terminals" => format!("{TERMINAL_HEADER}\nGOOD,M-SHOP,pos,,{key}F\n{line}\n"),
            _ => format!("{CARD_HEADER}\n555,H1,student,active,2027-01-01,70,5\n{}\n", cells[1]),
        };
        let error = refusal(&mut authorizer, content.as_bytes());
        let expected = format!("file.csv line 3, field {}: ", cells[2]);
        assert!(error.starts_with(&expected) && error.contains(&reason), "{row}\n{error}\n{expected}...{reason}");
        assert!(!error.contains(key), "a key never ends in a log: {error}");
        rows += 1;
    }
    assert_eq!(rows, 42);
}

#[test]
fn a_file_that_is_of_no_kind_is_refused() {
    let mut authorizer = college(Memory::default());
    let long_name = format!("{MERCHANT_HEADER}\nM-X,{},shop,0\n", "n".repeat(121));
    let table: [(&[u8], &str); 17] = [
        (b"", "file.csv: the file is empty"),
        (b"\n\n", "file.csv: the file is empty"),
        (b"\xef\xbb\xbf", "file.csv: the file is empty"),
        (b"name,merchant_id,category,fee_bp\n", "file.csv line 1: the header \"name,merchant_id,category,fee_bp\" is not known"),
        (b"merchant_id;name;category;fee_bp\n", "file.csv line 1: the header"),
        (b"card_number\n1\n", "file.csv line 1: the header"),
        (b"pin,card_number\n1234,1001\n", "file.csv line 1: the header"),
        (b"1001,4711\n1101,4711\n", "file.csv line 1: the header is not known"),
        (b"POS9,M-SHOP,pos,,00112233445566778899AABBCCDD4711\n", "file.csv line 1: the header is not known"),
        (b"card_number,pin\n1001\n", "file.csv line 2: 1 fields where the header has 2"),
        (b"rule,class,category,zone,days,from,to,value\nday_max,*,*,5\n", "file.csv line 2: 4 fields where the header has 8"),
        (b"merchant_id,name,category,fee_bp\nM1,Name,shop\n", "file.csv line 2: 3 fields where the header has 4"),
        (b"merchant_id,name,category,fee_bp\nM1,Name,shop,0,\n", "file.csv line 2: 5 fields where the header has 4"),
        (b"merchant_id,name,category,fee_bp\nM1,Name,shop,0\n\nM2,Na\n", "file.csv line 4: 2 fields"),
        (b"merchant_id,name,category,fee_bp\r\nM1,Name,shop,0\r\n\r\nM2,Na\r\n", "file.csv line 4: 2 fields"),
        (b"merchant_id,name,category,fee_bp\nM1,\xc3\x28,shop,0\n", "file.csv line 2, field 2: the text is not UTF-8"),
        (long_name.as_bytes(), "file.csv line 2, field name: the name has 121 bytes"),
    ];
    for (content, expected) in table {
        let error = refusal(&mut authorizer, content);
        assert!(error.starts_with(expected), "{error}\n{expected}");
        assert!(!error.contains("4711"), "neither a PIN nor a key ends in a log: {error}");
    }
    // Line ends of either kind, blank lines, and a row that is not text, each on its own line.
    for end in ["\n", "\r\n"] {
        let content = [MERCHANT_HEADER, "M1,x,shop,0", "M2,x,shop,0", "", "", "M1,x,shop,0"].join(end);
        let error = refusal(&mut authorizer, content.as_bytes());
        assert_eq!(error, "file.csv line 6, field merchant_id: M1 stands on line 2 already", "{end:?}");
        let bytes = [[MERCHANT_HEADER, "", "M1,x,shop,0", "", "M2,"].join(end).as_bytes(), b"\xff,shop,0"].concat();
        assert!(refusal(&mut authorizer, &bytes).starts_with("file.csv line 5, field 2: "), "{end:?}");
    }
    // A field over several lines: the next row still has its own line.
    let error = refusal(&mut authorizer, b"merchant_id,name,category,fee_bp\nM1,\"two\nlines\",shop,0\nM2,x,y,0\n");
    assert!(error.starts_with("file.csv line 4, field category"), "{error}");
}

#[test]
fn a_file_may_come_from_any_office() {
    let mut authorizer = empty(Memory::default());
    let content = "\u{feff}merchant_id,name,category,fee_bp\r\nM1,\"Lane, \"\"the\"\" 3rd\",shop,0\r\n\r\nM2,\u{5317}\u{98df}\u{5802},canteen,10000";
    let report = take(&mut authorizer, content);
    assert_eq!((counts(&report), report.kind, report.file.as_str()), ([2, 2, 0, 0], "merchants", "file.csv"));
    let merchants = &authorizer.ledger().registry().merchants;
    let name = |id| merchants[merchants.find(&MerchantId::new(id).expect("short")).expect("known")].name.to_string();
    assert_eq!((name("M1"), name("M2")), ("Lane, \"the\" 3rd".to_owned(), "\u{5317}\u{98df}\u{5802}".to_owned()));
    // A header alone is a file without rows: nothing is to be done, and nothing is written down.
    let records = authorizer.log().records.len();
    let report = take(&mut authorizer, CARD_HEADER);
    assert_eq!((counts(&report), report.position), ([0; 4], records as u64));
    assert_eq!(authorizer.log().records.len(), records);
}

#[test]
fn a_long_name_of_a_file_in_any_script_is_shortened() {
    for (index, name) in ["\u{5317}".repeat(100), format!("x{}", "\u{e9}".repeat(150)), "a".repeat(300)].iter().enumerate() {
        let mut authorizer = empty(Memory::default());
        let content = format!("{MERCHANT_HEADER}\nM{index},Name,shop,0\n");
        let report = import(&mut authorizer, NOON, name, content.as_bytes()).expect("a good file");
        assert_eq!(report.file, *name);
        let record = authorizer.log().records.last().expect("the file's record");
        let decoded = switch_core::ledger::record::decode(record).expect("a record");
        let switch_core::ledger::Command::Imported { file, rows: 1 } = decoded.command else { panic!("not an import") };
        assert!(name.ends_with(file) && (198..=200).contains(&file.len()));
    }
}

#[test]
fn the_same_files_again_change_nothing() {
    let mut authorizer = college(Memory::default());
    let (digest, records) = (authorizer.ledger().digest(), authorizer.log().records.len());
    for (content, rows) in [(MERCHANTS, 2), (TERMINALS, 5), (CARDS, 9), (MERCHANTS, 2)] {
        let report = take(&mut authorizer, content);
        assert_eq!((counts(&report), report.position), ([rows, 0, 0, rows], records as u64));
    }
    assert_eq!((authorizer.ledger().digest(), authorizer.log().records.len()), (digest, records));
    // What differs is changed, and only that is written down, with one record for the file.
    let report =
        take(&mut authorizer, &CARDS.replace("1101,L1,student,lost", "1101,L1,teacher,active").replace("1002,S2", "1999,S9"));
    assert_eq!(counts(&report), [9, 1, 1, 7]);
    assert_eq!(authorizer.log().records.len(), records + 3);
    let report = take(&mut authorizer, &MERCHANTS.replace("North", "South"));
    assert_eq!(counts(&report), [2, 0, 1, 1]);
}

#[test]
fn opening_balances_are_posted_once() {
    let mut authorizer = empty(Memory::default());
    let row =
        |number: &str, status: &str, opening: &str| format!("{CARD_HEADER}\n{number},H1,student,{status},2027-01-01,{opening}\n");
    take(&mut authorizer, &row("1", "active", "70,5"));
    let purses = |authorizer: &Core| authorizer.ledger().available(holder(authorizer, "1").purses);
    assert_eq!((purses(&authorizer), authorizer.ledger().accounts().sum()), ([70, 5], 0));
    // Changed, changed back, a second card: with the same balances or with none, nothing is posted again.
    for (number, status, opening) in
        [("1", "frozen", "70,5"), ("1", "lost", "0,0"), ("2", "active", "70,5"), ("3", "cancelled", "0,0")]
    {
        take(&mut authorizer, &row(number, status, opening));
        assert_eq!((purses(&authorizer), authorizer.ledger().accounts().sum()), ([70, 5], 0));
    }
    assert!(std::ptr::eq(holder(&authorizer, "1"), holder(&authorizer, "2")));
    // A holder that was opened with nothing is not given anything by a later file.
    take(&mut authorizer, &row("4", "active", "0,0").replace("H1", "H4"));
    let error = refusal(&mut authorizer, row("4", "active", "1,0").replace("H1", "H4").as_bytes());
    assert!(error.starts_with("file.csv line 2, field cash: holder H4 was opened with 0 fen"), "{error}");
}

#[test]
fn one_person_has_one_live_card_also_within_a_file() {
    let mut authorizer = empty(Memory::default());
    let file = |rows: &[(&str, &str)]| {
        let rows: Vec<String> =
            rows.iter().map(|(number, status)| format!("{number},H1,student,{status},2027-01-01,0,0")).collect();
        format!("{CARD_HEADER}\n{}\n", rows.join("\n"))
    };
    take(&mut authorizer, &file(&[("1", "lost"), ("2", "active"), ("3", "cancelled")]));
    // A replacement: the old card must go first.
    let error = refusal(&mut authorizer, file(&[("4", "active"), ("2", "lost")]).as_bytes());
    assert!(error.starts_with("file.csv line 2, field card_number: holder H1 has the live card 2 already"), "{error}");
    let report = take(&mut authorizer, &file(&[("2", "lost"), ("4", "active")]));
    assert_eq!(counts(&report), [2, 1, 1, 0]);
    assert!(refusal(&mut authorizer, file(&[("4", "active"), ("1", "active")]).as_bytes()).contains("line 3"));
    take(&mut authorizer, &file(&[("4", "cancelled"), ("1", "inactive")]));
    // Two new cards of a new person in one file.
    let both = file(&[("7", "active"), ("8", "frozen")]).replace("H1", "H7");
    assert!(refusal(&mut authorizer, both.as_bytes()).contains("line 3, field card_number: holder H7 has the live card 7"));
}

#[test]
fn terminals_of_unknown_merchants_wait_for_the_merchants() {
    let mut authorizer = empty(Memory::default());
    let error = refusal(&mut authorizer, TERMINALS.as_bytes());
    assert_eq!(error, "file.csv line 2, field merchant_id: merchant M-CANTEEN is not known; import the merchants first");
    take(&mut authorizer, MERCHANTS);
    assert_eq!(counts(&take(&mut authorizer, TERMINALS)), [5, 5, 0, 0]);
    let terminals = &authorizer.ledger().registry().terminals;
    assert!(terminals.find(b"POS2    ").is_some(), "DE41 is padded");
    for record in &authorizer.log().records {
        assert!(!record.windows(15).any(|bytes| bytes == [0; 15]), "a master key is never written in the clear");
    }
}

#[test]
fn a_policy_file_states_all_rules() {
    let mut authorizer = college(Memory::default());
    let file = |rows: &[&str]| format!("{POLICY_HEADER}\n{}\n", rows.join("\n"));
    let names = |authorizer: &Core| {
        let list = authorizer.ledger().rules().list();
        list.iter().map(|rule| rule.fields().join(",")).collect::<Vec<_>>()
    };
    let records = authorizer.log().records.len() as u64;
    let (day, meal, door) = ("day_max,student,*,,,,,20000", "meal,*,canteen,,1-5,10:30,13:30,1", "door,*,,NORTH,,,,");
    let report = take(&mut authorizer, &file(&[door, day, meal]));
    // One record for the rules, one for the file, and the rules are in force from the first of them on.
    assert_eq!((report.kind, counts(&report), report.removed, report.position), ("policy", [3, 3, 0, 0], 0, records + 2));
    assert_eq!(names(&authorizer), [day, meal, door]);
    let commands: Vec<_> = authorizer.log().records[records as usize..].iter().map(|record| decode(record).unwrap()).collect();
    assert!(matches!(&commands[0].command, Command::Rules(rules) if **rules == *authorizer.ledger().rules()));
    assert!(matches!(commands[1].command, Command::Imported { file: "file.csv", rows: 3 }));
    // The same rules, in any order and however they are written, change nothing.
    let digest = authorizer.ledger().digest();
    let report = take(&mut authorizer, &file(&["meal, *, canteen,, 54321 ,10:30,13:30,1", day, "door,*,,NORTH,1-7,00:00,00:00,"]));
    assert_eq!((counts(&report), report.removed, report.position), ([3, 0, 0, 3], 0, records + 2));
    assert_eq!((authorizer.ledger().digest(), authorizer.log().records.len() as u64), (digest, records + 2));
    // Another value, a rule less; a file that is wrong; and no rule at all.
    let report = take(&mut authorizer, &file(&["day_max,student,*,,,,,30000", door]));
    assert_eq!((counts(&report), report.removed, report.position), ([2, 0, 1, 1], 1, records + 4));
    let error = refusal(&mut authorizer, file(&[door, "day_max,pupil,*,,,,,5"]).as_bytes());
    assert!(error.starts_with("file.csv line 3, field class: \"pupil\" is not one of teacher"), "{error}");
    assert_eq!(names(&authorizer), ["day_max,student,*,,,,,30000", door]);
    let report = take(&mut authorizer, POLICY_HEADER);
    assert_eq!((counts(&report), report.removed, report.position), ([0; 4], 2, records + 6));
    assert_eq!(take(&mut authorizer, POLICY_HEADER).position, records + 6);
    assert_eq!(authorizer.ledger().rules(), &Rules::default());
    replayed(&authorizer);
}

#[test]
fn as_many_rules_as_there_may_be_are_one_record() {
    let mut authorizer = college(Memory::default());
    let row =
        |number: u32| format!("door,student,,SIXTEEN-BYTES-{:02},67,{:02}:00,{:02}:59,", number / 24, number % 24, number % 24);
    let rows: Vec<String> = (0..1_000).map(row).collect();
    let report = take(&mut authorizer, &format!("{POLICY_HEADER}\n{}\n", rows.join("\n")));
    assert_eq!(counts(&report), [1_000, 1_000, 0, 0]);
    assert_eq!(replayed(&authorizer).rules().list().len(), 1_000);
    let records = &authorizer.log().records;
    assert!((30_000..60_000).contains(&records[records.len() - 2].len()));
}

#[test]
fn rules_hold_from_their_position_on() {
    let mut authorizer = college(Memory::default());
    let mut till = Terminal::new("POS00001", 1);
    till.sign_on(&mut authorizer, 1);
    let pay = |authorizer: &mut Core, stan: u32, amount: u64| {
        let answer = ask(authorizer, &till.purchase(stan, "1001", amount), Some(till.key()));
        (answer.code(), answer.text(37).and_then(|position| position.parse::<u64>().ok()).expect("a decision"))
    };
    assert_eq!(pay(&mut authorizer, 10, 201).0, "00");
    let report = take(&mut authorizer, &format!("{POLICY_HEADER}\ntransaction_max,student,*,,,,,200\nday_max,*,*,,,,,300\n"));
    let (code, position) = pay(&mut authorizer, 11, 201);
    assert_eq!((code.as_str(), position), ("61", report.position + 1));
    // What was spent before the rule is not counted by it.
    assert_eq!(pay(&mut authorizer, 12, 200).0, "00");
    assert_eq!(pay(&mut authorizer, 13, 101).0, "61");
    assert_eq!(pay(&mut authorizer, 14, 100).0, "00");
    take(&mut authorizer, POLICY_HEADER);
    assert_eq!(pay(&mut authorizer, 15, 201).0, "00");
    replayed(&authorizer);
}

#[test]
fn a_wrong_row_of_pins_is_named_and_the_pin_is_not() {
    let mut authorizer = college(Memory::default());
    for (row, field, reason) in [
        ("1003,90817", "card_number", "1003 stands on line 2 already"),
        ("12x,90817", "card_number", "\"12x\" is not 1 to 19 digits"),
        ("9999,90817", "card_number", "the card is not known; import the cards first"),
        ("01001,90817", "card_number", "the card is not known; import the cards first"),
        ("90817,1001", "card_number", "the card is not known; import the cards first"),
        ("1001,", "pin", "the PIN is not 4 to 12 digits"),
        ("1001,908", "pin", "the PIN is not 4 to 12 digits"),
        ("1001,9081790817908", "pin", "the PIN is not 4 to 12 digits"),
        ("1001,90817x", "pin", "the PIN is not 4 to 12 digits"),
        ("1001,9081 7", "pin", "the PIN is not 4 to 12 digits"),
        ("1001,+90817", "pin", "the PIN is not 4 to 12 digits"),
    ] {
        let error = refusal(&mut authorizer, format!("{PIN_HEADER}\n1003,1234\n{row}\n").as_bytes());
        assert_eq!(
            error,
            format!("file.csv line 3, field {field}: {reason}") + &error[error.find(reason).unwrap() + reason.len()..]
        );
        assert!(!error.contains("908"), "a PIN never ends in a log: {error}");
    }
}

#[test]
fn a_pin_is_set_and_forgets_wrong_ones() {
    let mut authorizer = college(Memory::default());
    let mut till = Terminal::new("POS00001", 1);
    let answer = till.sign_on(&mut authorizer, 1);
    let nonce = u64::from_str_radix(&answer.text(48).expect("DE48")[4..20], 16).expect("hexadecimal").to_be_bytes();
    let key = PinKey::new(&till.master.session_pin_key_bytes(&till.id, &0x0011_2233_4455_6677_u64.to_be_bytes(), &nonce));
    let mut stan = 10;
    let mut pay = |authorizer: &mut Core, digits: &str| {
        stan += 1;
        let block = key.encrypt(&Pin::from_digits(digits.as_bytes()).expect("a PIN"), card("1001"), u64::from(stan).to_be_bytes());
        let hex: String = block
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 0xf])
            .map(|nibble| char::from_digit(nibble.into(), 16).unwrap())
            .collect();
        ask(authorizer, &till.purchase(stan, "1001", 1).with(48, &format!("5232{hex}")), Some(till.key())).code()
    };
    let file = |rows: &[&str]| format!("{PIN_HEADER}\n{}\n", rows.join("\n"));
    take(&mut authorizer, &format!("{POLICY_HEADER}\npin_above,*,*,,,,,0\n"));
    assert_eq!(pay(&mut authorizer, "90817263"), "55", "the card has no PIN yet");

    let report = take(&mut authorizer, &file(&["1001,90817263", "1002,0000"]));
    assert_eq!((report.kind, counts(&report), report.removed), ("pins", [2, 2, 0, 0], 0));
    assert_eq!(report.position, authorizer.log().records.len() as u64);
    for (digits, code) in [("90817263", "00"), ("90817264", "55"), ("9081", "55"), ("90817263", "00"), ("0000", "55")] {
        assert_eq!(pay(&mut authorizer, digits), code, "{digits}");
    }
    // The same PIN again, where nothing was tried, is known; where something was, it is set again.
    let report = take(&mut authorizer, &file(&["1001,90817263", "1002,0000"]));
    assert_eq!(counts(&report), [2, 0, 1, 1]);
    for code in ["55", "55", "55", "75"] {
        assert_eq!(pay(&mut authorizer, "1111"), code);
    }
    assert_eq!(pay(&mut authorizer, "90817263"), "75");
    assert_eq!(counts(&take(&mut authorizer, &file(&["1001,90817263"]))), [1, 0, 1, 0]);
    assert_eq!(pay(&mut authorizer, "90817263"), "00");
    let records = authorizer.log().records.len();
    assert_eq!(counts(&take(&mut authorizer, &file(&["1001,90817263", "1002,0000"]))), [2, 0, 0, 2]);
    assert_eq!(authorizer.log().records.len(), records);
    // Another PIN.
    assert_eq!(counts(&take(&mut authorizer, &file(&["1001,90817264", "1002,0000"]))), [2, 0, 1, 1]);
    assert_eq!((pay(&mut authorizer, "90817263").as_str(), pay(&mut authorizer, "90817264").as_str()), ("55", "00"));
    replayed(&authorizer);
    for record in &authorizer.log().records {
        assert!(!record.windows(7).any(|bytes| bytes == b"9081726"), "a PIN is never written down");
        assert!(!record.windows(3).any(|bytes| bytes == [0x90, 0x81, 0x72]), "a PIN is never written down");
    }
}

#[test]
fn a_suspended_terminal_may_nothing_until_it_works_again() {
    const HEADER: &str = "terminal_id,standing";
    let mut authorizer = college(Memory::default());
    let mut till = Terminal::new("POS00001", 1);
    till.sign_on(&mut authorizer, 1);
    assert_eq!(ask(&mut authorizer, &till.purchase(2, "1001", 100), Some(till.key())).code(), "00");

    let suspended = format!("{HEADER}\nPOS00001,suspended\n");
    let report = take(&mut authorizer, &suspended);
    assert_eq!((report.kind, counts(&report)), ("standings", [1, 0, 1, 0]));
    assert_eq!(counts(&take(&mut authorizer, &suspended)), [1, 0, 0, 1]);
    for draft in [till.purchase(3, "1001", 100), till.purchase(2, "1001", 100), till.reversal(4, 2)] {
        let answer = ask(&mut authorizer, &draft, Some(till.key()));
        assert_eq!((answer.code().as_str(), answer.text(37)), ("58", None), "{draft:?}");
        assert!(answer.is_proved_by(till.key()));
    }
    assert_eq!(ask(&mut authorizer, &till.sign_on_draft(5), Some(&till.sign_on_key)).code(), "58");
    // Its merchant's file does not bring it back.
    take(&mut authorizer, TERMINALS);
    assert_eq!(ask(&mut authorizer, &till.purchase(3, "1001", 100), Some(till.key())).code(), "58");
    replayed(&authorizer);

    take(&mut authorizer, &format!("{HEADER}\nPOS00001,active\n"));
    assert_eq!(ask(&mut authorizer, &till.purchase(3, "1001", 100), Some(till.key())).code(), "00");
    for (row, field, reason) in [
        ("POS00099,active", "terminal_id", "terminal POS00099 is not known; import the terminals first"),
        ("POS00001,stolen", "standing", "\"stolen\" is not one of active, suspended"),
        ("POS00001,active\nPOS00001,suspended", "terminal_id", "POS00001 stands on line 2 already"),
    ] {
        let error = refusal(&mut authorizer, format!("{HEADER}\n{row}\n").as_bytes());
        assert!(error.contains(&format!("field {field}: {reason}")), "{error}");
    }
}
