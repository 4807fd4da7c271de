//! Rows in the binary COPY format of `PostgreSQL`, for `COPY table FROM STDIN (FORMAT binary)`.
//!
//! What always holds: a finished stream is complete (header, rows, trailer), every row has exactly as many fields as the
//! stream was opened with, and every field has the width of its column's type. A wrong number of fields is an
//! assertion, because the database would refuse the whole chunk, again and again.
//!
//! How it works: one growing buffer per table. A number of fixed width goes in as one array with its length in front, so
//! that a field costs one bounds check and one store. All integers are big-endian. A date counts days and a timestamp
//! microseconds from 2000-01-01, the first in the calendar's own unit.
//!
//! Source: the documentation of `PostgreSQL`, SQL command COPY, section "Binary Format"; the width and the epoch of each
//! type from its `*_recv` function (`src/backend/utils/adt/{int,int8,bool,varlena,date,timestamp}.c`).

use crate::calendar::{Date, Timestamp};

/// "PGCOPY\n\xff\r\n\0", no flags (no OIDs), no header extension.
const HEADER: [u8; 19] = *b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// A field count of -1 ends the stream, so that a cut one is told from a whole one.
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();

/// A field length of -1 is NULL.
const NULL: [u8; 4] = (-1_i32).to_be_bytes();

/// Microseconds from 1970-01-01, where the core's moments begin, to 2000-01-01, where the database's do.
const EPOCH_MICROSECONDS: i64 = 946_684_800_000_000;

/// Microseconds in a day.
const DAY_MICROSECONDS: i64 = 86_400_000_000;

/// The last moment that the database takes, the end of the year 294276, in microseconds from 2000-01-01 (`END_TIMESTAMP` - 1).
const MOMENT_MAX: i64 = 9_223_371_331_199_999_999;

/// One table's COPY stream while it is being written.
#[derive(Debug)]
pub struct CopyStream {
    bytes: Vec<u8>,
    columns: i16,
    rows: u64,
}

impl CopyStream {
    /// An empty stream for rows of `columns` fields; `capacity` bytes are allocated ahead.
    ///
    /// # Panics
    /// Where `columns` is 0 or above 1,600, the database's own bound for a table.
    #[must_use]
    pub fn new(columns: u16, capacity: usize) -> Self {
        assert!((1..=1600).contains(&columns), "a table has 1 to 1600 columns");
        let mut bytes = Vec::with_capacity(capacity.max(HEADER.len() + TRAILER.len()));
        bytes.extend_from_slice(&HEADER);
        Self { bytes, columns: columns.cast_signed(), rows: 0 }
    }

    /// Begins the next row. Its fields are written in the order of the columns; [`Row::end`] closes it.
    pub fn row(&mut self) -> Row<'_> {
        self.bytes.extend_from_slice(&self.columns.to_be_bytes());
        Row { missing: self.columns, stream: self }
    }

    /// The rows written so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The bytes written so far, without the trailer.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The complete stream; `None` where no row was written, because then there is nothing to send.
    #[must_use]
    pub fn finish(self) -> Option<Vec<u8>> {
        (self.rows > 0).then(|| self.finish_even_empty())
    }

    /// The complete stream, even where no row was written: for a table of which that is then all.
    #[must_use]
    pub fn finish_even_empty(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&TRAILER);
        self.bytes
    }
}

/// One row while it is being written: a writer for each type, chained, and [`Row::end`] at last.
#[derive(Debug)]
#[must_use = "a row counts only once it is ended"]
pub struct Row<'s> {
    stream: &'s mut CopyStream,
    missing: i16,
}

