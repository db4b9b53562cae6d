//! Numbers as people read them.

/// With commas between thousands.
pub(crate) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// With commas, and with as many decimals as a small number needs.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "for display, of numbers that were checked to be at least 0 and far below 2^64"
)]
pub(crate) fn readable(value: f64) -> String {
    if value >= 100.0 || value == value.trunc() {
        return grouped(value.round() as u64);
    }
    let decimals = if value >= 1.0 { 2 } else { 4 };
    let text = format!("{value:.decimals$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_have_commas() {
        let shown = [0, 999, 1_000, 12_345_678].map(grouped);
        assert_eq!(shown, ["0", "999", "1,000", "12,345,678"]);
        assert_eq!(grouped(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn small_numbers_keep_their_decimals() {
        let shown = [2.5, 0.0145, 12.345_6, 1_234.56, 7.0].map(readable);
        assert_eq!(shown, ["2.5", "0.0145", "12.35", "1,235", "7"]);
    }
}
