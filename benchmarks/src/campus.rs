//! The campus's files as the driver reads them: those that the switch imported.

use std::io::Read;
use std::path::Path;

use csv::ByteRecord;
use switch_core::card_number::CardNumber;
use switch_core::mac::MasterKey;

use crate::Failure;

/// Bytes read of a file at a time: ten million cards are some 700 MB.
const READ_BYTES: usize = 1 << 20;

/// A row of `terminals.csv`.
pub(crate) struct Till {
    /// DE41.
    pub(crate) id: [u8; 8],
    /// DE42.
    pub(crate) merchant: [u8; 15],
    /// pos, kiosk, counter, gate, water, library or meter.
    pub(crate) kind: String,
    pub(crate) key: MasterKey,
}

/// What there is to pay at and to pay with.
pub(crate) struct Campus {
    /// The tills: terminals of kind pos.
    pub(crate) tills: Vec<Till>,
    /// Cards to pay with.
    pub(crate) cards: Vec<CardNumber>,
}

impl Campus {
    /// Reads `terminals.csv` and `cards.csv` in `folder`. Terminals of other kinds than pos are left out.
    pub(crate) fn read(folder: &Path) -> Result<Self, Failure> {
        let mut tills = read_tills(folder)?;
        tills.retain(|till| till.kind == "pos");
        Ok(Self { tills, cards: read_cards(folder)? })
    }
}

/// Reads all of `terminals.csv` in `folder`.
pub(crate) fn read_tills(folder: &Path) -> Result<Vec<Till>, Failure> {
    let mut tills = Vec::new();
    rows(&folder.join("terminals.csv"), |row| {
        let text = |field: usize| row.get(field).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default().trim();
        let digits = Some(text(4)).filter(|digits| digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let key = digits.and_then(|digits| u128::from_str_radix(digits, 16).ok());
        let key = key.ok_or_else(|| format!("{:?} is no key of 32 hex digits", text(4)))?;
        tills.push(Till {
            id: padded(text(0))?,
            merchant: padded(text(1))?,
            kind: text(2).to_owned(),
            key: MasterKey::new(key.to_be_bytes()),
        });
        Ok(())
    })?;
    Ok(tills)
}

fn read_cards(folder: &Path) -> Result<Vec<CardNumber>, Failure> {
    let mut cards = Vec::new();
    rows(&folder.join("cards.csv"), |row| {
        let number = row.get(0).unwrap_or_default().trim_ascii();
        let card = CardNumber::from_digits(number);
        cards.push(card.ok_or_else(|| format!("{:?} is no card number", String::from_utf8_lossy(number)))?);
        Ok(())
    })?;
    Ok(cards)
}

/// Takes every row after the header; what is wrong is told with file and line.
fn rows(path: &Path, mut take: impl FnMut(&ByteRecord) -> Result<(), String>) -> Result<(), Failure> {
    let file = std::fs::File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    each_row(&path.display().to_string(), file, &mut take)
}

fn each_row(name: &str, file: impl Read, take: &mut impl FnMut(&ByteRecord) -> Result<(), String>) -> Result<(), Failure> {
    let mut reader = csv::ReaderBuilder::new().buffer_capacity(READ_BYTES).from_reader(file);
    let mut row = ByteRecord::new();
    while reader.read_byte_record(&mut row)? {
        take(&row).map_err(|reason| format!("{name} line {}: {reason}", row.position().map_or(0, csv::Position::line)))?;
    }
    Ok(())
}

/// A name as it stands in a message.
pub(crate) fn padded<const N: usize>(text: &str) -> Result<[u8; N], String> {
    let mut field = [b' '; N];
    field
        .get_mut(..text.len())
        .filter(|field| !field.is_empty())
        .ok_or_else(|| format!("{text:?} has not 1 to {N} characters"))?
        .copy_from_slice(text.as_bytes());
    Ok(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_row_is_named_with_its_line() {
        let file = "card_number,holder_id\n1234567,H1\n12x,H2\n".as_bytes();
        let mut numbers = Vec::new();
        let read = each_row("cards.csv", file, &mut |row| {
            let number = CardNumber::from_digits(&row[0]).ok_or("no card number")?;
            numbers.push(number.to_string());
            Ok(())
        });
        assert_eq!(read.unwrap_err().to_string(), "cards.csv line 3: no card number");
        assert_eq!(numbers, ["1234567"]);
    }

    #[test]
    fn a_key_has_all_its_digits() {
        let folder = std::env::temp_dir().join(format!("switch-benchmarks-{}", fastrand::u64(..)));
        std::fs::create_dir(&folder).unwrap();
        let read = |key: &str| {
            let row = format!("terminal_id,merchant_id,kind,zone,key\nT1,M1,pos,,{key}\n");
            std::fs::write(folder.join("terminals.csv"), row).unwrap();
            read_tills(&folder).map(|tills| tills.len()).map_err(|error| error.to_string())
        };
        assert_eq!(read("000102030405060708090a0b0c0d0E0F"), Ok(1));
        for key in ["", "0001", "+00102030405060708090a0b0c0d0e0f", "000102030405060708090a0b0c0d0e0g"] {
            assert!(read(key).is_err_and(|error| error.contains("line 2") && error.contains("no key of 32 hex digits")), "{key}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn names_are_padded_with_spaces() {
        assert_eq!(padded::<8>("T1"), Ok(*b"T1      "));
        assert!(padded::<8>("T12345678").is_err());
        assert!(padded::<8>("").is_err());
    }
}
