//! Text as it stands in a page.

use std::fmt::Display;

/// Text in which nothing is taken for markup, inside and outside of attributes.
pub fn escaped(text: impl Display) -> String {
    let text = text.to_string();
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // Would be lost, or make the text around it look like another one.
            letter if letter.is_control() || is_direction(letter) => safe.push('\u{fffd}'),
            letter => safe.push(letter),
        }
    }
    safe
}

/// Letters that turn the direction in which what follows is shown.
fn is_direction(letter: char) -> bool {
    matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A count with a thin space between thousands.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A share as a percentage; what is there is not shown as nothing, and what is not all not as all.
pub fn percent(part: u64, all: u64) -> String {
    if all == 0 {
        return "–".to_owned();
    }
    let share = 100.0 * part as f64 / all as f64;
    match (part, all - part.min(all)) {
        (0, _) => "0 %".to_owned(),
        (_, 0) => "100 %".to_owned(),
        _ if share < 0.1 => "&lt; 0.1 %".to_owned(),
        _ if share > 99.9 => "&gt; 99.9 %".to_owned(),
        _ => format!("{share:.1} %"),
    }
}

/// A score to four digits; one that is very large or small with its exponent.
pub fn score(number: f64) -> String {
    let size = number.abs();
    match size == 0.0 || (1e-4..1e7).contains(&size) {
        true => format!("{number:.4}"),
        false => format!("{number:.3e}"),
    }
}

/// A change of a score, with its sign.
pub fn change(number: f64) -> String {
    let sign = if number < 0.0 { "−" } else { "+" };
    format!("{sign}{}", score(number.abs()))
}

/// The end of a scale.
pub fn end_of_scale(number: f64) -> String {
    let short = format!("{number:.3}");
    match (1e-3..1e7).contains(&number.abs()) || number == 0.0 {
        true => short.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => format!("{number:.2e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_written_is_taken_for_markup() {
        let text = escaped("<script>alert('\"&')</script>\u{1b}\u{202e}ü");
        assert_eq!(
            text,
            "&lt;script&gt;alert(&#39;&quot;&amp;&#39;)&lt;/script&gt;\u{fffd}\u{fffd}ü"
        );
    }

    #[test]
    fn numbers_are_short_and_do_not_say_more_than_is_true() {
        assert_eq!(count(7), "7");
        assert_eq!(count(100_000_000), "100\u{202f}000\u{202f}000");
        assert_eq!(percent(0, 0), "–");
        assert_eq!(percent(0, 10), "0 %");
        assert_eq!(percent(1, 100_000), "&lt; 0.1 %");
        assert_eq!(percent(99_999, 100_000), "&gt; 99.9 %");
        assert_eq!(percent(1, 3), "33.3 %");
        assert_eq!(
            (score(0.25), score(1e-9)),
            ("0.2500".to_owned(), "1.000e-9".to_owned())
        );
        assert_eq!(
            (change(-0.5), change(0.5)),
            ("−0.5000".to_owned(), "+0.5000".to_owned())
        );
        assert_eq!(
            [0.0, 1.0, 0.25, 1234.5].map(end_of_scale),
            ["0", "1", "0.25", "1234.5"]
        );
    }
}
