//! A journal in one file.
//!
//! Eight bytes of magic, then records. Appended and synced; a torn tail, which only a crash in the
//! middle of a write leaves, is cut off at the next start. Whether it is a tail, marks say: before each write stands how
//! much of the file was synced by then, and what is not whole below that is damage. When most of the file is history it is
//! written anew beside itself and renamed over, so that at every moment one whole journal exists.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::record::{Decoded, decode, encode, encode_synced};
use super::{Journal, JournalError, Record, Saved};

const MAGIC: &[u8; 8] = b"rsjrnl\x00\x01";
/// A file below this is never worth writing anew.
const COMPACT_BYTES_MIN: u64 = 256 * 1024;

/// A crash-safe journal in a file, locked against a second process.
#[derive(Debug)]
pub struct FileJournal {
    path: PathBuf,
    file: File,
    /// Holds the lock: the journal's own file is replaced when it is compacted, this one never.
    _lock: File,
    saved: Saved,
    bytes: u64,
    /// Bytes after the last compaction.
    bytes_compact: u64,
    /// Bytes that are on the medium for good, and what the last mark says of them.
    synced: u64,
    marked: u64,
    /// A write failed: what the file ends with is unknown until it is opened again.
    failed: bool,
}

impl FileJournal {
    /// Opens or creates the journal at `path`, and cuts off a torn tail.
    ///
    /// # Errors
    /// [`JournalError`]: not readable, in use, or no journal.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, JournalError> {
        let path = path.into();
        let lock = lock(&path)?;
        let mut file = options().open(&path)?;
        keep_from_others(&file);
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let (saved, intact) = replay(&bytes).map_err(|error| in_file(&path, error))?;
        if intact < bytes.len() {
            file.set_len(intact as u64)?;
        }
        let mut journal = Self {
            path,
            file,
            _lock: lock,
            saved,
            bytes: intact as u64,
            bytes_compact: 0,
            synced: 0,
            marked: 0,
            failed: false,
        };
        if intact == 0 {
            journal.write(MAGIC)?;
            sync_folder(&journal.path)?;
        }
        journal.file.sync_data()?;
        journal.synced = journal.bytes;
        Ok(journal)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        self.file.seek(SeekFrom::Start(self.bytes))?;
        self.file.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn try_append(&mut self, records: &[Record]) -> Result<(), JournalError> {
        let mut bytes = Vec::new();
        if self.synced > self.marked {
            encode_synced(self.synced, &mut bytes);
        }
        records.iter().for_each(|record| encode(record, &mut bytes));
        self.write(&bytes)?;
        self.marked = self.synced;
        if records.iter().any(Record::must_be_durable) {
            self.file.sync_data()?;
            self.synced = self.bytes;
        }
        records.iter().for_each(|record| self.saved.apply(record));
        if self.bytes > COMPACT_BYTES_MIN && self.bytes > 4 * self.bytes_compact {
            self.compact()?;
        }
        Ok(())
    }

    fn compact(&mut self) -> Result<(), JournalError> {
        let mut bytes = MAGIC.to_vec();
        let records = self.saved.to_records();
        records.iter().for_each(|record| encode(record, &mut bytes));
        let beside = self.path.with_extension("new");
        let mut file = options().truncate(true).open(&beside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        sync_folder(&self.path)?;
        self.file = file;
        self.bytes = bytes.len() as u64;
        self.bytes_compact = self.bytes;
        (self.synced, self.marked) = (self.bytes, 0);
        Ok(())
    }
}

impl Drop for FileJournal {
    /// Says of the last records that they are whole. Without it a crash may have torn them.
    fn drop(&mut self) {
        if !self.failed && self.synced > self.marked {
            let mut bytes = Vec::new();
            encode_synced(self.synced, &mut bytes);
            let _ = self.write(&bytes);
        }
    }
}

impl Journal for FileJournal {
    fn load(&mut self) -> Result<Saved, JournalError> {
        Ok(self.saved.clone())
    }

