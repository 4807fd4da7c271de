//! The policy's rules. A file states all of them: what is in force and not in the file ends.

use super::{Change, Fields, File, Plan, Row, Wrong};
use crate::ledger::registry::{CardClass, Category};
use crate::ledger::rule::{ALL_DAYS, Rule, RuleField, RuleKind, Window};
use crate::ledger::rules::{Rules, RulesFault};
use crate::limits::RULES_MAX;

/// What a file of rules is to do, where these are in force: all of its rows are one command.
pub(super) fn plan(file: &mut File<'_>, in_force: &Rules) -> Result<Plan, String> {
    let rules = read(file)?;
    let mut plan = compare(&rules, in_force);
    if rules != *in_force {
        plan.rows.push(Row::Rules(Box::new(rules)));
    }
    Ok(plan)
}

/// The rules in a file.
fn read(file: &mut File<'_>) -> Result<Rules, String> {
    let (mut list, mut lines) = (Vec::new(), Vec::new());
    while let Some((line, fields)) = file.next()? {
        let row = rule(fields);
        list.push(row.map_err(|wrong| file.wrong(line, wrong))?);
        lines.push(line);
    }
    Rules::new(list).map_err(|fault| match fault {
        RulesFault::TooMany => format!("{}: {} rules are more than a policy may have ({RULES_MAX})", file.name, lines.len()),
        RulesFault::Again { rule, before } => {
            let before = lines[before];
            let reason = format!("line {before} has this rule already, for the same class, category, zone, days and time");
            file.wrong(lines[rule], (RuleField::Rule as usize, reason))
        }
        RulesFault::Wrong { rule, field, reason } => file.wrong(lines[rule], (field as usize, reason)),
    })
}

/// What is new, other and gone; rules of the same key are the same rule.
fn compare(rules: &Rules, in_force: &Rules) -> Plan {
    let known = |rule: &Rule| {
        let place = in_force.list().binary_search_by_key(&rule.key(), Rule::key).ok()?;
        Some(in_force.list()[place])
    };
    let mut plan = Plan::default();
    for rule in rules.list() {
        plan.count(match known(rule) {
            None => Change::Added,
            Some(before) if before == *rule => Change::None,
            Some(_) => Change::Changed,
        });
    }
    plan.removed = in_force.list().len() as u32 - plan.changed - plan.unchanged;
    plan
}

fn rule(fields: Fields<'_>) -> Result<Rule, Wrong> {
    let kind = fields.one_of(RuleField::Rule as usize, RuleKind::ALL, RuleKind::name)?;
    let used = |field: RuleField| {
        let is_wrong = !kind.uses(field) && !fields.text(field as usize).is_empty();
        if is_wrong { Err((field as usize, format!("{} has none; leave it empty", kind.name()))) } else { Ok(kind.uses(field)) }
    };
    let class = if used(RuleField::Class)? { one_or_all(fields, RuleField::Class, CardClass::ALL, CardClass::name)? } else { None };
    let category =
        if used(RuleField::Category)? { one_or_all(fields, RuleField::Category, Category::ALL, Category::name)? } else { None };
    let zone = if used(RuleField::Zone)? {
        let zone = fields.label(RuleField::Zone as usize)?;
        if zone.as_str() == "*" {
            return Err((RuleField::Zone as usize, "each zone has rules of its own; name one".to_owned()));
        }
        Some(zone)
    } else {
        None
    };
    let days = if used(RuleField::Days)? { days(fields)? } else { ALL_DAYS };
    // The end's own field is looked at even where neither is used.
    let [from, to] = if used(RuleField::From)? & used(RuleField::To)? { period(fields)? } else { [0; 2] };
    let value = if used(RuleField::Value)? { value(fields, kind)? } else { 0 };
    Ok(Rule { kind, class, category, zone, window: Window { days, from, to }, value })
}

fn one_or_all<T: Copy>(fields: Fields<'_>, field: RuleField, all: &[T], name: fn(T) -> &'static str) -> Result<Option<T>, Wrong> {
    if fields.text(field as usize) == "*" {
        return Ok(None);
    }
    let one = fields.one_of(field as usize, all, name);
    one.map(Some).map_err(|(field, reason)| (field, format!("{reason}, or * for all")))
}

/// Days of the week, `1-5` or `67` or both, each once; nothing for all.
fn days(fields: Fields<'_>) -> Result<u8, Wrong> {
    let field = RuleField::Days as usize;
    let text = fields.text(field);
    read_days(text).ok_or_else(|| {
        let reason = "write each day once, 1 for Monday to 7 for Sunday, several in a row as 1-5, or leave it empty for all";
        (field, format!("{text:?} is not days of the week: {reason}"))
    })
}

