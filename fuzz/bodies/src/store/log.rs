//! The log of the embedded engine read back (R8, R11): damage is refused in words, and what was whole
//! is read.

use roadstead_store::fuzzing::{log_head, log_record, read_log};

/// First byte: 0 for a file as it lies on a damaged disk, else the writes of a record whose checksum
/// fits, behind so many good ones.
pub fn run(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    if *first == 0 {
        let records = read_log(rest).unwrap_or_default();
        assert!(records.is_sorted_by(|a, b| a.0 < b.0), "stamps grow");
        return;
    }
    let good = u64::from(first % 4);
    let mut file = log_head();
    file.extend((1..=good).flat_map(|n| log_record(n, &write())));
    file.extend(log_record(good + 1, rest));
    if let Ok(records) = read_log(&file) {
        let stamps: Vec<u64> = records.iter().map(|(stamp, _)| *stamp).collect();
        let whole = stamps.len() as u64 == good + u64::from(!rest.is_empty());
        assert!(whole, "what was synced is read: {stamps:?}");
    }
}

/// A key of one byte gets a value of two.
fn write() -> Vec<u8> {
    vec![1, 0, 1, 0, 0, 0, 2, b'k', b'v', b'v']
}

/// A file of three records, whole and torn; writes of each kind.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut file = log_head();
    file.extend((1..=3).flat_map(|n| log_record(n, &write())));
    let torn = &file[..file.len() - 5];
    vec![
        [&[0][..], &file].concat(),
        [&[0][..], torn].concat(),
        [&[1][..], &write()].concat(),
        [&[2][..], &write(), &[2, 0, 1, b'k']].concat(),
        [&[3][..], &[3, 0, 1, b'k']].concat(),
    ]
}
