//! Segments that no start needs any more: taken away, or moved whole to an archive.
//!
//! **Always:** they go in the order of their numbers, so that what is left never has a gap; one goes only after its copy in
//! the archive, if there is one, is on disk. An interrupted move is finished by the next.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use super::error::JournalError;
use super::names::{UNFINISHED, segment_name};
use super::segment::numbers;
use super::storage::Storage;

/// Removes the segments with numbers below `below`, after giving the name of each to `keep`; gives how many.
///
/// # Errors
/// The operating system's, and those of `keep`. What is left has no gap.
pub fn remove_segments(
    storage: &dyn Storage,
    below: u64,
    keep: &mut dyn FnMut(&str) -> io::Result<()>,
) -> Result<u64, JournalError> {
    let mut removed = 0;
    for number in numbers(storage)?.into_iter().take_while(|&number| number < below) {
        let name = segment_name(number);
        let failed = |action| move |error| JournalError::Io { action, file: storage.place(&segment_name(number)), error };
        keep(&name).map_err(failed("archive"))?;
        storage.remove(&name).map_err(failed("remove"))?;
        removed += 1;
    }
    Ok(removed)
}

/// Puts the file `name` of `folder` into `archive` as well, and on disk there. The archive is made if need be.
///
/// # Errors
/// The operating system's; of kind `AlreadyExists` where the archive has another file of that name, `InvalidInput` where it is the
/// journal's own folder.
pub fn archive(folder: &Path, archive: &Path, name: &str) -> io::Result<()> {
    if !archive.is_dir() {
        fs::create_dir_all(archive)?;
        // Its own name must be on disk as well, before what it keeps goes from the journal.
        if let Some(parent) = archive.canonicalize()?.parent() {
            fs::File::open(parent)?.sync_all()?;
        }
    }
    if archive.canonicalize()? == folder.canonicalize()? {
        let cause = format!("{} is the journal's own folder and cannot be its archive", archive.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, cause));
    }
    let (from, to) = (folder.join(name), archive.join(name));
    if to.exists() {
        // The move was interrupted between its two halves, or somebody put another journal's segment there.
        if !is_same(&from, &to)? {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} is another file", to.display())));
        }
    } else if fs::hard_link(&from, &to).is_err() {
        // Another file system, or one without links.
        let unfinished = archive.join(format!("{name}{UNFINISHED}"));
        fs::copy(&from, &unfinished)?;
        fs::File::open(&unfinished)?.sync_all()?;
        fs::rename(&unfinished, &to)?;
    }
    fs::File::open(archive)?.sync_all()
}

fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (fs::File::open(one)?, fs::File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut ours, mut theirs) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let read = one.read(&mut ours)?;
        if read == 0 {
            return Ok(true);
        }
        other.read_exact(&mut theirs[..read])?;
        if ours[..read] != theirs[..read] {
            return Ok(false);
        }
    }
}
