//! The door for the fuzz targets (`fuzz/`): what they call and nobody else can. Absent without the feature.

use crate::embedded::log;

/// Reads a file of the embedded engine's log; answers stamp and number of writes of each record.
///
/// # Errors
/// What is damaged, in words.
pub fn read_log(file: &[u8]) -> std::io::Result<Vec<(u64, usize)>> {
    let mut records = Vec::new();
    let take = |record: log::Record| records.push((record.stamp, record.writes.len()));
    log::read(file, file.len() as u64, &mut None, take)?;
    Ok(records)
}

/// A record of the log with these bytes for its writes, and a checksum that fits.
#[must_use]
pub fn log_record(stamp: u64, writes: &[u8]) -> Vec<u8> {
    let mut record = [&[0; log::HEADER][..], writes].concat();
    log::write_header(stamp, &mut record);
    record
}
