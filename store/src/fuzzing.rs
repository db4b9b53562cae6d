//! The door for the fuzz targets (`fuzz/`): what they call and nobody else can. Absent without the feature.

use crate::embedded::log;

/// Reads a file of the embedded engine's log; answers stamp and number of writes of each record.
///
/// # Errors
/// What is damaged, in words.
pub fn read_log(file: &[u8]) -> std::io::Result<Vec<(u64, usize)>> {
    let mut records = Vec::new();
    let take = |record: log::Record| records.push((record.stamp, record.writes.len()));
    log::read(file, take)?;
    Ok(records)
}

/// Of the files made here.
const SALT: u64 = 7;

/// What a file of the log begins with.
#[must_use]
pub fn log_head() -> Vec<u8> {
    log::head(SALT).to_vec()
}

/// A record of the log with these bytes for its writes, and a checksum that fits.
#[must_use]
pub fn log_record(stamp: u64, writes: &[u8]) -> Vec<u8> {
    let mut record = [&[0; log::HEADER][..], writes].concat();
    log::write_header(SALT, stamp, &mut record);
    record
}
