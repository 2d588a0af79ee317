//! Numbers as messages have them: `2,280`, `34 %`, `1.4 ms`.

/// A count with commas: `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A share in percent, with as many places as tell it from zero.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        _ if percent == 0.0 => "0 %".to_owned(),
        _ if percent < 0.1 => format!("{percent:.2} %"),
        _ if percent < 10.0 => format!("{percent:.1} %"),
        _ => format!("{percent:.0} %"),
    }
}

/// A time given in microseconds.
pub fn time(micros: f64) -> String {
    match micros {
        _ if micros < 1000.0 => format!("{micros:.0} µs"),
        _ if micros < 10_000.0 => format!("{:.1} ms", micros / 1e3),
        _ if micros < 1e6 => format!("{:.0} ms", micros / 1e3),
        _ => format!("{:.1} s", micros / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_they_are_written() {
        assert_eq!(
            [0, 7, 999, 1000, 2_280, 1_234_567].map(count),
            ["0", "7", "999", "1,000", "2,280", "1,234,567"]
        );
        assert_eq!(
            [0.0, 0.0002, 0.015, 0.3417].map(percent),
            ["0 %", "0.02 %", "1.5 %", "34 %"]
        );
        assert_eq!(
            [80.0, 1450.0, 35_200.0, 2_500_000.0].map(time),
            ["80 µs", "1.4 ms", "35 ms", "2.5 s"]
        );
    }
}
