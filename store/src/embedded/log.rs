//! The log: what makes a commit durable (R8).
//!
//! Files of records, each appended and synced before the commit is visible. A record is its length, a
//! checksum, the commit's stamp, and the writes. Because a record is written only after the one before
//! was synced, a crash can tear the last record and no other: reading ends there, and nothing that was
//! answered is lost. Bytes behind a torn record are damage, and refused.
//!
//! A file is removed once what it says is in the database. A file that was read back is never appended
//! to: after an opening, and so after a failed sync, whose pages the kernel may have dropped while it
//! calls them clean, everything is first written anew into the database (R10).

use std::fs::{DirBuilder, File, OpenOptions};
use std::hash::Hasher;
use std::io::{self, BufReader, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Buf;
use siphasher::sip::SipHasher13;

use super::small_key::SmallKey;
use super::write::{self, Write, Writes};

/// Bytes in front of a record's writes: length, checksum, stamp.
pub(crate) const HEADER: usize = 4 + 8 + 8;

/// An open log file.
#[derive(Debug)]
pub(crate) struct Log {
    folder: PathBuf,
    file: File,
    path: PathBuf,
    bytes: u64,
    record: Vec<u8>,
}

/// One commit, read back.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) stamp: u64,
    pub(crate) writes: Vec<(SmallKey, Write)>,
}

impl Log {
    /// Starts a file for the commits behind `stamp`, and makes its name durable.
    pub(crate) fn start(folder: &Path, stamp: u64) -> io::Result<Self> {
        let path = folder.join(format!("{stamp:020}.log"));
        // Nobody was told of anything in a file of this name: its stamps were never given out.
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        file.sync_all()?;
        sync_folder(folder)?;
        Ok(Self {
            folder: folder.to_path_buf(),
            file,
            path,
            bytes: 0,
            record: Vec::new(),
        })
    }

    /// Appends a commit and syncs it.
    pub(crate) fn append(&mut self, stamp: u64, writes: &Writes) -> io::Result<()> {
        self.record.clear();
        self.record.resize(HEADER, 0);
        write::encode(writes, &mut self.record);
        write_header(stamp, &mut self.record);
        self.file.write_all(&self.record)?;
        self.bytes += self.record.len() as u64;
        self.file.sync_data()
    }

    /// Bytes appended to this file.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Goes on in a new file; answers the path of the old one.
    pub(crate) fn rotate(&mut self, stamp: u64) -> io::Result<PathBuf> {
        let next = Self::start(&self.folder, stamp)?;
        Ok(std::mem::replace(self, next).path)
    }
}

/// Makes a folder, and those that it is in, if it is not there. Only its owner looks into it: messages are in clear.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(folder)
}

/// Reads all log files of a folder in order, one record at a time: a log is many times as large as what it
/// leaves. Makes the folder if it is not there; answers the files.
pub(crate) fn read_all(folder: &Path, mut take: impl FnMut(Record)) -> io::Result<Vec<PathBuf>> {
    make_folder(folder)?;
    sync_parent(folder)?;
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut last = None;
    for path in &paths {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        read(BufReader::new(file), length, &mut last, &mut take)?;
    }
    Ok(paths)
}

/// Removes files whose commits are in the database.
pub(crate) fn remove(folder: &Path, paths: &[PathBuf]) -> io::Result<()> {
    for path in paths {
        std::fs::remove_file(path)?;
    }
    sync_folder(folder)
}

