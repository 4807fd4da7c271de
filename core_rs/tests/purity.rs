//! The rooms that must be deterministic do no I/O and read no clock or randomness: what they may not name, they do not name.

use std::fs;
use std::path::{Path, PathBuf};

const PURE: [&str; 5] = ["iso8583", "ledger", "mac.rs", "pin.rs", "session.rs"];

/// Names that only I/O, clocks, randomness, threads or shared state need.
const FORBIDDEN: [&str; 27] = [
    "std::fs",
    "std::net",
    "std::io",
    "std::env",
    "std::time",
    "std::thread",
    "std::sync",
    "std::process",
    "std::os",
    "rustix",
    "libc",
    "memmap2",
    "jiff",
    "Instant",
    "SystemTime",
    "Timestamp::now",
    "Zoned",
    "getrandom",
    "rand::",
    "RandomState",
    "thread_local",
    "static mut",
    "println!",
    "print!",
    "dbg!",
    "unsafe",
    "extern ",
];
/// Rooms of this crate that are not pure themselves.
const IMPURE: [&str; 8] = [
    "crate::journal",
    "crate::reactor",
    "crate::authorizer",
    "crate::import",
    "crate::replica",
    "crate::stats",
    "crate::show",
    "crate::python",
];
/// Of the calendar the pure rooms may use days and moments, not the time zone.
const ZONE: &str = "CampusCalendar";

fn sources(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    entries.flat_map(|entry| sources(&entry.expect("an entry").path())).collect()
}

/// The code without its comments, line by line.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).enumerate()
}

fn offences(text: &str) -> Vec<(usize, &'static str)> {
    let forbidden = || FORBIDDEN.into_iter().chain(IMPURE).chain([ZONE]);
    code(text)
        .flat_map(|(line, code)| forbidden().filter(move |name| code.contains(name)).map(move |name| (line + 1, name)))
        .collect()
}

#[test]
fn pure_rooms_name_nothing_impure() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = 0;
    for source in PURE.iter().flat_map(|room| sources(&root.join(room))) {
        let text = fs::read_to_string(&source).expect("a source file");
        assert_eq!(offences(&text), [], "{}", source.display());
        files += 1;
    }
    assert!(files >= 17, "the rooms have their files: {files}");
}

#[test]
fn what_is_impure_is_found() {
    // The scanner itself: it finds names in code and not in comments.
    assert_eq!(offences("// Instant\nlet now = Instant::now();\n"), [(2, "Instant")]);
    assert_eq!(offences("use crate::journal::Journal; // why\n"), [(1, "crate::journal")]);
    let reactor = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/reactor/mod.rs");
    let names: Vec<&str> = offences(&fs::read_to_string(reactor).expect("a source file")).iter().map(|(_, name)| *name).collect();
    for name in ["std::time", "rustix", "Instant", "SystemTime", "crate::journal"] {
        assert!(names.contains(&name), "{name}");
    }
}
