//! Reading a log back: what is torn ends it, what is damaged is refused.
//!
//! A torn end is of the last file alone, and nothing whole comes behind it. Stamps are consecutive, from that in a file's
//! name on, so a record that is missing is missed. Of the very last record nobody can tell whether it was damaged or torn.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use bytes::Buf;

use super::super::write;
use super::{
    HEAD, HEADER, MAGIC, Record, checksum, head, header_checksum, make_folder, sync_parent,
};

/// Bytes of a header in the first format (0.1, 0.2), which has no checksum of its own.
const HEADER_1: usize = 4 + 8 + 8;

/// How far behind a record that can not be read the stamp of a later one may be: above what one file can hold.
const STAMPS_AHEAD: u64 = 1 << 32;

/// The log files of a folder, read in order.
#[derive(Debug)]
pub(crate) struct Reader {
    files: Vec<PathBuf>,
    /// How many were read.
    read: usize,
    /// The stamp of the last record.
    last: Option<u64>,
}

impl Reader {
    /// Makes the folder if it is not there.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        make_folder(folder)?;
        sync_parent(folder)?;
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                files.push(path);
            }
        }
        files.sort();
        Ok(Self {
            files,
            read: 0,
            last: None,
        })
    }

    /// All of them.
    pub(crate) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Whether there is one that was not read.
    pub(crate) fn has_files(&self) -> bool {
        self.read < self.files.len()
    }

    /// Reads the next file, one record at a time: a log is many times as large as what it leaves. What is damaged is an
    /// error that names the file and the place in it.
    pub(crate) fn read_file(&mut self, take: impl FnMut(Record)) -> io::Result<()> {
        let path = &self.files[self.read];
        self.read += 1;
        let is_last = self.read == self.files.len();
        let named = path
            .file_stem()
            .and_then(|stem| stem.to_str()?.parse().ok());
        let result = match (self.last, named) {
            (Some(last), Some(named)) if last != named => {
                Err(damage(0, "files are missing before it"))
            }
            (last, named) => {
                let file = File::open(path)?;
                let left = file.metadata()?.len();
                let mut records = Records::new(BufReader::new(file), left, last.or(named), is_last);
                let read = records.read(take);
                self.last = records.last;
                read
            }
        };
        result.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            }
            _ => error,
        })
    }
}

/// Reads the records of a file by itself, as the last one of a log.
#[cfg(feature = "fuzzing")]
pub(crate) fn read(file: &[u8], take: impl FnMut(Record)) -> io::Result<()> {
    Records::new(file, file.len() as u64, None, true).read(take)
}

/// How the records of a file are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// Without a head, and with headers without a checksum.
    One,
    Two {
        salt: u64,
    },
}

/// What a header says.
#[derive(Debug, Clone, Copy)]
struct Header {
    length: usize,
    sum: u64,
    stamp: u64,
}

impl Format {
    fn header_len(self) -> usize {
        match self {
            Self::One => HEADER_1,
            Self::Two { .. } => HEADER,
        }
    }

    /// `None` if it is none.
    fn header(self, bytes: &[u8]) -> Option<Header> {
        let mut bytes = bytes.get(..self.header_len())?;
        let known = match self {
            Self::One => true,
            Self::Two { salt } => {
                header_checksum(salt, &bytes[..HEADER_1]).to_be_bytes() == bytes[HEADER_1..]
            }
        };
        let header = Header {
            length: usize::try_from(bytes.get_u32()).ok()?,
            sum: bytes.get_u64(),
            stamp: bytes.get_u64(),
        };
        (known && header.length > 0).then_some(header)
    }

    /// Whether a whole record begins here that may come behind this stamp.
    fn is_record(self, bytes: &[u8], last: Option<u64>) -> bool {
        let Some(header) = self.header(bytes) else {
            return false;
        };
        let later =
            last.is_none_or(|last| header.stamp > last && header.stamp - last <= STAMPS_AHEAD);
        let writes = &bytes[self.header_len()..];
        later
            && writes
                .get(..header.length)
                .is_some_and(|writes| checksum(header.stamp, writes) == header.sum)
    }
}

/// A file on its way.
struct Records<R> {
    file: R,
    /// Bytes that were read, and bytes that were not.
    at: u64,
    left: u64,
    last: Option<u64>,
    is_last: bool,
    salt: u64,
}