/// Makes the name of a folder durable.
pub(crate) fn sync_parent(folder: &Path) -> io::Result<()> {
    match folder.parent() {
        Some(parent) if parent != Path::new("") => sync_folder(parent),
        Some(_) => sync_folder(Path::new(".")),
        None => Ok(()),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Fills in the header of a record whose writes follow it.
pub(crate) fn write_header(stamp: u64, record: &mut [u8]) {
    let (header, writes) = record.split_at_mut(HEADER);
    let length = u32::try_from(writes.len()).expect("batches are limited");
    header[..4].copy_from_slice(&length.to_be_bytes());
    header[4..12].copy_from_slice(&checksum(stamp, writes).to_be_bytes());
    header[12..].copy_from_slice(&stamp.to_be_bytes());
}

fn checksum(stamp: u64, writes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0, stamp);
    hasher.write(writes);
    hasher.finish()
}

/// Reads the records of one file of `left` bytes, up to a torn end. `last` is the stamp of the record before.
pub(crate) fn read(
    mut file: impl io::Read,
    mut left: u64,
    last: &mut Option<u64>,
    mut take: impl FnMut(Record),
) -> io::Result<()> {
    let mut writes = Vec::new();
    while left >= HEADER as u64 {
        let mut header = [0; HEADER];
        file.read_exact(&mut header)?;
        left -= HEADER as u64;
        let mut header = &header[..];
        let length = header.get_u32();
        let (sum, stamp) = (header.get_u64(), header.get_u64());
        if length == 0 || left < u64::from(length) {
            return Ok(());
        }
        left -= u64::from(length);
        let length = usize::try_from(length).map_err(|_| damage("a record of impossible size"))?;
        writes.resize(length, 0);
        file.read_exact(&mut writes)?;
        if checksum(stamp, &writes) != sum {
            return match left {
                0 => Ok(()),
                _ => Err(damage("a record is damaged that is not the last one")),
            };
        }
        if last.is_some_and(|last| last >= stamp) {
            return Err(damage("records are out of order"));
        }
        *last = Some(stamp);
        let writes = write::decode(&writes).ok_or_else(|| damage("a record cannot be read"))?;
        take(Record { stamp, writes });
    }
    Ok(())
}

fn damage(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn writes(key: u8) -> Writes {
        Writes::from([(
            SmallKey::from(&[key][..]),
            Write::Set(Bytes::from(vec![key; 100])),
        )])
    }

    fn stamps(folder: &Path) -> io::Result<Vec<u64>> {
        let mut stamps = Vec::new();
        read_all(folder, |record| stamps.push(record.stamp))?;
        Ok(stamps)
    }

    #[test]
    fn r11_a_torn_end_is_cut_and_damage_before_it_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = Log::start(folder.path(), 4).expect("starts");
        for stamp in 5..8 {
            log.append(stamp, &writes(1)).expect("appends");
        }
        let whole = std::fs::read(&log.path).expect("reads");
        let record = whole.len() / 3;
        for length in 0..whole.len() {
            std::fs::write(&log.path, &whole[..length]).expect("writes");
            let found = stamps(folder.path()).expect("torn is no damage");
            assert_eq!(found.len(), length / record);
        }
        for at in 2 * record..whole.len() {
            let mut torn = whole.clone();
            torn[at] ^= 1;
            std::fs::write(&log.path, &torn).expect("writes");
            // A length that became longer or shorter is noticed as well, as torn or as damage.
            assert!(stamps(folder.path()).map_or(true, |found| found.len() == 2));
        }
        let mut damaged = whole.clone();
        damaged[HEADER + 3] ^= 1;
        std::fs::write(&log.path, &damaged).expect("writes");
        assert!(stamps(folder.path()).is_err());
    }

    #[test]
    fn files_are_read_in_order_and_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = Log::start(folder.path(), 0).expect("starts");
        log.append(1, &writes(1)).expect("appends");
        let first = log.rotate(1).expect("rotates");
        log.append(2, &writes(2)).expect("appends");
        assert_eq!(stamps(folder.path()).expect("reads"), [1, 2]);
        remove(folder.path(), &[first]).expect("removes");
        assert_eq!(stamps(folder.path()).expect("reads"), [2]);
    }

    /// A replay takes the memory of what the log leaves, not of the log.
    #[test]
    fn what_is_read_back_keeps_nothing_else_in_memory() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = Log::start(folder.path(), 0).expect("starts");
        for stamp in 1..4 {
            let mut both = writes(1);
            both.extend(writes(2));
            log.append(stamp, &both).expect("appends");
        }
        let mut values = 0;
        let take = |record: Record| {
            for (_, write) in record.writes {
                let Write::Set(value) = write else {
                    panic!("{write:?}");
                };
                assert!(value.is_unique(), "it shares its memory with others");
                values += 1;
            }
        };
        read_all(folder.path(), take).expect("reads");
        assert_eq!(values, 6);
    }

    #[test]
    fn fc4_a_log_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| {
            let found = std::fs::metadata(path).expect("it is there");
            found.permissions().mode() & 0o777
        };
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().join("log");
        make_folder(&folder).expect("made");
        let log = Log::start(&folder, 1).expect("started");
        assert_eq!((mode(&folder), mode(&log.path)), (0o700, 0o600));
    }
}
