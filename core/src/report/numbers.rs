//! Numbers for people.

/// A perplexity.
pub fn perplexity(value: f64) -> String {
    match value {
        _ if !value.is_finite() => "not finite".into(),
        _ if value < 1e6 => format!("{value:.4}"),
        _ => format!("{value:.4e}"),
    }
}

/// `1234567` as `1,234,567`.
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes.
pub fn bytes(value: u64) -> String {
    match value {
        0..1024 => format!("{value} B"),
        1024..1_048_576 => format!("{:.1} KiB", value as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", value as f64 / 1_048_576.0),
        _ => format!("{:.2} GiB", value as f64 / 1_073_741_824.0),
    }
}

/// A share, 0 to 1, as `12.5 %`.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent.is_finite() { format!("{percent:.1} %") } else { "not finite".into() }
}

/// By how much a value is more than another, as `+4.8 %`; nothing where that is not finite.
pub(super) fn increase(from: f64, to: f64) -> Option<String> {
    let share = to / from - 1.0;
    share.is_finite().then(|| match share.abs() {
        // From here on it is a factor that people understand.
        9.0.. => format!("\u{d7} {}", brief(to / from)),
        _ => format!("{:+.1} %", share * 100.0),
    })
}

/// A number in four digits, for a narrow place.
pub(super) fn brief(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "\u{2013}".into(),
        0.0 => "0".into(),
        size if !(1e-3..1e5).contains(&size) => format!("{value:.1e}"),
        size => {
            let decimals = (3.0 - size.log10().floor()).clamp(0.0, 6.0) as usize;
            format!("{value:.decimals$}")
        }
    }
}

/// A difference with its sign.
pub(super) fn signed(value: f64) -> String {
    if value.is_finite() { format!("{value:+.4}") } else { "not finite".into() }
}

/// A wall time in seconds.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        s if !s.is_finite() => "unknown".into(),
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7200.0 => format!("{:.1} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// `1 block`, `2 blocks`.
pub(super) fn count(number: usize, of: &str) -> String {
    format!("{number} {of}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([1023, 1536, 5 << 20, 3 << 30].map(bytes), ["1023 B", "1.5 KiB", "5.0 MiB", "3.00 GiB"]);
        assert_eq!([12.34567, 1e9, f64::INFINITY].map(perplexity), ["12.3457", "1.0000e9", "not finite"]);
        assert_eq!(
            [12.34567, 9.8765, 123456.0, 0.0, 0.01234, f64::NAN].map(brief),
            ["12.35", "9.877", "1.2e5", "0", "0.01234", "\u{2013}"]
        );
        assert_eq!(increase(10.0, 10.48).as_deref(), Some("+4.8 %"));
        assert_eq!(increase(10.0, 1234.0).as_deref(), Some("\u{d7} 123.4"));
        assert_eq!(increase(10.0, f64::INFINITY), None);
        assert_eq!([1.25, 600.0, 7200.0].map(duration), ["1.2 s", "10.0 min", "2.0 h"]);
        assert_eq!([0, 1, 2].map(|number| count(number, "block")), ["0 blocks", "1 block", "2 blocks"]);
    }
}
