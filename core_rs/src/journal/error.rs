//! What can be wrong with a journal, said so that an operator knows where and what to do.

use std::fmt;
use std::io;

/// Why a journal cannot be made, opened, read or written. Its text is one or two clear sentences.
#[derive(Debug)]
pub enum JournalError {
    /// The folder already holds a journal.
    Exists {
        /// The folder.
        folder: String,
    },
    /// The folder holds no journal.
    Missing {
        /// The folder.
        folder: String,
    },
    /// Another process has the journal open.
    Locked {
        /// The folder.
        folder: String,
    },
    /// An option is out of its range.
    Configuration(String),
    /// The content is not what was written, and it is not the tail of an interrupted write.
    Damaged {
        /// The file.
        file: String,
        /// Byte offset in the file.
        offset: u64,
        /// Position of the first record that cannot be trusted; 0 when it is a file as a whole.
        position: u64,
        /// What was found.
        cause: String,
    },
    /// Records that had been acknowledged are no longer there.
    Lost {
        /// The file in which they should be.
        file: String,
        /// Byte offset at which they should start.
        offset: u64,
        /// Position of the last record found.
        found: u64,
        /// Position that was durable once.
        durable: u64,
    },
    /// The journal's beginning was removed, and there is no snapshot from which to go on.
    Cut {
        /// The first segment that is there.
        file: String,
    },
    /// A record is sound, but the replaying state machine does not accept it.
    Rejected {
        /// The record.
        position: u64,
        /// Its reason.
        cause: String,
    },
    /// The disk has no room for a segment of this size.
    NoSpace {
        /// The folder.
        folder: String,
        /// Bytes that are needed.
        bytes: u64,
    },
    /// The operating system failed an operation.
    Io {
        /// What was attempted, as in "cannot {action} {file}".
        action: &'static str,
        /// The file or folder.
        file: String,
        /// Its error.
        error: io::Error,
    },
}

impl fmt::Display for JournalError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists { folder } => write!(out, "{folder} already holds a journal; choose an empty folder"),
            Self::Missing { folder } => write!(out, "{folder} holds no journal; create it first, or restore it from a backup"),
            Self::Locked { folder } => write!(
                out,
                "the journal in {folder} is in use by another process; only one switch may run on it, stop the other one first"
            ),
            Self::Configuration(problem) => out.write_str(problem),
            Self::Damaged { file, offset, position, cause } => write!(
                out,
                "the journal is damaged: {file} at byte {offset}, before record {position}: {cause}. \
                 Nothing was changed; keep a copy of the folder and restore it from a backup or the standby"
            ),
            Self::Lost { file, offset, found, durable } => write!(
                out,
                "the journal has lost records: it ends at record {found} ({file} at byte {offset}), but record {durable} was acknowledged. \
                 Nothing was changed; restore the folder from a backup or the standby. Only if the loss of records {first} to {durable} \
                 is accepted, delete the file \"durable\" beside it, and every snapshot with a number above {found}, and start again",
                first = found + 1
            ),
            Self::Cut { file } => write!(
                out,
                "the journal begins with {file}: what lies before was removed, and no snapshot from which to go on can be read. \
                 Nothing was changed; put back the removed segments from the archive, or restore the folder from a backup or the standby"
            ),
            Self::Rejected { position, cause } => write!(
                out,
                "record {position} of the journal cannot be replayed: {cause}. Run the version of the switch that wrote it"
            ),
            Self::NoSpace { folder, bytes } => {
                write!(out, "the disk has no room for {bytes} bytes of journal in {folder}; free some space")
            }
            Self::Io { action, file, error } => write!(out, "cannot {action} {file}: {error}"),
        }
    }
}

impl std::error::Error for JournalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}