fn read_days(text: &str) -> Option<u8> {
    if text.is_empty() {
        return Some(ALL_DAYS);
    }
    let mut days = 0_u8;
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let last = if let [b'-', last, tail @ ..] = tail {
            rest = tail;
            last
        } else {
            rest = tail;
            first
        };
        if !(b'1'..=b'7').contains(first) || !(b'1'..=b'7').contains(last) || last < first {
            return None;
        }
        for day in first - b'1'..=last - b'1' {
            if days >> day & 1 == 1 {
                return None;
            }
            days |= 1 << day;
        }
    }
    Some(days)
}

/// From and to in minutes of the day; neither for always.
fn period(fields: Fields<'_>) -> Result<[u16; 2], Wrong> {
    let texts = [RuleField::From, RuleField::To].map(|field| (field as usize, fields.text(field as usize)));
    let missing = texts.iter().find(|(_, text)| text.is_empty());
    if let Some(&(field, _)) = missing {
        if texts.iter().all(|(_, text)| text.is_empty()) {
            return Ok([0; 2]);
        }
        return Err((field, "from and to stand together; leave both empty for the whole day".to_owned()));
    }
    let mut minutes = [0; 2];
    for (minute, (field, text)) in minutes.iter_mut().zip(texts) {
        let reason = || (field, format!("{text:?} is not a time of day; write HH:MM, from 00:00 to 23:59"));
        *minute = read_minute(text).ok_or_else(reason)?;
    }
    Ok(minutes)
}

