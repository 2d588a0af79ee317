use std::os::unix::fs::{PermissionsExt, chown, symlink};

use super::super::secret;
use super::*;

fn entry(id: &str) -> KeyEntry {
    KeyEntry {
        id: id.to_owned(),
        name: "assembly engine".to_owned(),
        sha256: secret::new_key(id).unwrap().digest,
        scopes: vec![Scope::Score, Scope::Feedback],
        created: Time(1_769_860_800_000_000),
        expires: Some(Time(1_769_860_900_000_000)),
        rate_per_second: Some(12.5),
        burst: None,
        revoked: None,
        previous: Some(PreviousSecret {
            sha256: secret::new_key(id).unwrap().digest,
            until: Time(1_769_860_860_000_000),
        }),
    }
}

#[test]
fn what_is_written_is_read_again_and_only_the_owner_may_read_it() {
    // Given a folder that does not exist yet
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made").join("keys.toml");
    // When two keys are added, one after the other
    for id in ["a1", "b2"] {
        change(&path, |file| {
            file.keys.push(entry(id));
            Ok(())
        })
        .unwrap();
    }
    // Then both are there with everything that was said of them
    let file = read(&path).unwrap();
    let ids: Vec<&str> = file.keys.iter().map(|key| key.id.as_str()).collect();
    assert_eq!(ids, ["a1", "b2"]);
    let key = &file.keys[0];
    assert_eq!(key.scopes, [Scope::Score, Scope::Feedback]);
    assert_eq!(key.expires, Some(Time(1_769_860_900_000_000)));
    assert_eq!((key.rate_per_second, key.burst()), (Some(12.5), 13));
    // And the file is the owner's, and nothing is left beside it
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let beside = std::fs::read_dir(path.parent().unwrap()).unwrap();
    assert_eq!(beside.count(), 1);
}

#[test]
fn changes_at_once_are_all_there_in_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.toml");
    std::thread::scope(|threads| {
        for number in 0..8 {
            let path = &path;
            threads.spawn(move || {
                change(path, |file| {
                    file.keys.push(entry(&format!("k{number}")));
                    Ok(())
                })
                .unwrap();
            });
        }
    });
    assert_eq!(read(&path).unwrap().keys.len(), 8);
}

#[test]
fn a_refused_change_leaves_the_file_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.toml");
    change(&path, |file| {
        file.keys.push(entry("a1"));
        Ok(())
    })
    .unwrap();
    let before = std::fs::read(&path).unwrap();
    let refused = change(&path, |_| Err::<(), String>("no".to_owned()));
    assert_eq!(refused, Err("no".to_owned()));
    let twice = change(&path, |file| {
        file.keys.push(entry("a1"));
        Ok(())
    });
    assert!(twice.is_err_and(|said| said.contains("a1")));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn mistakes_name_the_line_or_the_key_and_repeat_no_secret() {
    let digest = "0".repeat(64);
    let good = format!(
        "[[key]]\nid = \"a\"\nname = \"n\"\nsha256 = \"{digest}\"\nscopes = [\"score\"]\n\
         created = \"2026-01-31T12:00:00Z\"\n"
    );
    assert!(KeyFile::parse(&good).is_ok());
    assert!(KeyFile::parse("").unwrap().keys.is_empty());
    for (text, part) in [
        (good.replace("\"score\"", "\"scroe\""), "line 5"),
        (good.replace("\"score\"", ""), "scopes"),
        (good.replace("id = \"a\"", "id = \"A_\""), "id"),
        (good.replace(&digest, "bw_a_hunter2"), "line 4"),
        (format!("{good}secret = \"bw_a_hunter2\"\n"), "line 7"),
        (format!("{good}rate_per_second = 0\n"), "rate_per_second"),
        (format!("{good}rate_per_second = nan\n"), "rate_per_second"),
        (format!("{good}burst = 5\n"), "burst"),
        (format!("{good}rate_per_second = 5\nburst = 0\n"), "burst"),
        (format!("{good}expires = \"tomorrow\"\n"), "expected a time"),
        (format!("{good}expires = \"bw_a_hunter2\"\n"), "line 7"),
        (good.replace("id = \"a\"", "id = \"bw_a_hunter2\""), "id"),
        (format!("{good}{good}"), "second"),
        (good.replace("name = \"n\"", "name = \"\\n\""), "name"),
        ("[[key".to_owned(), "line 1"),
    ] {
        let said = KeyFile::parse(&text).err().unwrap();
        assert!(said.contains(part), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

fn add(path: &Path, id: &str) {
    change(path, |file| {
        file.keys.push(entry(id));
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_changed_file_stays_its_owners() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.toml");
    add(&path, "a1");
    // Only root can give a file away; everybody else keeps it.
    let given = chown(&path, Some(12_345), Some(23_456));
    let before = std::fs::metadata(&path).unwrap();
    assert_eq!(before.uid() == 12_345, given.is_ok());
    add(&path, "b2");
    let after = std::fs::metadata(&path).unwrap();
    assert_ne!(before.ino(), after.ino());
    assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()));
    assert_eq!(after.permissions().mode() & 0o777, 0o600);
}

#[test]
fn behind_a_link_it_is_the_file_that_changes() {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().join("secrets").join("bellwether.toml");
    let link = dir.path().join("keys.toml");
    add(&real, "a1");
    symlink(&real, &link).unwrap();
    add(&link, "b2");
    assert_eq!(std::fs::read_link(&link).unwrap(), real);
    assert_eq!(read(&real).unwrap().keys.len(), 2);
    // And nothing is left beside either
    for folder in [dir.path(), real.parent().unwrap()] {
        let names = std::fs::read_dir(folder).unwrap();
        let new = names.filter(|name| {
            let name = name.as_ref().unwrap().file_name();
            name.to_string_lossy().ends_with(".new")
        });
        assert_eq!(new.count(), 0);
    }
}
