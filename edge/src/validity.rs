//! From when to when the certificate that clients are shown is good (RFC 5280 section 4.1.2.5).

use std::fmt;
use std::path::Path;

use anyhow::Context;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// How long before the end of a certificate it is said: long enough for an operator who is away for a week.
const WARN_BEFORE_S: i64 = 14 * DAY_S;

const DAY_S: i64 = 86_400;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The version, which X.509 version 1 does not have.
const VERSION: u8 = 0xa0;

/// A second of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Date {
    /// Year, month, day, hour, minute, second: in this order they compare as the time does.
    fields: [i64; 6],
}

/// When a chain is good: from the last beginning of its certificates to the first end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) from: Date,
    pub(crate) until: Date,
}

/// What a validity is at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Good,
    NotYet,
    /// So many whole days are left.
    EndsSoon(i64),
    Over,
}

impl Validity {
    /// Of all certificates of a PEM text: a chain is as good as its worst link.
    pub(crate) fn of_pem(pem: &[u8]) -> anyhow::Result<Self> {
        let mut all: Option<Self> = None;
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let one = Self::of_der(&certificate?).context("a certificate without dates")?;
            all = Some(all.map_or(one, |all| Self {
                from: all.from.max(one.from),
                until: all.until.min(one.until),
            }));
        }
        all.context("no certificate")
    }

    pub(crate) fn of_file(path: &Path) -> anyhow::Result<Self> {
        let pem = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        Self::of_pem(&pem).with_context(|| path.display().to_string())
    }

    fn of_der(mut der: &[u8]) -> Option<Self> {
        let mut certificate = expect(&mut der, SEQUENCE)?;
        let mut signed = expect(&mut certificate, SEQUENCE)?;
        if signed.first() == Some(&VERSION) {
            expect(&mut signed, VERSION)?;
        }
        expect(&mut signed, INTEGER)?;
        // The algorithm of the signature, and who signed.
        expect(&mut signed, SEQUENCE)?;
        expect(&mut signed, SEQUENCE)?;
        let mut dates = expect(&mut signed, SEQUENCE)?;
        Some(Self {
            from: Date::read(&mut dates)?,
            until: Date::read(&mut dates)?,
        })
    }

    pub(crate) fn standing(&self, now_s: i64) -> Standing {
        let left = self.until.unix_s() - now_s;
        if left < 0 {
            Standing::Over
        } else if self.from.unix_s() > now_s {
            Standing::NotYet
        } else if left < WARN_BEFORE_S {
            Standing::EndsSoon(left / DAY_S)
        } else {
            Standing::Good
        }
    }

    /// Says in the log what is wrong with it, if anything is.
    pub(crate) fn warn(&self, path: &Path, now_s: i64) {
        let (path, from, until) = (path.display(), self.from, self.until);
        match self.standing(now_s) {
            Standing::Good => {}
            Standing::NotYet => {
                tracing::warn!(%path, %from, "the certificate is not valid yet: clients refuse it");
            }
            Standing::EndsSoon(days) => {
                tracing::warn!(%path, %until, days, "the certificate expires soon");
            }
            Standing::Over => {
                tracing::warn!(%path, %until, "the certificate has expired: clients refuse it");
            }
        }
    }
}

impl Date {
    fn read(input: &mut &[u8]) -> Option<Self> {
        let (tag, text) = element(input)?;
        let (digits, century) = match (tag, text.len()) {
            // RFC 5280: 50 to 99 are of the last century.
            (UTC_TIME, 13) if text[0] >= b'5' => (&text[..12], 1900),
            (UTC_TIME, 13) => (&text[..12], 2000),
            (GENERALIZED_TIME, 15) => (&text[2..14], 100 * two(text)?),
            _ => return None,
        };
        let mut fields = [0; 6];
        for (field, pair) in fields.iter_mut().zip(digits.chunks_exact(2)) {
            *field = two(pair)?;
        }
        fields[0] += century;
        let most = [9_999, 12, 31, 23, 59, 60];
        let least = [0, 1, 1, 0, 0, 0];
        let whole = (0..6).all(|at| (least[at]..=most[at]).contains(&fields[at]));
        (whole && text.last() == Some(&b'Z')).then_some(Self { fields })
    }