fn read_minute(text: &str) -> Option<u16> {
    let &[tens, hours, b':', ten_minutes, minutes] = text.as_bytes() else { return None };
    let number = |tens: u8, ones: u8| {
        (tens.is_ascii_digit() && ones.is_ascii_digit()).then(|| u16::from(tens - b'0') * 10 + u16::from(ones - b'0'))
    };
    let (hours, minutes) = (number(tens, hours)?, number(ten_minutes, minutes)?);
    (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
}

fn value(fields: Fields<'_>, kind: RuleKind) -> Result<i64, Wrong> {
    let field = RuleField::Value as usize;
    let unit = match kind {
        RuleKind::Subsidy => {
            return match fields.text(field) {
                "yes" => Ok(1),
                "no" => Ok(0),
                text => Err((field, format!("{text:?} is neither yes nor no"))),
            };
        }
        RuleKind::DayCount => "payments",
        RuleKind::Meal => "purchases",
        RuleKind::Surcharge => "basis points",
        RuleKind::AntiPassback => "minutes",
        _ => "fen",
    };
    fields.number(field, kind.values(), unit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Kind;
    use super::*;

    fn policy(rows: &str) -> Result<Rules, String> {
        let content = format!("{}\n{rows}\n", Kind::Policy.header().join(","));
        read(&mut File::open("policy.csv", content.as_bytes()).unwrap())
    }

    #[test]
    fn rows_are_rules() {
        // A row | the rule as it is written.
        const TABLE: &str = "
            transaction_max,*,*,,,,,4294967295     | transaction_max,*,*,,,,,4294967295
            transaction_max, student , shop ,,,,,0 | transaction_max,student,shop,,,,,0
            day_max,temporary,*,,,,,999999999999   | day_max,temporary,*,,,,,999999999999
            day_count,*,canteen,,,,,10000          | day_count,*,canteen,,,,,10000
            meal,student,canteen,,1-5,10:30,13:30,1 | meal,student,canteen,,1-5,10:30,13:30,1
            meal,*,*,,12345,,,2                    | meal,*,*,,1-5,,,2
            meal,*,*,,1-34-7,00:00,00:00,2         | meal,*,*,,,,,2
            meal,*,*,,76,23:59,00:00,2             | meal,*,*,,67,23:59,00:00,2
            meal,*,*,,2-2,09:00,09:00,2            | meal,*,*,,2,09:00,09:00,2
            pin_above,*,*,,,,,10000                | pin_above,*,*,,,,,10000
            subsidy,teacher,canteen,,,,,no         | subsidy,teacher,canteen,,,,,no
            subsidy,*,shop,,,,,yes                 | subsidy,*,shop,,,,,yes
            surcharge,family,*,,,,,1500            | surcharge,family,*,,,,,1500
            surcharge,student,canteen,,,,,-10000   | surcharge,student,canteen,,,,,-10000
            surcharge,student,canteen,,,,,-0       | surcharge,student,canteen,,,,,0
            refuse,student,shop,,6,22:00,06:00,    | refuse,student,shop,,6,22:00,06:00,
            door,student,,DORM-1,,06:00,23:00,     | door,student,,DORM-1,,06:00,23:00,
            door,*,,SIXTEEN BYTES 16,,,,           | door,*,,SIXTEEN BYTES 16,,,,
            anti_passback,,,GATE,,,,10080          | anti_passback,,,GATE,,,,10080
        ";
        let mut rows = 0;
        for row in TABLE.lines().map(str::trim).filter(|row| !row.is_empty()) {
            let (text, expected) = row.split_once('|').unwrap();
            let rules = policy(text.trim()).unwrap_or_else(|error| panic!("{row}: {error}"));
            assert_eq!(rules.list()[0].fields().join(","), expected.trim());
            rows += 1;
        }
        assert_eq!(rows, 19);
        assert_eq!(policy(""), Ok(Rules::default()));
    }

    #[test]
    fn a_wrong_row_is_named_with_line_field_and_reason() {
        // The second row, the first being good | the field | a part of the reason.
        const TABLE: &str = "
            ,*,*,,,,,5                        | rule     | \"\" is not one of transaction_max, day_max, day_count
            Day_max,*,*,,,,,5                 | rule     | \"Day_max\" is not one of
            day_max,*,*,,,,,6                 | rule     | line 2 has this rule already, for the same class
            day_max,pupil,*,,,,,5             | class    | \"pupil\" is not one of teacher, student, merchant, family, temporary, or * for all
            day_max,,*,,,,,5                  | class    | \"\" is not one of
            day_max,student,bar,,,,,5         | category | \"bar\" is not one of canteen, shop
            day_max,student,,,,,,5            | category | or * for all
            day_max,student,*,GATE,,,,5       | zone     | day_max has none; leave it empty
            day_max,student,*,,1-5,,,5        | days     | day_max has none; leave it empty
            day_max,student,*,,,06:00,,5      | from     | day_max has none; leave it empty
            day_max,student,*,,,,07:00,5      | to       | day_max has none; leave it empty
            day_max,student,*,,,,,            | value    | \"\" is not a whole number of fen from 0 to 999999999999
            day_max,student,*,,,,,1000000000000 | value  | from 0 to 999999999999
            day_max,student,*,,,,,-1          | value    | \"-1\" is not a whole number
            day_max,student,*,,,,,+1          | value    | is not a whole number
            day_max,student,*,,,,,5.00        | value    | is not a whole number
            transaction_max,*,*,,,,,4294967296 | value   | of fen from 0 to 4294967295
            day_count,*,*,,,,,10001           | value    | of payments from 0 to 10000
            meal,*,*,,,,,                     | value    | of purchases from 0 to 10000
            meal,*,*,,8,,,1                   | days     | \"8\" is not days of the week: write each day once
            meal,*,*,,0,,,1                   | days     | \"0\" is not days
            meal,*,*,,5-1,,,1                 | days     | \"5-1\" is not days
            meal,*,*,,1-,,,1                  | days     | is not days
            meal,*,*,,-5,,,1                  | days     | is not days
            meal,*,*,,1--5,,,1                | days     | is not days
            meal,*,*,,11,,,1                  | days     | is not days
            meal,*,*,,1-33,,,1                | days     | is not days
            meal,*,*,,mon,,,1                 | days     | is not days
            meal,*,*,,\"1,2\",,,1             | days     | is not days
            meal,*,*,,,11:00,,1               | to       | from and to stand together
            meal,*,*,,,,11:00,1               | from     | from and to stand together
            meal,*,*,,,24:00,06:00,1          | from     | \"24:00\" is not a time of day; write HH:MM, from 00:00 to 23:59
            meal,*,*,,,06:00,24:00,1          | to       | \"24:00\" is not a time of day
            meal,*,*,,,6:00,07:00,1           | from     | \"6:00\" is not a time of day
            meal,*,*,,,06:60,07:00,1          | from     | \"06:60\" is not a time of day
            meal,*,*,,,06.00,07:00,1          | from     | is not a time of day
            meal,*,*,,,06:00:00,07:00,1       | from     | is not a time of day
            meal,*,*,,,+6:00,07:00,1          | from     | is not a time of day
            subsidy,*,*,,,,,1                 | value    | \"1\" is neither yes nor no
            subsidy,*,*,,,,,                  | value    | \"\" is neither yes nor no
            surcharge,*,*,,,,,-10001          | value    | of basis points from -10000 to 10000
            surcharge,*,*,,,,,--1             | value    | is not a whole number
            surcharge,*,*,,,,,-               | value    | is not a whole number
            refuse,*,*,,,,,1                  | value    | refuse has none; leave it empty
            refuse,*,*,SHOP,,,,               | zone     | refuse has none
            door,*,*,GATE,,,,                 | category | door has none; leave it empty
            door,*,,,,,,                      | zone     | \"\" is not 1 to 16 printable ASCII characters
            door,*,,SEVENTEEN-BYTES-1,,,,     | zone     | is not 1 to 16 printable
            door,*,,*,,,,                     | zone     | each zone has rules of its own; name one
            door,*,,GATE,,,,1                 | value    | door has none
            anti_passback,*,,GATE,,,,5        | class    | anti_passback has none; leave it empty
            anti_passback,,,GATE,,,,0         | value    | of minutes from 1 to 10080
            anti_passback,,,GATE,1,,,5        | days     | anti_passback has none
        ";
        let mut rows = 0;
        for row in TABLE.lines().map(str::trim).filter(|row| !row.is_empty()) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let error = policy(&format!("day_max,*,*,,,,,5\n{}", cells[0])).unwrap_err();
            let expected = format!("policy.csv line 3, field {}: ", cells[1]);
            assert!(error.starts_with(&expected) && error.contains(cells[2]), "{row}\n{error}");
            rows += 1;
        }
        assert_eq!(rows, 53);
    }

    #[test]
    fn rules_said_again_are_named_by_their_lines() {
        let again = |rows: &str, line: u64, before: u64| {
            let error = policy(rows).unwrap_err();
            let expected = format!("policy.csv line {line}, field rule: line {before} has this rule already");
            assert!(error.starts_with(&expected), "{rows}\n{error}");
        };
        again("door,*,,A,1-5,,,\n\n\ndoor,*,,A,12345,00:00,00:00,", 5, 2);
        again("door,*,,B,,,,\ndoor,*,,A,,,,\ndoor,*,,A,,,,\ndoor,*,,B,,,,", 4, 3);
        assert!(policy("door,*,,A,1-5,,,\ndoor,*,,A,1-6,,,\ndoor,*,,B,1-5,,,\ndoor,family,,A,1-5,,,").is_ok());
        let many = |count: u32| {
            let rows = (0..count).map(|minute| format!("refuse,*,*,,,{:02}:{:02},00:00,", minute / 60, minute % 60));
            rows.collect::<Vec<_>>().join("\n")
        };
        assert_eq!(policy(&many(1_000)).unwrap().list().len(), 1_000);
        let error = policy(&many(1_001)).unwrap_err();
        assert_eq!(error, "policy.csv: 1001 rules are more than a policy may have (1000)");
    }

    #[test]
    fn rows_are_counted_against_the_rules_in_force() {
        let in_force = policy("day_max,*,*,,,,,5\nday_max,*,shop,,,,,6\nmeal,*,*,,,,,1\nrefuse,*,bath,,,,,").unwrap();
        for (rows, counts) in [
            ("", [0, 0, 0, 4]),
            ("refuse,*,bath,,,,,\nmeal,*,*,,,,,1\nday_max,*,shop,,,,,6\nday_max,*,*,,,,,5", [0, 0, 4, 0]),
            ("day_max,*,*,,,,,4\nmeal,*,*,,,,,1", [0, 1, 1, 2]),
            ("day_max,student,*,,,,,4\nmeal,*,*,,1,,,1", [2, 0, 0, 4]),
        ] {
            let plan = compare(&policy(rows).unwrap(), &in_force);
            assert_eq!([plan.added, plan.changed, plan.unchanged, plan.removed], counts, "{rows}");
        }
    }

    proptest! {
        #[test]
        fn days_and_minutes_come_back_as_they_are_written(days in 1..=ALL_DAYS, from in 0..1_440_u16, to in 0..1_440_u16) {
            let rule = Rule { window: Window { days, from, to }, ..Rule::new(RuleKind::Refuse, 0) };
            let read = policy(&rule.fields().join(",")).unwrap();
            prop_assert_eq!(read.list(), &[rule]);
        }

        #[test]
        fn whatever_stands_in_a_field_is_read_or_refused(text in "[0-9:*,-]{0,12}") {
            let _ = (read_days(&text), read_minute(&text), policy(&format!("meal,*,*,,{text},,,1")).is_ok());
        }
    }
}
