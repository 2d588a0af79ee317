//! What [`super::read`] promises, held against a general JSON reader: it takes the same texts, finds
//! the same values to the last bit, and names the field of what it refuses.

mod oracle;
mod requests;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::Value;

use self::oracle::{expected, found, is_request};
use self::requests::{WORDS, request};
use super::{Payload, read, timeout_us};

/// Holds one text against the general reader.
fn check(text: &[u8]) -> Result<(), TestCaseError> {
    let shown = String::from_utf8_lossy(text);
    match read(text) {
        Ok(given) => {
            prop_assert!(is_request(text), "taken here only: {shown}");
            let body: Value = serde_json::from_slice(text).unwrap();
            prop_assert_eq!(found(&given), expected(&body), "{}", shown);
            prop_assert_eq!(timeout_us(text), given.timeout_us);
        }
        Err(error) => {
            prop_assert!(!is_request(text), "refused here only: {shown}: {error}");
            let message = error.to_string();
            let (field, problem) = message.split_once(": ").unwrap_or_default();
            prop_assert!(!field.is_empty() && !problem.is_empty(), "{message}");
            prop_assert!(message.len() < 1000, "{message}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn requests_are_read_as_a_general_reader_reads_them(text in request()) {
        check(text.as_bytes())?;
    }

    #[test]
    fn changed_requests_are_requests_here_when_they_are_elsewhere(
        text in request(),
        edits in prop::collection::vec(
            (any::<Index>(), 0..3_usize, prop::option::of(select(WORDS.to_vec())), any::<u8>()),
            1..4,
        ),
    ) {
        let mut text = text.into_bytes();
        for (at, removed, word, byte) in edits {
            let start = at.index(text.len() + 1);
            let end = (start + removed).min(text.len());
            let put = word.map_or(vec![byte], |word| word.as_bytes().to_vec());
            text.splice(start..end, put);
        }
        check(&text)?;
    }

    #[test]
    fn anything_is_read_or_refused(text in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&text)?;
    }
}

#[test]
fn what_is_refused_is_refused_by_the_name_of_its_field() {
    let tensor = r#""name":"x","shape":[1],"datatype":"FP32""#;
    for (text, field) in [
        ("", "body: "),
        ("[]", "body: "),
        ("{}", "body: missing field `inputs`"),
        (r#"{"inputs":[]} x"#, "body: trailing characters"),
        (
            r#"{"inputs":[],"inputs":[]}"#,
            "body: duplicate field `inputs`",
        ),
        (r#"{"inputs":{}}"#, "inputs: "),
        (r#"{"inputs":[],"id":7}"#, "id: "),
        (
            r#"{"inputs":[],"parameters":{"timeout":-0}}"#,
            "parameters.timeout: ",
        ),
        (
            r#"{"inputs":[],"parameters":{"timeout":1.5}}"#,
            "parameters.timeout: ",
        ),
        (
            r#"{"inputs":[{"name":"x","shape":[1,-2],"datatype":"FP32"}]}"#,
            "inputs[0].shape[1]: ",
        ),
        (
            r#"{"inputs":[{"name":"x","shape":[1]}]}"#,
            "inputs[0]: missing field `datatype`",
        ),
        (
            r#"{"inputs":[],"outputs":[{"name":"y"},{}]}"#,
            "outputs[1]: missing field `name`",
        ),
        // What only the general reader takes: arrays for objects, and anything in other fields.
        (
            r#"{"inputs":[["x",[1],"FP32"]]}"#,
            "inputs: expected an object",
        ),
        (
            r#"{"inputs":[],"parameters":[]}"#,
            "parameters: expected an object",
        ),
        (
            r#"{"inputs":[],"note":[1e400]}"#,
            "note[0]: number out of range",
        ),
        (r#"{"inputs":[],"note":"\ud800"}"#, "note: "),
        (
            &format!(r#"{{"inputs":[{{{tensor},"data":[1e400]}}]}}"#),
            "inputs[0].data",
        ),
        (
            &format!(r#"{{"inputs":[{{{tensor},"parameters":[]}}]}}"#),
            "inputs[0].parameters: ",
        ),
    ] {
        let message = read(text.as_bytes()).map(|_| ()).unwrap_err().to_string();
        assert!(message.starts_with(field), "{text}: {message}");
    }
}

#[test]
fn deep_nesting_is_refused_and_costs_no_stack() {
    for depth in [100, 1000, 1_000_000] {
        let nested = "[".repeat(depth) + &"]".repeat(depth);
        for text in [
            format!(r#"{{"inputs":[],"note":{nested}}}"#),
            format!(
                r#"{{"inputs":[{{"name":"x","shape":[1],"datatype":"FP32","data":{nested}}}]}}"#
            ),
            format!(
                r#"{{"inputs":[{{"data":{nested},"name":"x","shape":[1],"datatype":"FP32"}}]}}"#
            ),
            nested,
        ] {
            match read(text.as_bytes()) {
                // Found out when it is bound to the model.
                Ok(given) => {
                    assert!(depth == 100);
                    let wrong = |payload: &Payload| !matches!(payload, Payload::Elements(Ok(_)));
                    assert!(given.inputs.iter().all(|input| wrong(&input.payload)));
                }
                Err(error) => assert!(error.to_string().len() < 1000, "{error}"),
            }
        }
    }
}
