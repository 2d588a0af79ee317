use super::super::key_file::{PreviousSecret, Time};
use super::super::secret::{NewKey, new_key};
use super::*;

const NOW: i64 = 1_769_860_800_000_000;

fn entry(id: &str, key: &NewKey, scopes: &[Scope]) -> KeyEntry {
    KeyEntry {
        id: id.to_owned(),
        name: String::new(),
        sha256: key.digest,
        scopes: scopes.to_vec(),
        created: Time(NOW),
        expires: None,
        rate_per_second: None,
        burst: None,
        revoked: None,
        previous: None,
    }
}

fn ring(entries: Vec<KeyEntry>) -> Ring {
    Ring::new(&KeyFile { keys: entries }, None)
}

fn word(admitted: Result<Holder, Denial>) -> &'static str {
    admitted.err().map_or("admitted", |denial| denial.word())
}

#[test]
fn only_the_right_secret_of_a_known_key_is_taken() {
    let (one, two) = (new_key("a1").unwrap(), new_key("b2").unwrap());
    let ring = ring(vec![entry("a1", &one, &[Scope::Score])]);
    assert_eq!(
        word(ring.admit(&one.text, Scope::Score, &|| NOW)),
        "admitted"
    );
    // The secret of another key, under the known id and under its own
    let crossed = two.text.replace("b2", "a1");
    for shown in [two.text.as_str(), &crossed, "bw_a1_", "", "Bearer"] {
        assert_eq!(word(ring.admit(shown, Scope::Score, &|| NOW)), "unknown");
    }
}

#[test]
fn every_other_scope_is_refused_and_admin_has_all() {
    let (key, admin) = (new_key("a1").unwrap(), new_key("root").unwrap());
    let ring = ring(vec![
        entry("a1", &key, &[Scope::Score, Scope::Data]),
        entry("root", &admin, &[Scope::Admin]),
    ]);
    for scope in Scope::ALL {
        let allowed = matches!(scope, Scope::Score | Scope::Data);
        let expected = if allowed { "admitted" } else { "scope" };
        assert_eq!(word(ring.admit(&key.text, scope, &|| NOW)), expected);
        assert_eq!(word(ring.admit(&admin.text, scope, &|| NOW)), "admitted");
    }
    let said = ring.admit(&key.text, Scope::Deploy, &|| NOW).err().unwrap();
    let said = said.to_string();
    assert!(
        said.contains("deploy") && said.contains("score, data"),
        "{said}"
    );
}

#[test]
fn a_key_ends_when_it_expires_and_when_it_is_revoked() {
    let key = new_key("a1").unwrap();
    let mut expiring = entry("a1", &key, &[Scope::Score]);
    expiring.expires = Some(Time(NOW + 10));
    let held = ring(vec![expiring]);
    assert_eq!(
        word(held.admit(&key.text, Scope::Score, &|| NOW + 9)),
        "admitted"
    );
    assert_eq!(
        word(held.admit(&key.text, Scope::Score, &|| NOW + 10)),
        "expired"
    );
    assert_eq!((held.usable(NOW), held.usable(NOW + 10)), (1, 0));
    let mut revoked = entry("a1", &key, &[Scope::Score]);
    revoked.revoked = Some(Time(NOW));
    let held = ring(vec![revoked]);
    assert_eq!(
        word(held.admit(&key.text, Scope::Score, &|| NOW)),
        "revoked"
    );
    assert_eq!(held.usable(NOW), 0);
}

#[test]
fn the_secret_before_a_rotation_is_taken_until_its_grace_is_over() {
    // Given a key that was admitted, and rotated then
    let (old, new) = (new_key("a1").unwrap(), new_key("a1").unwrap());
    let before = ring(vec![entry("a1", &old, &[Scope::Score])]);
    let holder = before.admit(&old.text, Scope::Score, &|| NOW).unwrap();
    let mut rotated = entry("a1", &new, &[Scope::Score]);
    rotated.previous = Some(PreviousSecret {
        sha256: old.digest,
        until: Time(NOW + 10),
    });
    let after = ring(vec![rotated]);
    // Then the new secret is taken, the old one for its grace, and so is who showed it before
    assert_eq!(
        word(after.admit(&new.text, Scope::Score, &|| NOW + 20)),
        "admitted"
    );
    assert_eq!(
        word(after.admit(&old.text, Scope::Score, &|| NOW + 9)),
        "admitted"
    );
    assert_eq!(
        word(after.admit(&old.text, Scope::Score, &|| NOW + 10)),
        "expired"
    );
    assert_eq!(
        after.admit_again(&holder, Scope::Score, &|| NOW + 9),
        Ok(())
    );
    assert!(
        after
            .admit_again(&holder, Scope::Score, &|| NOW + 10)
            .is_err()
    );
    assert_eq!(
        word(before.admit(&new.text, Scope::Score, &|| NOW)),
        "unknown"
    );
}

#[test]
fn a_rate_bounds_its_key_only_and_goes_on_when_the_file_is_read_again() {
    let (slow, free) = (new_key("slow").unwrap(), new_key("free").unwrap());
    let mut limited = entry("slow", &slow, &[Scope::Score]);
    limited.rate_per_second = Some(0.001);
    limited.burst = Some(2);
    let file = KeyFile {
        keys: vec![limited, entry("free", &free, &[Scope::Score])],
    };
    let ring = Ring::new(&file, None);
    assert_eq!(
        word(ring.admit(&slow.text, Scope::Score, &|| NOW)),
        "admitted"
    );
    let again = Ring::new(&file, Some(&ring));
    assert_eq!(
        word(again.admit(&slow.text, Scope::Score, &|| NOW)),
        "admitted"
    );
    let denial = again
        .admit(&slow.text, Scope::Score, &|| NOW)
        .err()
        .unwrap();
    assert_eq!(denial.word(), "rate");
    assert!(denial.retry_after_s().is_some_and(|seconds| seconds > 900));
    assert_eq!(
        word(again.admit(&free.text, Scope::Score, &|| NOW)),
        "admitted"
    );
    // And a call without the scope costs nothing and is not told about rates
    assert_eq!(word(again.admit(&slow.text, Scope::Data, &|| NOW)), "scope");
}

#[test]
fn looking_whether_a_holder_still_may_counts_no_request() {
    let key = new_key("slow").unwrap();
    let mut limited = entry("slow", &key, &[Scope::Score]);
    limited.rate_per_second = Some(0.001);
    limited.burst = Some(1);
    let before = ring(vec![limited.clone()]);
    let holder = before.admit(&key.text, Scope::Score, &|| NOW).unwrap();
    // Given that its only request is under way, it is admitted as often as it is looked at
    for _ in 0..3 {
        let still = before.still_admits(&holder, Scope::Score, &|| NOW);
        assert_eq!(still, Ok(()));
    }
    assert!(before.admit_again(&holder, Scope::Score, &|| NOW).is_err());
    // Until it is revoked
    limited.revoked = Some(Time(NOW));
    let after = ring(vec![limited]);
    let denial = after.still_admits(&holder, Scope::Score, &|| NOW);
    assert_eq!(denial.unwrap_err().word(), "revoked");
}