impl<R: Read> Records<R> {
    fn new(file: R, left: u64, last: Option<u64>, is_last: bool) -> Self {
        Self {
            file,
            at: 0,
            left,
            last,
            is_last,
            salt: 0,
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact(bytes)?;
        self.at += bytes.len() as u64;
        self.left -= bytes.len() as u64;
        Ok(())
    }

    /// Reads a file to its end, or up to where it is torn.
    fn read(&mut self, take: impl FnMut(Record)) -> io::Result<()> {
        let mut bytes = [0; HEAD];
        let bytes = &mut bytes[..HEAD.min(usize::try_from(self.left).unwrap_or(HEAD))];
        self.fill(bytes)?;
        let salt = bytes.get(MAGIC.len()..MAGIC.len() + 8);
        let salt = salt.map_or(0, |mut salt| salt.get_u64());
        if *bytes == head(salt) {
            self.salt = salt;
            return self.read_records(Format::Two { salt }, &[], take);
        }
        if bytes.starts_with(&MAGIC) || MAGIC.starts_with(bytes) {
            // The name of a file is durable before its head is.
            return match self.left == 0 && self.is_last {
                true => Ok(()),
                false => Err(damage(0, "the head of the file is damaged")),
            };
        }
        let bytes = bytes.to_vec();
        self.at = 0;
        self.left += bytes.len() as u64;
        // Should this be a damaged head all the same, records of its format will be found behind it.
        self.salt = salt;
        self.read_records(Format::One, &bytes, take)
    }

    /// Reads records, the first bytes of which were read already.
    fn read_records(
        &mut self,
        format: Format,
        read: &[u8],
        mut take: impl FnMut(Record),
    ) -> io::Result<()> {
        let mut first = read;
        let mut header = [0; HEADER];
        let header = &mut header[..format.header_len()];
        let mut writes = Vec::new();
        while self.left > 0 {
            let start = self.at;
            let room = usize::try_from(self.left).unwrap_or(usize::MAX);
            let header = &mut header[..format.header_len().min(room)];
            self.fill_from(&mut first, header)?;
            let Some(said) = format.header(header) else {
                return self.end(format, start, &[header, first].concat());
            };
            if self.left < said.length as u64 {
                return match format {
                    Format::One => self.end(format, start, &[header, first].concat()),
                    // What the header says is true: the rest was not written.
                    Format::Two { .. } if self.is_last => Ok(()),
                    Format::Two { .. } => {
                        Err(damage(start, "a record is not whole, and not the last one"))
                    }
                };
            }
            writes.resize(said.length, 0);
            self.fill_from(&mut first, &mut writes)?;
            if checksum(said.stamp, &writes) != said.sum {
                return match self.left == 0 && self.is_last {
                    true => Ok(()),
                    false => Err(damage(
                        start,
                        "a record is damaged that is not the last one",
                    )),
                };
            }
            if self
                .last
                .is_some_and(|last| said.stamp != last.saturating_add(1))
            {
                return Err(damage(start, "records are missing, or out of order"));
            }
            self.last = Some(said.stamp);
            let writes =
                write::decode(&writes).ok_or_else(|| damage(start, "a record cannot be read"))?;
            take(Record {
                stamp: said.stamp,
                writes,
            });
        }
        Ok(())
    }

    /// Fills from what was read already, then from the file.
    fn fill_from(&mut self, first: &mut &[u8], bytes: &mut [u8]) -> io::Result<()> {
        let ready = first.len().min(bytes.len());
        bytes[..ready].copy_from_slice(&first[..ready]);
        first.advance(ready);
        self.at += ready as u64;
        self.left -= ready as u64;
        self.fill(&mut bytes[ready..])
    }

    /// What begins at this place with these bytes is no record: the end of the log, unless a whole one comes behind it.
    fn end(&mut self, format: Format, start: u64, bytes: &[u8]) -> io::Result<()> {
        if !self.is_last {
            return Err(damage(start, "what is there is no record, and not the end"));
        }
        let mut rest = bytes.to_vec();
        self.file.read_to_end(&mut rest)?;
        let formats = [format, Format::Two { salt: self.salt }];
        let later = |at: usize| {
            let mut formats = formats.iter();
            formats.any(|format| format.is_record(&rest[at..], self.last))
        };
        match (1..rest.len()).find(|at| later(*at)) {
            None => Ok(()),
            Some(at) => {
                let at = start + at as u64;
                Err(damage(
                    start,
                    &format!("what is there is no record, and one follows at {at}"),
                ))
            }
        }
    }
}

fn damage(at: u64, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("byte {at}: {what}"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::{Log, salt, write_header};
    use super::*;
    use crate::embedded::small_key::SmallKey;
    use crate::embedded::write::{Write, Writes};

    const SECRET: [u8; 16] = [7; 16];

    /// The second format in the file behind this stamp.
    fn format_2(behind: u64) -> Format {
        let salt = salt(&SECRET, behind);
        Format::Two { salt }
    }

    /// Stamps 5 to 7 in the first file, 8 to 10 in the second.
    const RECORDS: std::ops::RangeInclusive<u64> = 5..=10;

    fn writes(stamp: u64) -> Writes {
        let key = SmallKey::from(&stamp.to_be_bytes()[..]);
        let value = Bytes::from(vec![7; usize::try_from(stamp).expect("small")]);
        Writes::from([(key, Write::Set(value))])
    }

    /// Two files of three records, as this version writes them.
    fn two_files(folder: &Path) -> [PathBuf; 2] {
        let mut log = Log::start(folder, 4, SECRET).expect("starts");
        for stamp in 5..8 {
            log.append(stamp, &writes(stamp)).expect("appends");
        }
        let first = log.rotate(7).expect("rotates");
        for stamp in 8..11 {
            log.append(stamp, &writes(stamp)).expect("appends");
        }
        [first, log.path]
    }

    /// The same as 0.2 wrote them.
    fn in_format_1(files: &[PathBuf; 2]) {
        for (path, behind) in files.iter().zip([4, 7]) {
            let file = std::fs::read(path).expect("reads");
            let mut rest = &file[HEAD..];
            let mut old = Vec::new();
            while let Some(header) = format_2(behind).header(rest) {
                let (record, behind) = rest.split_at(HEADER + header.length);
                old.extend_from_slice(&record[..HEADER_1]);
                old.extend_from_slice(&record[HEADER..]);
                rest = behind;
            }
            std::fs::write(path, old).expect("writes");
        }
    }

    fn stamps(folder: &Path) -> io::Result<Vec<u64>> {
        let mut log = Reader::open(folder)?;
        let mut stamps = Vec::new();
        while log.has_files() {
            log.read_file(|record| stamps.push(record.stamp))?;
        }
        Ok(stamps)
    }

    /// Where the last record of a file begins.
    fn last_record(format: Format, file: &[u8]) -> usize {
        let mut at = match format {
            Format::One => 0,
            Format::Two { .. } => HEAD,
        };
        loop {
            let header = format.header(&file[at..]).expect("a record");
            let next = at + format.header_len() + header.length;
            if next == file.len() {
                return at;
            }
            at = next;
        }
    }

    /// D-F11: a length that read longer than the file was taken for a torn end, in every file, and all behind it was
    /// dropped without a word.
    #[test]
    fn df11_r11_a_flipped_bit_is_named_or_costs_nothing() {
        for is_old in [false, true] {
            let folder = tempfile::tempdir().expect("a folder");
            let files = two_files(folder.path());
            if is_old {
                in_format_1(&files);
            }
            let all: Vec<u64> = RECORDS.collect();
            assert_eq!(stamps(folder.path()).expect("reads"), all);
            for (path, is_last, behind) in [(&files[0], false, 4), (&files[1], true, 7)] {
                let format = if is_old {
                    Format::One
                } else {
                    format_2(behind)
                };
                let whole = std::fs::read(path).expect("reads");
                let last = last_record(format, &whole);
                for at in 0..whole.len() {
                    for bit in 0..8 {
                        let mut damaged = whole.clone();
                        damaged[at] ^= 1 << bit;
                        std::fs::write(path, &damaged).expect("writes");
                        match stamps(folder.path()) {
                            Err(error) => {
                                let said = error.to_string();
                                let name = path.display().to_string();
                                assert!(said.contains(&name) && said.contains("byte "), "{said}");
                            }
                            // Of the very last record nobody can tell.
                            Ok(found) if is_last && at >= last => {
                                assert!(found == all || found == all[..all.len() - 1]);
                            }
                            Ok(found) => assert_eq!(found, all, "{format:?}, byte {at}, bit {bit}"),
                        }
                    }
                }
                std::fs::write(path, &whole).expect("writes");
            }
        }
    }

    /// A crash tears the end of the last file; a file that another follows is whole.
    #[test]
    fn df11_r11_a_torn_end_is_of_the_last_file_alone() {
        for is_old in [false, true] {
            let folder = tempfile::tempdir().expect("a folder");
            let files = two_files(folder.path());
            if is_old {
                in_format_1(&files);
            }
            let all: Vec<u64> = RECORDS.collect();
            for (path, is_last, behind) in [(&files[0], false, 4), (&files[1], true, 7)] {
                let format = if is_old {
                    Format::One
                } else {
                    format_2(behind)
                };
                let whole = std::fs::read(path).expect("reads");
                for length in 0..whole.len() {
                    std::fs::write(path, &whole[..length]).expect("writes");
                    let found = stamps(folder.path());
                    match is_last {
                        true => assert!(all.starts_with(&found.expect("torn is no damage"))),
                        false => assert!(found.is_err(), "{format:?}: {length} bytes are left"),
                    }
                }
                // What a file system may leave of a record whose pages were not all written.
                let mut torn = whole.clone();
                let last = last_record(format, &whole);
                torn[last..].fill(0);
                std::fs::write(path, &torn).expect("writes");
                let found = stamps(folder.path());
                match is_last {
                    true => assert_eq!(found.expect("torn is no damage"), all[..all.len() - 1]),
                    false => assert!(found.is_err()),
                }
                std::fs::write(path, &whole).expect("writes");
            }
            std::fs::remove_file(&files[0]).expect("removes");
            let found = stamps(folder.path()).expect("the first is in the database");
            assert_eq!(found, all[3..]);
        }
    }

    /// A file in the middle that is gone, and records that are.
    #[test]
    fn df11_r11_what_is_missing_is_missed() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = two_files(folder.path());
        let later = folder.path().join(format!("{:020}.log", 12));
        let mut record = vec![0; HEADER + 1];
        write_header(0, 13, &mut record);
        std::fs::write(&later, [&head(0)[..], &record].concat()).expect("writes");
        let error = stamps(folder.path()).expect_err("11 and 12 are missing");
        assert!(error.to_string().contains("missing"), "{error}");
        std::fs::remove_file(later).expect("removes");

        let whole = std::fs::read(&files[1]).expect("reads");
        let first = HEAD + HEADER + format_2(7).header(&whole[HEAD..]).expect("one").length;
        let without = [&whole[..HEAD], &whole[first..]].concat();
        std::fs::write(&files[1], without).expect("writes");
        assert!(stamps(folder.path()).is_err(), "8 is missing");
    }

    /// To 0.2 a file of this format is damaged, not empty: it does not go on without what is in it.
    #[test]
    fn df11_an_older_server_refuses_a_file_of_this_format() {
        let folder = tempfile::tempdir().expect("a folder");
        let [first, _] = two_files(folder.path());
        let file = std::fs::read(first).expect("reads");
        let header = Format::One.header(&file).expect("a record of five bytes");
        assert_eq!(HEADER_1 + header.length, HEAD);
        assert_ne!(checksum(header.stamp, &file[HEADER_1..HEAD]), header.sum);
        assert!(file.len() > HEAD, "it is not the last one");
    }

    /// A message may look like a record of the log: it is none to who looks for one behind a torn end.
    #[test]
    fn df11_r11_a_record_in_a_message_is_no_record() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = Log::start(folder.path(), 4, SECRET).expect("starts");
        log.append(5, &writes(5)).expect("appends");
        let whole = std::fs::metadata(&log.path).expect("it is there").len();
        let forged = [Format::One, Format::Two { salt: 0 }].map(|format| {
            let mut record = vec![0; HEADER + 1];
            write_header(0, 7, &mut record);
            let writes = record.split_off(HEADER);
            record.truncate(format.header_len());
            [record, writes].concat()
        });
        let value = Bytes::from([&[7; 4_096][..], &forged[0], &forged[1]].concat());
        let message = Writes::from([(SmallKey::from(&b"k"[..]), Write::Set(value))]);
        log.append(6, &message).expect("appends");
        // The first page of it was not written.
        let mut file = std::fs::read(&log.path).expect("reads");
        let torn = usize::try_from(whole).expect("small");
        file[torn..torn + 2_048].fill(0);
        std::fs::write(&log.path, file).expect("writes");
        assert_eq!(stamps(folder.path()).expect("torn is no damage"), [5]);
    }
}