    fn append(&mut self, records: &[Record]) -> Result<(), JournalError> {
        if self.failed {
            return Err(JournalError::Damaged("an earlier write failed".into()));
        }
        self.failed = true;
        self.try_append(records)?;
        self.failed = false;
        Ok(())
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true);
    // It holds messages in clear: nobody else's business.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// A file that was there, restored from a backup say, may be readable for all. It fails only if the file belongs to
/// another user, who then decides.
fn keep_from_others(file: &File) {
    #[cfg(unix)]
    let _ = file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600));
    #[cfg(not(unix))]
    let _ = file;
}

fn lock(path: &Path) -> Result<File, JournalError> {
    let lock = options().open(path.with_extension("lock"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(JournalError::InUse),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Reads all records: what they say, and how many bytes are intact.
fn replay(bytes: &[u8]) -> Result<(Saved, usize), JournalError> {
    if bytes.len() < MAGIC.len() && MAGIC.starts_with(bytes) {
        return Ok((Saved::default(), 0));
    }
    if !bytes.starts_with(MAGIC) {
        return Err(JournalError::Damaged("the file is no journal".into()));
    }
    let mut saved = Saved::default();
    let mut at = MAGIC.len();
    loop {
        match decode(&bytes[at..]) {
            Decoded::Record(record, length) => {
                saved.apply(&record);
                at += length;
            }
            Decoded::Unknown(kind) => {
                return Err(JournalError::Damaged(format!(
                    "byte {at}: a record of kind {kind}: written by a newer version"
                )));
            }
            Decoded::Synced(_, length) => at += length,
            Decoded::Torn if synced_behind(bytes, at) > at as u64 => {
                return Err(JournalError::Damaged(format!(
                    "byte {at}: what is there was written and is no record"
                )));
            }
            Decoded::Torn => return Ok((saved, at)),
        }
    }
}

/// The most that a mark behind this place says to have been synced. One speaks of what is before it.
fn synced_behind(bytes: &[u8], at: usize) -> u64 {
    let mark = |at: usize| match decode(&bytes[at..]) {
        Decoded::Synced(synced, _) if synced <= at as u64 => Some(synced),
        _ => None,
    };
    (at + 1..bytes.len()).filter_map(mark).max().unwrap_or(0)
}

fn in_file(path: &Path, error: JournalError) -> JournalError {
    match error {
        JournalError::Damaged(what) => JournalError::Damaged(format!("{}: {what}", path.display())),
        other => other,
    }
}

/// A new or renamed file is durable only when its folder is.
fn sync_folder(path: &Path) -> Result<(), JournalError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use roadstead_proto::{ChatId, Position, UserId};

    use super::super::Unconfirmed;
    use super::super::record::tests::{sample_saved, samples};
    use super::*;

    fn reopened(path: &Path) -> Saved {
        FileJournal::open(path)
            .expect("opens")
            .load()
            .expect("loads")
    }

    #[test]
    fn what_was_appended_is_there_at_the_next_start() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let mut journal = FileJournal::open(&path).expect("opens");
        assert_eq!(journal.load().expect("loads"), Saved::default());
        journal.append(&samples()).expect("appends");
        drop(journal);
        assert_eq!(reopened(&path), sample_saved());
    }

    #[test]
    fn a_crash_at_any_byte_loses_only_the_record_it_cut() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let mut journal = FileJournal::open(&path).expect("opens");
        let mut ends = vec![journal.bytes];
        for record in samples() {
            journal.append(&[record]).expect("appends");
            ends.push(journal.bytes);
        }
        drop(journal);
        let whole = fs::read(&path).expect("reads");
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).expect("writes");
            let survivors = ends[1..].iter().filter(|end| **end <= cut as u64).count();
            let mut expected = Saved::default();
            samples()[..survivors]
                .iter()
                .for_each(|record| expected.apply(record));
            assert_eq!(reopened(&path), expected, "cut at {cut}");
            // And it can be continued.
            let mut journal = FileJournal::open(&path).expect("opens");
            journal.append(&[Record::Connect(99)]).expect("appends");
            drop(journal);
            assert_eq!(reopened(&path).connect_counter, 99, "cut at {cut}");
        }
    }

    /// D-F22: damage in the middle was taken for a torn end: unconfirmed messages behind it were gone without an event,
    /// and their numbers were used again.
    #[test]
    fn df22_p35_a_flipped_bit_is_named_or_costs_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let mut journal = FileJournal::open(&path).expect("opens");
        for record in samples() {
            journal.append(&[record]).expect("appends");
        }
        drop(journal);
        let whole = fs::read(&path).expect("reads");
        let mut named = 0;
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &damaged).expect("writes");
            match FileJournal::open(&path) {
                Ok(mut journal) => {
                    assert_eq!(journal.load().expect("loads"), sample_saved(), "bit {bit}");
                }
                Err(JournalError::Damaged(said)) => {
                    assert!(said.contains(&path.display().to_string()), "{said}");
                    assert_eq!(fs::read(&path).expect("reads"), damaged, "it is left alone");
                    named += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!(named > whole.len() * 7, "only the last mark costs nothing");
    }

    /// What was not synced may be there in part, and not from its front.
    #[test]
    fn df22_p35_a_hole_in_what_was_not_synced_is_no_damage() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let cursor = |n| Record::Cursor(Position::new(1, [n; 10], 3));
        let mut journal = FileJournal::open(&path).expect("opens");
        journal.append(&samples()).expect("appends");
        let synced = journal.bytes;
        assert!(!cursor(1).must_be_durable());
        journal.append(&[cursor(7)]).expect("appends");
        let hole =
            usize::try_from(synced).expect("small")..usize::try_from(journal.bytes).expect("small");
        journal.append(&[cursor(8), cursor(9)]).expect("appends");
        // As a crash leaves it: without the last word.
        journal.failed = true;
        drop(journal);
        let mut torn = fs::read(&path).expect("reads");
        torn[hole].fill(0);
        fs::write(&path, &torn).expect("writes");
        assert_eq!(reopened(&path), sample_saved());
    }

    /// Journals of 0.1 and 0.2 have no marks.
    #[test]
    fn df22_a_journal_without_marks_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let mut bytes = MAGIC.to_vec();
        samples()
            .iter()
            .for_each(|record| encode(record, &mut bytes));
        fs::write(&path, &bytes).expect("writes");
        assert_eq!(reopened(&path), sample_saved());
        fs::write(&path, &bytes[..bytes.len() - 3]).expect("writes");
        assert_ne!(reopened(&path), Saved::default(), "and its torn end is cut");
    }

    #[cfg(unix)]
    #[test]
    fn fc4_a_journal_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        fs::write(&path, MAGIC).expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("it is ours");
        let private = || {
            for file in fs::read_dir(folder.path()).expect("a folder") {
                let file = file.expect("an entry");
                let mode = file.metadata().expect("it is there").permissions().mode();
                assert_eq!(mode & 0o777, 0o600, "{:?}", file.file_name());
            }
        };
        let mut journal = FileJournal::open(&path).expect("opens");
        private();
        journal.append(&samples()).expect("appends");
        journal.compact().expect("written anew");
        private();
    }

    #[test]
    fn a_second_process_is_kept_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let _first = FileJournal::open(&path).expect("opens");
        assert!(matches!(FileJournal::open(&path), Err(JournalError::InUse)));
    }

    #[test]
    fn a_foreign_file_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        fs::write(&path, b"dear diary").expect("writes");
        assert!(matches!(
            FileJournal::open(&path),
            Err(JournalError::Damaged(_))
        ));
        assert_eq!(fs::read(&path).expect("reads"), b"dear diary");
    }

    #[test]
    fn history_does_not_fill_the_disk() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let mut journal = FileJournal::open(&path).expect("opens");
        let user = UserId::new(1).expect("not 0");
        let payload = Bytes::from(vec![7; 4096]);
        for number in 1..=400 {
            let message = Unconfirmed {
                number,
                chat: ChatId::pair(user, user),
                payload: payload.clone(),
                sent_unix_ms: number,
            };
            let cursor = Record::Cursor(Position::new(1, [1; 10], 1));
            journal
                .append(&[Record::Send(message), Record::Settled(number - 1), cursor])
                .expect("appends");
        }
        let saved = journal.load().expect("loads");
        assert!(journal.bytes < 2 * COMPACT_BYTES_MIN, "{}", journal.bytes);
        drop(journal);
        assert_eq!(reopened(&path), saved);
        assert_eq!(saved.unconfirmed.keys().collect::<Vec<_>>(), [&400]);
    }
}
