//! Redis's protocol (RESP2), as far as one script asks for it.

use std::fmt::Write as _;
use std::net::TcpStream;

use bytes::{Buf, BufMut, BytesMut};

use super::{Answer, Dialect, Purchase};
use crate::Failure;

/// `EVALSHA` of the script with this digest.
pub(super) struct Script(pub(super) String);

impl Dialect for Script {
    fn open(&mut self, _: &mut TcpStream) -> Result<(), Failure> {
        Ok(())
    }

    fn ask(&mut self, purchase: &Purchase, out: &mut BytesMut) -> Result<(), Failure> {
        let (year, month, day) = purchase.date.parts();
        let mut word = String::with_capacity(64);
        out.put_slice(b"*10\r\n$7\r\nEVALSHA\r\n$40\r\n");
        out.put_slice(self.0.as_bytes());
        out.put_slice(b"\r\n$1\r\n4\r\n");
        let mut put = |argument: std::fmt::Arguments<'_>| {
            word.clear();
            word.write_fmt(argument)?;
            write!(out, "${}\r\n{word}\r\n", word.len())
        };
        put(format_args!("transaction:{}:{year:04}{month:02}{day:02}:{:06}", purchase.terminal, purchase.stan))?;
        put(format_args!("terminal:{}", purchase.terminal))?;
        put(format_args!("card:{}", purchase.card))?;
        put(format_args!("merchant:{}", purchase.merchant))?;
        put(format_args!("{}", purchase.merchant))?;
        put(format_args!("{year:04}{month:02}{day:02}"))?;
        put(format_args!("{}", purchase.amount))?;
        Ok(())
    }

    /// A bulk string: `$LENGTH\r\nRESPONSE POSITION BALANCE\r\n`.
    fn answer(&mut self, input: &mut BytesMut) -> Result<Option<Answer>, Failure> {
        let Some(line) = input.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
        let head = std::str::from_utf8(&input[..line])?;
        let length: usize =
            head.strip_prefix('$').and_then(|digits| digits.parse().ok()).ok_or_else(|| format!("Redis answered {head}"))?;
        let (begins, ends) = (line + 2, line + 2 + length);
        if input.len() < ends + 2 {
            return Ok(None);
        }
        let said = std::str::from_utf8(&input[begins..ends])?;
        let mut words = said.split(' ');
        let number = |words: &mut std::str::Split<'_, char>| words.next().and_then(|word| word.parse().ok());
        let approved = words.next() == Some("00");
        let answer = match (number(&mut words), number(&mut words)) {
            (Some(position), Some(balance)) => Answer { approved, position, balance },
            _ => return Err(format!("the script answered {said}").into()),
        };
        input.advance(ends + 2);
        Ok(Some(answer))
    }
}
