//! The log: what makes a commit durable (R8).
//!
//! Files of records, each appended and synced before the commit is visible. A record is its length, a
//! checksum, the commit's stamp, a checksum of these three, and the writes. Because a record is written only after the
//! one before was synced, a crash can tear the last record of the last file and no other: reading ends there, and
//! nothing that was answered is lost. Anything else that does not fit is damage, and refused ([`Reader`]).
//!
//! A file is removed once what it says is in the database. A file that was read back is never appended
//! to: after an opening, and so after a failed sync, whose pages the kernel may have dropped while it
//! calls them clean, everything is first written anew into the database (R10).

mod reader;

use std::fs::{DirBuilder, File, OpenOptions};
use std::hash::Hasher;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use siphasher::sip::SipHasher13;

use super::small_key::SmallKey;
use super::write::{self, Write, Writes};

pub(crate) use reader::Reader;
#[cfg(feature = "fuzzing")]
pub(crate) use reader::read;

/// Bytes in front of a record's writes: length, checksum, stamp, checksum of these.
pub(crate) const HEADER: usize = 4 + 8 + 8 + 4;

/// What a file begins with, since its second format. To a server of 0.2, which knows the first only, it is the beginning of
/// a damaged record of five bytes: it refuses the file, where it would take another for the torn end of an empty one.
const MAGIC: [u8; 12] = *b"\0\0\0\x05rstdlog2";

/// The format, behind the salt.
const FORMAT: u8 = 2;

/// Bytes in front of the records: magic, salt, format, checksum of these.
pub(crate) const HEAD: usize = MAGIC.len() + 8 + 1 + 4;

/// An open log file.
#[derive(Debug)]
pub(crate) struct Log {
    folder: PathBuf,
    file: File,
    path: PathBuf,
    /// Nobody who sends a message knows it: what looks like a record in one is none.
    salt: u64,
    secret: [u8; 16],
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
    /// Starts a file for the commits behind `stamp`, and makes its name durable. The secret is the store's own.
    pub(crate) fn start(folder: &Path, stamp: u64, secret: [u8; 16]) -> io::Result<Self> {
        let path = folder.join(format!("{stamp:020}.log"));
        // Nobody was told of anything in a file of this name: its stamps were never given out.
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        let salt = salt(&secret, stamp);
        file.write_all(&head(salt))?;
        file.sync_all()?;
        sync_folder(folder)?;
        Ok(Self {
            folder: folder.to_path_buf(),
            file,
            path,
            salt,
            secret,
            bytes: 0,
            record: Vec::new(),
        })
    }

    /// Appends a commit and syncs it.
    pub(crate) fn append(&mut self, stamp: u64, writes: &Writes) -> io::Result<()> {
        self.record.clear();
        self.record.resize(HEADER, 0);
        write::encode(writes, &mut self.record);
        write_header(self.salt, stamp, &mut self.record);
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
        let next = Self::start(&self.folder, stamp, self.secret)?;
        Ok(std::mem::replace(self, next).path)
    }
}

/// Makes a folder, and those that it is in, if it is not there. Only its owner looks into it: messages are in clear.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(folder)
}

/// Removes files whose commits are in the database, the oldest first and each for good before the next: of two, the
/// older alone would bring back what the younger has taken away.
pub(crate) fn remove(folder: &Path, paths: &[PathBuf]) -> io::Result<()> {
    for path in paths {
        std::fs::remove_file(path)?;
        sync_folder(folder)?;
    }
    Ok(())
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
pub(crate) fn write_header(salt: u64, stamp: u64, record: &mut [u8]) {
    let (header, writes) = record.split_at_mut(HEADER);
    let length = u32::try_from(writes.len()).expect("batches are limited");
    header[..4].copy_from_slice(&length.to_be_bytes());
    header[4..12].copy_from_slice(&checksum(stamp, writes).to_be_bytes());
    header[12..20].copy_from_slice(&stamp.to_be_bytes());
    let sum = header_checksum(salt, &header[..20]);
    header[20..].copy_from_slice(&sum.to_be_bytes());
}

fn checksum(stamp: u64, writes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0, stamp);
    hasher.write(writes);
    hasher.finish()
}

fn salt(secret: &[u8; 16], stamp: u64) -> u64 {
    let mut hasher = SipHasher13::new_with_key(secret);
    hasher.write_u64(stamp);
    hasher.finish()
}

/// The head of a file.
pub(crate) fn head(salt: u64) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..12].copy_from_slice(&MAGIC);
    head[12..20].copy_from_slice(&salt.to_be_bytes());
    head[20] = FORMAT;
    let sum = header_checksum(salt, &head[..21]);
    head[21..].copy_from_slice(&sum.to_be_bytes());
    head
}

/// Of the length, the checksum and the stamp: a length that reads longer than the file would pass for a torn end.
fn header_checksum(salt: u64, header: &[u8]) -> u32 {
    let mut hasher = SipHasher13::new_with_keys(1, salt);
    hasher.write(header);
    let [first, second, third, fourth, ..] = hasher.finish().to_be_bytes();
    u32::from_be_bytes([first, second, third, fourth])
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

    fn read_all(folder: &Path, mut take: impl FnMut(Record)) -> io::Result<()> {
        let mut log = Reader::open(folder)?;
        while log.has_files() {
            log.read_file(&mut take)?;
        }
        Ok(())
    }

    fn stamps(folder: &Path) -> io::Result<Vec<u64>> {
        let mut stamps = Vec::new();
        read_all(folder, |record| stamps.push(record.stamp))?;
        Ok(stamps)
    }

    #[test]
    fn files_are_read_in_order_and_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = Log::start(folder.path(), 0, [7; 16]).expect("starts");
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
        let mut log = Log::start(folder.path(), 0, [7; 16]).expect("starts");
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
        let log = Log::start(&folder, 1, [7; 16]).expect("started");
        assert_eq!((mode(&folder), mode(&log.path)), (0o700, 0o600));
    }
}
