//! The door for the fuzz targets (`fuzz/`): what they call and nobody else can. Absent without the feature.

use bytes::Bytes;

use crate::embedded::log;

/// Reads a file of the embedded engine's log; answers stamp and number of writes of each record.
///
/// # Errors
/// What is damaged, in words.
pub fn read_log(file: Bytes) -> Result<Vec<(u64, usize)>, &'static str> {
    let mut records = Vec::new();
    log::read(file, &mut records)?;
    let parts = |record: &log::Record| (record.stamp, record.writes.len());
    Ok(records.iter().map(parts).collect())
}

/// A record of the log with these bytes for its writes, and a checksum that fits.
#[must_use]
pub fn log_record(stamp: u64, writes: &[u8]) -> Vec<u8> {
    let mut record = [&[0; log::HEADER][..], writes].concat();
    log::write_header(stamp, &mut record);
    record
}