impl Row<'_> {
    /// NULL, whatever the column's type.
    pub fn null(mut self) -> Self {
        self.put(&NULL);
        self
    }

    /// `smallint`.
    pub fn i16(mut self, value: i16) -> Self {
        self.fixed::<2, 6>(value.to_be_bytes());
        self
    }

    /// `integer`.
    pub fn i32(mut self, value: i32) -> Self {
        self.fixed::<4, 8>(value.to_be_bytes());
        self
    }

    /// `bigint`.
    pub fn i64(mut self, value: i64) -> Self {
        self.fixed::<8, 12>(value.to_be_bytes());
        self
    }

    /// `boolean`.
    pub fn bool(mut self, value: bool) -> Self {
        self.fixed::<1, 5>([u8::from(value)]);
        self
    }

    /// `text`. U+0000, the one character that the database cannot store, is written as U+FFFD: one such character must not
    /// stop the settlement of everything behind it.
    ///
    /// # Panics
    /// Where the text has 2 GiB or more.
    pub fn text(mut self, value: &str) -> Self {
        if value.as_bytes().contains(&0) {
            self.variable(value.replace('\0', "\u{fffd}").as_bytes());
        } else {
            self.variable(value.as_bytes());
        }
        self
    }

    /// `date`.
    pub fn date(self, value: Date) -> Self {
        self.i32(i32::from(value.0))
    }

    /// `timestamp` (without time zone): a day and the second in it.
    ///
    /// # Panics
    /// Where `second` is not below 86,400.
    pub fn timestamp(self, date: Date, second: u32) -> Self {
        assert!(second < 86_400, "a day has 86400 seconds");
        self.i64(i64::from(date.0) * DAY_MICROSECONDS + i64::from(second) * 1_000_000)
    }

    /// `timestamptz`: a moment.
    ///
    /// # Panics
    /// Where the moment lies beyond the year 294276, the last one that the database knows.
    pub fn timestamptz(self, at: Timestamp) -> Self {
        let moment = i128::from(at) - i128::from(EPOCH_MICROSECONDS);
        let moment = i64::try_from(moment).ok().filter(|moment| *moment <= MOMENT_MAX);
        self.i64(moment.expect("a moment is before the year 294277"))
    }

    /// `value` by the writer of its type, or NULL: `row.nullable(original, Row::i64)`.
    pub fn nullable<T>(self, value: Option<T>, write: impl FnOnce(Self, T) -> Self) -> Self {
        match value {
            Some(value) => write(self, value),
            None => self.null(),
        }
    }

    /// Closes the row.
    ///
    /// # Panics
    /// Where it has fewer or more fields than the table has columns.
    pub fn end(self) {
        assert!(self.missing == 0, "a row has as many fields as its table has columns");
        self.stream.rows += 1;
    }

    /// A field of `WIDTH` bytes; `TOTAL` is that and the four of its length.
    fn fixed<const WIDTH: usize, const TOTAL: usize>(&mut self, value: [u8; WIDTH]) {
        const { assert!(TOTAL == WIDTH + 4) };
        let mut field = [0; TOTAL];
        field[..4].copy_from_slice(&(WIDTH as u32).to_be_bytes());
        field[4..].copy_from_slice(&value);
        self.put(&field);
    }

    fn variable(&mut self, value: &[u8]) {
        let length = i32::try_from(value.len()).expect("a field is shorter than 2 GiB");
        self.put(&length.to_be_bytes());
        self.stream.bytes.extend_from_slice(value);
    }

    fn put(&mut self, field: &[u8]) {
        self.missing -= 1;
        self.stream.bytes.extend_from_slice(field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands between header and trailer after `write` has written one row of `columns` fields, without the field count.
    fn fields(columns: u16, write: impl FnOnce(Row<'_>)) -> Vec<u8> {
        let mut stream = CopyStream::new(columns, 0);
        write(stream.row());
        assert_eq!(stream.rows(), 1);
        let bytes = stream.finish().unwrap();
        assert_eq!(bytes[19..21], columns.to_be_bytes());
        bytes[21..bytes.len() - 2].to_vec()
    }

    #[test]
    fn a_stream_is_header_rows_and_trailer() {
        // The bytes that PostgreSQL itself writes for: COPY (VALUES (1::int, 'ab'::text), (NULL, '')) TO STDOUT (FORMAT binary)
        let mut stream = CopyStream::new(2, 64);
        stream.row().i32(1).text("ab").end();
        stream.row().null().text("").end();
        assert_eq!((stream.rows(), stream.bytes()), (2, 19 + 16 + 10));
        let expected = [
            &b"PGCOPY\n\xff\r\n\0"[..],
            &[0, 0, 0, 0, 0, 0, 0, 0],
            &[0, 2, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 2, b'a', b'b'],
            &[0, 2, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
            &[0xff, 0xff],
        ]
        .concat();
        assert_eq!(stream.finish().unwrap(), expected);
    }

    #[test]
    fn without_rows_there_is_nothing_to_send() {
        assert_eq!(CopyStream::new(1, 0).finish(), None);
        // The bytes that PostgreSQL itself writes for: COPY (SELECT 1 WHERE false) TO STDOUT (FORMAT binary)
        assert_eq!(CopyStream::new(1, 0).finish_even_empty(), [&b"PGCOPY\n\xff\r\n\0"[..], &[0; 8], &[0xff, 0xff]].concat());
    }

    #[test]
    fn every_type_has_its_width() {
        assert_eq!(fields(1, |row| row.i16(-2).end()), [0, 0, 0, 2, 0xff, 0xfe]);
        assert_eq!(fields(1, |row| row.i32(0x0102_0304).end()), [0, 0, 0, 4, 1, 2, 3, 4]);
        assert_eq!(fields(1, |row| row.i64(i64::MIN).end()), [0, 0, 0, 8, 0x80, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(fields(2, |row| row.bool(true).bool(false).end()), [0, 0, 0, 1, 1, 0, 0, 0, 1, 0]);
        assert_eq!(fields(1, |row| row.text("餐").end()), [0, 0, 0, 3, 0xe9, 0xa4, 0x90]);
        assert_eq!(fields(1, |row| row.null().end()), [0xff; 4]);
    }

    #[test]
    fn days_and_moments_count_from_2000() {
        assert_eq!(fields(1, |row| row.date(Date(0)).end()), [0, 0, 0, 4, 0, 0, 0, 0]);
        // 2000-01-02 is day 1; PostgreSQL: select '2000-01-02 00:00:01'::timestamp is 86,401,000,000 microseconds.
        assert_eq!(fields(1, |row| row.date(Date(1)).end()), [0, 0, 0, 4, 0, 0, 0, 1]);
        let second = fields(1, |row| row.timestamp(Date(1), 1).end());
        assert_eq!(second[4..], 86_401_000_000_i64.to_be_bytes());
        let epoch = fields(1, |row| row.timestamptz(946_684_800_000_000).end());
        assert_eq!(epoch[4..], [0; 8]);
        let before = fields(1, |row| row.timestamptz(0).end());
        assert_eq!(before[4..], (-946_684_800_000_000_i64).to_be_bytes());
    }

    #[test]
    fn a_value_that_may_be_missing_is_null_or_itself() {
        assert_eq!(fields(1, |row| row.nullable(Some(7), Row::i64).end()), [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(fields(1, |row| row.nullable(None, Row::i64).end()), [0xff; 4]);
        assert_eq!(fields(1, |row| row.nullable(Some("x"), Row::text).end()), [0, 0, 0, 1, b'x']);
    }

    #[test]
    fn the_character_that_cannot_be_stored_is_replaced() {
        assert_eq!(fields(1, |row| row.text("a\0b").end()), [0, 0, 0, 5, b'a', 0xef, 0xbf, 0xbd, b'b']);
    }

    #[test]
    #[should_panic(expected = "as many fields as its table has columns")]
    fn a_missing_field_is_our_own_bug() {
        CopyStream::new(2, 0).row().i32(1).end();
    }

    #[test]
    #[should_panic(expected = "as many fields as its table has columns")]
    fn a_field_too_many_is_our_own_bug() {
        CopyStream::new(1, 0).row().i32(1).i32(2).end();
    }

    #[test]
    #[should_panic(expected = "before the year 294277")]
    fn a_moment_beyond_postgresql_is_our_own_bug() {
        CopyStream::new(1, 0).row().timestamptz(u64::MAX).end();
    }
}
