//! PostgreSQL's protocol: a statement that is prepared once, then bound and executed with binary parameters, each in a
//! transaction of its own.

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;

use bytes::{BufMut, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{self, Message};
use postgres_protocol::message::frontend;
use postgres_protocol::{IsNull, types};

use super::{Answer, Dialect, Purchase};
use crate::Failure;

const STATEMENT: &str = "purchase";
/// User and database that `peers.py` makes.
const USER: &str = "switch";
const BINARY: i16 = 1;

/// A connection with its statement.
#[derive(Default)]
pub(super) struct Prepared {
    /// What the row said; it counts when the server is ready again, which is after the commit.
    row: Option<Answer>,
}

impl Dialect for Prepared {
    fn open(&mut self, stream: &mut TcpStream) -> Result<(), Failure> {
        let mut out = BytesMut::new();
        frontend::startup_message([("user", USER), ("database", USER)], &mut out)?;
        stream.write_all(&out)?;
        until_ready(stream)?;
        out.clear();
        frontend::parse(STATEMENT, "SELECT * FROM purchase($1, $2, $3, $4, $5, $6)", [], &mut out)?;
        frontend::sync(&mut out);
        stream.write_all(&out)?;
        until_ready(stream)
    }

    fn ask(&mut self, purchase: &Purchase, out: &mut BytesMut) -> Result<(), Failure> {
        let card: i64 = purchase.card.digits().as_str().parse()?;
        // Both count days from 2000-01-01 on.
        let date = i32::from(purchase.date.0);
        let put = |parameter: usize, out: &mut BytesMut| -> Result<IsNull, Box<dyn Error + Sync + Send>> {
            match parameter {
                0 => types::text_to_sql(&purchase.terminal, out),
                1 => types::text_to_sql(&purchase.merchant, out),
                2 => types::date_to_sql(date, out),
                3 => types::int4_to_sql(purchase.stan.cast_signed(), out),
                4 => types::int8_to_sql(card, out),
                _ => types::int8_to_sql(purchase.amount.cast_signed(), out),
            }
            Ok(IsNull::No)
        };
        frontend::bind("", STATEMENT, [BINARY], 0..6, put, [BINARY], out).map_err(|_| "the purchase has no binary form")?;
        frontend::execute("", 0, out)?;
        frontend::sync(out);
        Ok(())
    }

    fn answer(&mut self, input: &mut BytesMut) -> Result<Option<Answer>, Failure> {
        while let Some(message) = Message::parse(input)? {
            match message {
                Message::DataRow(row) => {
                    let mut columns = row.ranges();
                    let mut column = || -> Result<&[u8], Failure> {
                        let range = columns.next()?.flatten().ok_or("the function answered nothing")?;
                        Ok(&row.buffer()[range])
                    };
                    let approved = column()? == b"00";
                    let position = whole(column()?)?;
                    let balance = whole(column()?)?;
                    self.row = Some(Answer { approved, position, balance });
                }
                Message::ErrorResponse(error) => return Err(said(&error).into()),
                Message::ReadyForQuery(_) => return Ok(Some(self.row.take().ok_or("the function answered no row")?)),
                _ => {}
            }
        }
        Ok(None)
    }
}

fn until_ready(stream: &mut TcpStream) -> Result<(), Failure> {
    let mut input = BytesMut::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Err("PostgreSQL has closed a connection".into()),
            count => input.put_slice(&buffer[..count]),
        }
        while let Some(message) = Message::parse(&mut input)? {
            match message {
                Message::ErrorResponse(error) => return Err(said(&error).into()),
                Message::ReadyForQuery(_) => return Ok(()),
                _ => {}
            }
        }
    }
}

fn whole(column: &[u8]) -> Result<u64, Failure> {
    let number = types::int8_from_sql(column).map_err(|_| "the function answered no number")?;
    Ok(number.try_into()?)
}

fn said(error: &backend::ErrorResponseBody) -> String {
    let message = error.fields().find(|field| Ok(field.type_() == b'M'));
    let text = message.ok().flatten().map(|field| String::from_utf8_lossy(field.value_bytes()).into_owned());
    format!("PostgreSQL answered: {}", text.as_deref().unwrap_or("an error"))
}
