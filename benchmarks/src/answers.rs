//! Every answer of a replay as a line of a file, for whoever adds them up and compares them with the ledger.
//!
//! The file is a CSV with the header `offset_ms,terminal_id,card_number,operation,amount,response,latency_us`: what the replay's line
//! said; the fen that moved (a purchase's amount if it was approved, of a reversal what it gave back, else 0); DE39; microseconds from
//! the moment at which it was due. Lines are in the order of their answers. They reach the file about once a second while answers
//! come, and the last of them when it is closed.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use switch_core::ledger::Response;

use crate::Failure;
use crate::terminal::{Request, Terminal};

const SECOND: u64 = 1_000_000_000;
const MILLISECOND: f64 = 1e6;

/// The file while the replay runs. [`Self::close`] ends it.
pub(crate) struct Answers {
    out: BufWriter<File>,
    speed: f64,
    flush: u64,
}

impl Answers {
    pub(crate) fn create(path: &Path, speed: f64) -> Result<Self, Failure> {
        let file = File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        writeln!(out, "offset_ms,terminal_id,card_number,operation,amount,response,latency_us")?;
        Ok(Self { out, speed, flush: SECOND })
    }

    /// Takes an answer that came at `now`, by the driver's clock in nanoseconds, and was found good.
    pub(crate) fn write(&mut self, request: &Request, terminal: &Terminal, response: Response, now: u64) -> Result<(), Failure> {
        #[expect(clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "nanoseconds of some days")]
        let offset = (request.due as f64 * self.speed / MILLISECOND).round() as u64;
        writeln!(
            self.out,
            "{offset},{},{},{},{},{},{}",
            String::from_utf8_lossy(terminal.id().trim_ascii_end()),
            request.card(),
            request.operation.name(),
            request.moved(response),
            response.code(),
            now.saturating_sub(request.due) / 1_000
        )?;
        if now >= self.flush {
            self.out.flush()?;
            self.flush = now + SECOND;
        }
        Ok(())
    }

    /// Brings the last lines to the file.
    pub(crate) fn close(mut self) -> Result<(), Failure> {
        Ok(self.out.flush()?)
    }
}
