use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// Reads a number that is all of the text, in both ways.
fn read_number(text: &str) -> Option<f64> {
    let slow = read_number_slowly(text);
    for separator in [",", ", "] {
        let elements = [text, text, "", "                        "].join(separator);
        let mut cursor = Cursor::new(elements.as_bytes());
        let mut quick = Vec::new();
        cursor.decimals(|value| quick.push(value.to_bits()));
        assert!(quick.is_empty() || quick.len() == 2, "{text}");
        assert!(
            quick
                .iter()
                .all(|bits| slow.map(f64::to_bits) == Some(*bits)),
            "{text}"
        );
        assert_eq!(
            cursor.position(),
            quick.len() * (text.len() + separator.len())
        );
    }
    slow
}

fn read_number_slowly(text: &str) -> Option<f64> {
    let mut cursor = Cursor::new(text.as_bytes());
    let number = cursor.number().ok()?;
    cursor.end().ok()?;
    number.to_f64()
}

/// Whether the whole text is one JSON value.
fn is_json(bytes: &[u8]) -> bool {
    let mut cursor = Cursor::new(bytes);
    cursor.skip().is_ok() && cursor.end().is_ok()
}

#[test]
fn numbers_are_the_nearest_float64() {
    for text in [
        "0",
        "-0",
        "0.1",
        "-12.5e-3",
        "1e22",
        "1e23",
        "9007199254740993",
        "123456789012345678",
        "12345678901234567890",
        "0.000000000000000000000001",
        "4.9e-324",
        "1.7976931348623157e308",
        "18446744073709551615",
        "18446744073709551616",
        "0.30000000000000004",
        "1E+2",
        "1e-400",
        "3.4028235e38",
        "0.1234567890123456789",
        "99999999999999999999999999999999",
    ] {
        let expected: f64 = text.parse().unwrap();
        let found = read_number(text).unwrap();
        assert_eq!(found.to_bits(), expected.to_bits(), "{text}");
    }
    assert_eq!(read_number("1e400"), None);
    assert_eq!(read_number("1e99999999999999999999"), None);
}

#[test]
fn what_is_no_number_is_refused() {
    for text in [
        "", "-", "01", "-01", ".5", "1.", "1.e3", "1e", "1e+", "+1", "NaN", "Infinity", "0x1",
        "1_000", "--1", "1 2",
    ] {
        assert_eq!(read_number(text), None, "{text}");
    }
}

#[test]
fn whole_numbers_are_exact_to_the_ends_of_64_bits() {
    let integer = |text: &str| Cursor::new(text.as_bytes()).number().unwrap().to_integer();
    assert_eq!(integer("-9223372036854775808"), Some(i64::MIN.into()));
    assert_eq!(integer("18446744073709551615"), Some(u64::MAX.into()));
    assert_eq!(integer("9007199254740993"), Some(9_007_199_254_740_993));
    assert_eq!(integer("3.0"), Some(3));
    assert_eq!(integer("3e2"), Some(300));
    assert_eq!(integer("3.5"), None);
    assert_eq!(integer("1e30"), None);
}

#[test]
fn strings_are_unescaped() {
    for text in [
        r#""plain""#,
        r#""""#,
        r#""a\"b\\c\/d\b\f\n\r\t""#,
        r#""\u00e4\uD83D\uDE00x""#,
        "\"äöü\"",
    ] {
        let expected: String = serde_json::from_str(text).unwrap();
        assert_eq!(Cursor::new(text.as_bytes()).string().unwrap(), expected);
    }
    for text in [
        r#""\x""#,
        r#""\uD83D""#,
        r#""\uDE00""#,
        "\"a\nb\"",
        "\"open",
        r#""\u12g4""#,
    ] {
        assert!(Cursor::new(text.as_bytes()).string().is_err(), "{text}");
    }
    assert!(Cursor::new(b"\"\xff\"").string().is_err());
}

#[test]
fn nesting_is_bounded() {
    let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(is_json(deep(100).as_bytes()));
    assert!(!is_json(deep(100_000).as_bytes()));
}

/// Any JSON value, small.
fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<f32>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map(any::<String>(), inner, 0..5)
                .prop_map(|members| members.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn every_float_is_read_to_the_last_bit(value in any::<f64>()) {
        prop_assume!(value.is_finite());
        for text in [format!("{value:?}"), format!("{value:e}"), format!("{value}")] {
            prop_assert_eq!(read_number(&text).unwrap().to_bits(), value.to_bits());
        }
    }

    #[test]
    fn decimal_texts_are_read_as_the_standard_library_reads_them(
        text in r"-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,24})?(e[-+]?[0-9]{1,3})?"
    ) {
        let expected: f64 = text.parse().unwrap();
        let expected = expected.is_finite().then_some(expected.to_bits());
        prop_assert_eq!(read_number(&text).map(f64::to_bits), expected);
    }

    #[test]
    fn everything_another_writer_wrote_is_read(value in values(), pretty in any::<bool>()) {
        let text = match pretty {
            true => serde_json::to_vec_pretty(&value).unwrap(),
            false => serde_json::to_vec(&value).unwrap(),
        };
        prop_assert!(is_json(&text));
    }

    #[test]
    fn changed_texts_are_json_here_when_they_are_elsewhere(
        value in values(), at in any::<prop::sample::Index>(), byte in any::<u8>()
    ) {
        let mut text = serde_json::to_vec(&value).unwrap();
        let at = at.index(text.len());
        text[at] = byte;
        let elsewhere = serde_json::from_slice::<Value>(&text).is_ok();
        prop_assert_eq!(is_json(&text), elsewhere, "{}", String::from_utf8_lossy(&text));
    }
}
