//! What files in the journal's folder are called.

/// Ending of the name of a file that is not whole yet.
pub const UNFINISHED: &str = ".new";
/// Ending of the name of a snapshot, which lies beside the segments.
pub const SNAPSHOT: &str = ".snapshot";
const SEGMENT: &str = ".segment";

/// The file name of a segment.
pub(super) fn segment_name(number: u64) -> String {
    format!("{number:08}{SEGMENT}")
}

/// The number of the segment with this file name.
pub(super) fn segment_number(name: &str) -> Option<u64> {
    let number = name.strip_suffix(SEGMENT)?.parse().ok()?;
    (segment_name(number) == name).then_some(number)
}
