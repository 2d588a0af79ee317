use std::path::Path;
use std::sync::mpsc::channel;

use super::*;
use crate::config::RepositoryConfig;
use crate::features::views::Views;
use crate::ledger::LedgerOptions;
use crate::models::rollout::Share;

#[path = "accept_tests.rs"]
mod accept;

/// A server's data directory, and a repository of versions 1 to 3 of the sample model `churn`.
struct House {
    dir: tempfile::TempDir,
}

impl House {
    fn new() -> House {
        let house = House {
            dir: tempfile::tempdir().unwrap(),
        };
        for version in ["1", "2", "3"] {
            house.fill(&house.models().join("churn").join(version));
        }
        std::fs::create_dir(house.data()).unwrap();
        house
    }

    fn models(&self) -> PathBuf {
        self.dir.path().join("models")
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn fill(&self, folder: &Path) {
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/churn/1");
        std::fs::create_dir_all(folder).unwrap();
        for file in ["model.onnx", "model.toml"] {
            std::fs::copy(sample.join(file), folder.join(file)).unwrap();
        }
    }

    /// As a server is opened.
    fn open(&self) -> Rollouts {
        self.open_with(RepositoryConfig::everything())
    }

    fn open_with(&self, policy: RepositoryConfig) -> Rollouts {
        self.serve(self.load(policy))
    }

    /// The versions, in the roles that are kept at this moment.
    fn load(&self, policy: RepositoryConfig) -> Repository {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let views = Views::load(&root.join("features")).unwrap();
        let roles = State::read(&self.data()).unwrap().roles;
        Repository::open_with(&self.models(), &views, roles, policy)
    }

    fn serve(&self, repository: Repository) -> Rollouts {
        let ledger = Ledger::open(&self.data(), LedgerOptions::default()).unwrap();
        Rollouts::open(Arc::new(repository), Arc::new(ledger), self.data()).unwrap()
    }

    /// The action and the subject of every audit row.
    fn rows(&self) -> Vec<(String, String)> {
        let mut rows = Vec::new();
        crate::ledger::read_audits(&self.data(), 0, |_, audit| {
            rows.push((audit.action, audit.subject));
            Ok(())
        })
        .unwrap();
        rows
    }
}

fn change(transition: Transition) -> Change {
    Change {
        transition,
        actor: "anonymous".to_owned(),
        reason: "because".to_owned(),
    }
}

fn promote(version: u64) -> Change {
    change(Transition::Promote { version })
}

fn back() -> Change {
    change(Transition::Rollback { from: None })
}

fn champion(rollouts: &Rollouts) -> String {
    let found = rollouts.repository.find("churn", None).unwrap();
    found.version.clone()
}

#[test]
fn what_is_answered_is_in_force_and_in_the_file_and_in_the_ledger() {
    let house = House::new();
    let rollouts = house.open();
    assert_eq!(champion(&rollouts), "3");
    let roles = rollouts.change("churn", &promote(1)).unwrap();
    assert_eq!((roles.champion, &roles.before[..]), (1, &[3, 2][..]));
    assert_eq!(champion(&rollouts), "1");
    let kept = State::read(&house.data()).unwrap();
    assert_eq!(*kept.roles["churn"], roles);
    // Without the file the ledger says the same.
    std::fs::remove_file(house.data().join("rollout.json")).unwrap();
    assert_eq!(*State::read(&house.data()).unwrap().roles["churn"], roles);
    drop(rollouts);
    assert_eq!(champion(&house.open()), "1");
}

#[test]
fn what_cannot_be_recorded_does_not_happen() {
    let house = House::new();
    let rollouts = house.open();
    rollouts.ledger.close().unwrap();
    let refused = rollouts.change("churn", &promote(1)).unwrap_err();
    assert!(matches!(refused, RolloutError::Ledger(_)), "{refused}");
    assert_eq!(champion(&rollouts), "3");
    assert!(State::read(&house.data()).unwrap().roles.is_empty());
}

#[test]
fn a_file_that_cannot_be_written_stops_nothing_that_the_ledger_has() {
    let house = House::new();
    let rollouts = house.open();
    std::fs::remove_file(house.data().join("rollout.json")).unwrap();
    // Nothing can take the place of a folder that is not empty.
    std::fs::create_dir_all(house.data().join("rollout.json/in the way")).unwrap();
    rollouts.change("churn", &promote(2)).unwrap();
    assert_eq!(champion(&rollouts), "2");
    drop(rollouts);
    std::fs::remove_dir_all(house.data().join("rollout.json")).unwrap();
    assert_eq!(champion(&house.open()), "2");
}

#[test]
fn a_rollback_does_not_wait_for_a_deploy() {
    let house = House::new();
    let rollouts = house.open();
    rollouts.change("churn", &promote(1)).unwrap();
    let incoming = rollouts.repository.receive("churn").unwrap();
    house.fill(incoming.folder());
    let (begun, has_begun) = channel();
    let (go_on, may_go_on) = channel::<()>();
    let repository = &rollouts.repository;
    std::thread::scope(|scope| {
        // Given a deploy that is under way,
        let deploying = scope.spawn(move || {
            let deployed = repository.deploy("churn", incoming, |_| {
                begun.send(()).unwrap();
                may_go_on.recv().unwrap();
                Ok(())
            });
            deployed.unwrap().number
        });
        has_begun.recv().unwrap();
        // when the champion is taken back, then that is done before the deploy is;
        rollouts.change("churn", &back()).unwrap();
        assert_eq!(champion(&rollouts), "3");
        go_on.send(()).unwrap();
        // and the deploy does not bring the roles back that it has begun with.
        assert_eq!(deploying.join().unwrap(), 4);
    });
    assert_eq!(champion(&rollouts), "3");
}

#[test]
fn a_stand_in_can_be_made_the_champion_and_so_can_the_one_before_it() {
    let broken = |house: &House| {
        let rollouts = house.open();
        for version in [1, 2, 3] {
            // Promoted one after the other: before 3 comes 2, and before that 1.
            let _ = rollouts.change("churn", &promote(version));
        }
        drop(rollouts);
        std::fs::write(house.models().join("churn/3/model.onnx"), "broken").unwrap();
        let rollouts = house.open();
        assert_eq!(champion(&rollouts), "2");
        rollouts
    };
    // Promoted, the stand-in is the champion for good, and the broken one no way back.
    let house = House::new();
    let rollouts = broken(&house);
    let roles = rollouts.change("churn", &promote(2)).unwrap();
    assert_eq!((roles.champion, &roles.before[..]), (2, &[1][..]));
    // So it is when the broken champion is taken back.
    let house = House::new();
    let rollouts = broken(&house);
    let roles = rollouts.change("churn", &back()).unwrap();
    assert_eq!((roles.champion, &roles.before[..]), (2, &[1][..]));
    let roles = rollouts.change("churn", &back()).unwrap();
    assert_eq!((roles.champion, &roles.before[..]), (1, &[][..]));
    // And whoever is promoted over a stand-in has it before him.
    let house = House::new();
    let rollouts = broken(&house);
    let roles = rollouts.change("churn", &promote(1)).unwrap();
    assert_eq!((roles.champion, &roles.before[..]), (1, &[2][..]));
    assert_eq!(champion(&rollouts), "1");
}

#[test]
fn transitions_of_several_callers_are_made_one_after_the_other() {
    let house = House::new();
    let rollouts = house.open();
    let share = Share::from_percent(5.0).unwrap();
    std::thread::scope(|scope| {
        for version in 1..=3 {
            let rollouts = &rollouts;
            scope.spawn(move || {
                for _ in 0..10 {
                    let canary = Transition::Canary {
                        version,
                        share,
                        guardrails: None,
                    };
                    // Refused as often as not.
                    let _ = rollouts.change("churn", &change(canary));
                    let _ = rollouts.change("churn", &promote(version));
                    let _ = rollouts.change("churn", &back());
                }
            });
        }
    });
    let roles = rollouts.repository.roles("churn").unwrap();
    let mut revisions = Vec::new();
    crate::ledger::read_audits(&house.data(), 0, |_, audit| {
        let details: Details = serde_json::from_str(&audit.details).unwrap();
        revisions.push(details.roles.revision);
        Ok(())
    })
    .unwrap();
    let expected: Vec<u64> = (1..=roles.revision).collect();
    assert_eq!(revisions, expected);
    assert_eq!(State::read(&house.data()).unwrap().roles["churn"], roles);
}

#[test]
fn a_version_that_reads_no_view_does_not_take_the_place_of_one_that_does() {
    let house = House::new();
    let folder = house.models().join("churn/4");
    std::fs::create_dir(&folder).unwrap();
    let graph = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/churn/1/model.onnx");
    std::fs::copy(graph, folder.join("model.onnx")).unwrap();
    let unbound = std::fs::read(folder.join("model.onnx")).unwrap();
    // Another name of an input, of the same length: no feature is called that.
    let name = b"total_charges";
    let mut renamed = unbound.clone();
    for start in 0..renamed.len() - name.len() {
        if &renamed[start..start + name.len()] == name {
            renamed[start..start + name.len()].copy_from_slice(b"total_chargex");
        }
    }
    std::fs::write(folder.join("model.onnx"), renamed).unwrap();
    let rollouts = house.open();
    rollouts.change("churn", &promote(1)).unwrap();
    let refused = rollouts.change("churn", &promote(4)).unwrap_err();
    assert!(matches!(refused, RolloutError::Unfit { .. }), "{refused}");
    let refused = refused.to_string();
    assert!(refused.contains("total_chargex"), "{refused}");
    assert_eq!(champion(&rollouts), "1");
}