    /// Seconds since 1970.
    pub(crate) fn unix_s(&self) -> i64 {
        let [year, month, day, hour, minute, second] = self.fields;
        // Years that begin in March have the leap day at their end.
        let (year, month) = match month {
            1 | 2 => (year - 1, month + 9),
            month => (year, month - 3),
        };
        let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
        let in_year = (153 * month + 2) / 5 + day - 1;
        let days = 365 * year + leap_days + in_year - 719_468;
        days * DAY_S + hour * 3_600 + minute * 60 + second
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [year, month, day, hour, minute, second] = self.fields;
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

/// Two digits.
fn two(text: &[u8]) -> Option<i64> {
    let digit = |at: usize| {
        let byte = text.get(at).filter(|byte| byte.is_ascii_digit())?;
        Some(i64::from(byte - b'0'))
    };
    Some(10 * digit(0)? + digit(1)?)
}

/// Takes one element of DER, which has to have this tag.
fn expect<'a>(input: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (found, content) = element(input)?;
    (found == tag).then_some(content)
}

/// Takes one element of DER: its tag and its content.
fn element<'a>(input: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // A certificate has no four gigabytes.
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *input = rest;
    Some((tag, content))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(from: (i32, u8, u8), until: (i32, u8, u8)) -> rcgen::Certificate {
        let names = ["localhost".to_owned()];
        let mut params = rcgen::CertificateParams::new(names).expect("a name");
        params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
        params.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
        let key = rcgen::KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("signed")
    }

    #[test]
    fn fd10_dates_are_read_in_both_forms_and_the_worst_link_counts() {
        let one = made((2024, 2, 29), (2049, 12, 31));
        let two = made((1999, 1, 1), (2050, 3, 1));
        let validity = Validity::of_pem(one.pem().as_bytes()).expect("dates");
        assert_eq!(validity.from.to_string(), "2024-02-29T00:00:00Z");
        assert_eq!(validity.from.unix_s(), 1_709_164_800);
        let validity = Validity::of_pem(two.pem().as_bytes()).expect("dates");
        assert_eq!(validity.until.to_string(), "2050-03-01T00:00:00Z");
        assert_eq!(validity.until.unix_s(), 2_529_705_600);
        let both = [one.pem(), two.pem()].concat();
        let both = Validity::of_pem(both.as_bytes()).expect("dates");
        assert_eq!(both.from.to_string(), "2024-02-29T00:00:00Z");
        assert_eq!(both.until.to_string(), "2049-12-31T00:00:00Z");
    }

    #[test]
    fn fd10_a_certificate_is_said_to_end_two_weeks_before() {
        let one = made((2024, 1, 1), (2025, 1, 1));
        let validity = Validity::of_pem(one.pem().as_bytes()).expect("dates");
        let end = validity.until.unix_s();
        for (now_s, standing) in [
            (validity.from.unix_s() - 1, Standing::NotYet),
            (end - WARN_BEFORE_S, Standing::Good),
            (end - WARN_BEFORE_S + 1, Standing::EndsSoon(13)),
            (end, Standing::EndsSoon(0)),
            (end + 1, Standing::Over),
        ] {
            assert_eq!(validity.standing(now_s), standing, "{now_s}");
        }
    }

    #[test]
    fn fd10_what_is_cut_off_has_no_dates() {
        let der = made((2024, 1, 1), (2025, 1, 1)).der().to_vec();
        assert!(Validity::of_der(&der).is_some());
        for length in 0..der.len() {
            assert_eq!(Validity::of_der(&der[..length]), None, "{length}");
        }
    }
}
