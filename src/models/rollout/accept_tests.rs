//! Versions that are sent, and folders that come and go beside them.

use super::*;
use crate::models::repository::deploy::DeployError;
use crate::models::rollout::accept::Sender;

/// Sends the sample model as a new version.
fn deploy(house: &House, rollouts: &Rollouts, model: &str) -> Result<u64, DeployError> {
    deploy_as(house, rollouts, model, "")
}

/// The same, with something before its manifest.
fn deploy_as(
    house: &House,
    rollouts: &Rollouts,
    model: &str,
    state: &str,
) -> Result<u64, DeployError> {
    let incoming = rollouts.repository.receive(model)?;
    house.fill(incoming.folder());
    let manifest = incoming.folder().join("model.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let text = text.replacen("[model]\n", &format!("[model]\n{state}"), 1);
    std::fs::write(manifest, text).unwrap();
    let sender = Sender {
        model: model.to_owned(),
        actor: "anonymous".to_owned(),
        reason: "better".to_owned(),
        promote: false,
    };
    let deployed = rollouts.repository.deploy(model, incoming, |accepted| {
        let recorded = rollouts.accept(&sender, accepted);
        recorded.map_err(|error| DeployError::NotRecorded {
            name: model.to_owned(),
            problem: error.to_string(),
        })
    });
    Ok(deployed?.number)
}

fn listed(churn: &[u64]) -> RepositoryConfig {
    RepositoryConfig {
        listed: [("churn".to_owned(), churn.to_vec())].into(),
        ..RepositoryConfig::default()
    }
}

fn loaded(rollouts: &Rollouts) -> Vec<u64> {
    let catalog = rollouts.repository.catalog();
    let model = catalog.model("churn").unwrap();
    let ready = model.numbered().filter(|(_, entry)| entry.state.is_ok());
    ready.map(|(number, _)| number).collect()
}

/// Waits until what `release` has asked for is done.
fn released(rollouts: &Rollouts) {
    rollouts.repository.release("churn");
    // Loads are made one after the other, so that this one comes after it.
    rollouts.repository.ensure_loaded("churn", 1).unwrap();
}

#[test]
fn a_model_that_was_deployed_to_keeps_its_champion_when_a_higher_number_comes() {
    let house = House::new();
    let rollouts = house.open();
    assert_eq!(deploy(&house, &rollouts, "churn").unwrap(), 4);
    assert_eq!(deploy(&house, &rollouts, "churn").unwrap(), 5);
    let roles = rollouts.repository.roles("churn").unwrap();
    assert_eq!((roles.champion, roles.revision), (3, 1));
    house.fill(&house.models().join("churn/6"));
    rollouts.repository.load("churn").unwrap();
    assert_eq!(champion(&rollouts), "3");
    drop(rollouts);
    assert_eq!(champion(&house.open()), "3");
    let expected = [
        ("model.promote", "churn/3"),
        ("model.deploy", "churn/4"),
        ("model.deploy", "churn/5"),
    ];
    let expected = expected.map(|(action, subject)| (action.to_owned(), subject.to_owned()));
    assert_eq!(house.rows(), expected);
}

#[test]
fn who_answers_by_number_is_in_the_ledger_when_that_changes() {
    let house = House::new();
    let rollouts = house.open();
    assert!(house.rows().is_empty());
    house.fill(&house.models().join("churn/4"));
    rollouts.repository.load("churn").unwrap();
    rollouts.keep_up();
    rollouts.keep_up();
    let promoted = |version: u64| ("model.promote".to_owned(), format!("churn/{version}"));
    assert_eq!(house.rows(), [promoted(4)]);
    // Nothing is said by it: a higher number answers in its turn, and so does a lower one after a restart
    assert!(State::read(&house.data()).unwrap().roles.is_empty());
    drop(rollouts);
    std::fs::remove_dir_all(house.models().join("churn/4")).unwrap();
    let rollouts = house.open();
    assert_eq!(champion(&rollouts), "3");
    assert_eq!(house.rows(), [promoted(4), promoted(3)]);
    // What somebody has said has a row of its own.
    rollouts.change("churn", &promote(1)).unwrap();
    rollouts.keep_up();
    assert_eq!(house.rows(), [promoted(4), promoted(3), promoted(1)]);
}

#[test]
fn a_first_version_is_in_the_ledger_before_it_is_there_and_answers() {
    let house = House::new();
    let rollouts = house.open();
    let incoming = rollouts.repository.receive("loyalty").unwrap();
    house.fill(incoming.folder());
    let sender = Sender {
        model: "loyalty".to_owned(),
        actor: "key:1".to_owned(),
        reason: "the first".to_owned(),
        promote: false,
    };
    let deployed = rollouts.repository.deploy("loyalty", incoming, |accepted| {
        rollouts.accept(&sender, accepted).unwrap();
        // When the process ends here, the rows are durable, and neither files nor answers are there.
        assert!(!house.models().join("loyalty/1").exists());
        assert!(rollouts.repository.find("loyalty", None).is_err());
        let expected = [
            ("model.deploy", "loyalty/1"),
            ("model.promote", "loyalty/1"),
        ];
        let expected = expected.map(|(action, subject)| (action.to_owned(), subject.to_owned()));
        assert_eq!(house.rows(), expected);
        let kept = State::read(&house.data()).unwrap();
        assert_eq!(
            (kept.roles["loyalty"].champion, kept.numbers["loyalty"]),
            (1, 1)
        );
        Ok(())
    });
    assert_eq!(deployed.unwrap().champion, None);
    let answers = rollouts.repository.find("loyalty", None).unwrap();
    assert_eq!(answers.version, "1");
    let roles = rollouts.repository.roles("loyalty").unwrap();
    assert_eq!((roles.champion, roles.revision), (1, 1));
}

#[test]
fn what_the_ledger_does_not_take_is_not_deployed() {
    let house = House::new();
    let rollouts = house.open();
    rollouts.ledger.close().unwrap();
    let before = rollouts.repository.catalog();
    for model in ["churn", "loyalty"] {
        let refused = deploy(&house, &rollouts, model).unwrap_err();
        assert!(
            matches!(refused, DeployError::NotRecorded { .. }),
            "{refused}"
        );
    }
    assert!(Arc::ptr_eq(&before, &rollouts.repository.catalog()));
    assert!(rollouts.repository.roles("churn").is_none());
    assert!(!house.models().join("churn/4").exists());
    assert!(!house.models().join("loyalty").exists());
}

#[test]
fn a_version_that_was_sent_stays_loaded_although_the_policy_leaves_it_out() {
    let house = House::new();
    let rollouts = house.open_with(listed(&[1]));
    assert_eq!(loaded(&rollouts), [1]);
    assert_eq!(deploy(&house, &rollouts, "churn").unwrap(), 4);
    released(&rollouts);
    assert_eq!(loaded(&rollouts), [1, 4]);
    drop(rollouts);
    let rollouts = house.open_with(listed(&[1]));
    assert_eq!(loaded(&rollouts), [1, 4]);
    // As many as are kept; the next is refused with the setting, and nothing of it stays.
    for number in 5..12 {
        assert_eq!(deploy(&house, &rollouts, "churn").unwrap(), number);
    }
    let refused = deploy(&house, &rollouts, "churn").unwrap_err().to_string();
    let expected = "repository.listed.churn = [1] leaves version 12 out, and 8 candidates are kept";
    assert!(refused.contains(expected), "{refused}");
    assert!(!house.models().join("churn/12").exists());
    // One whose folder is gone is not kept any more, and one that is promoted needs nobody to keep it.
    std::fs::remove_dir_all(house.models().join("churn/6")).unwrap();
    rollouts.repository.load("churn").unwrap();
    assert_eq!(deploy(&house, &rollouts, "churn").unwrap(), 12);
    rollouts.change("churn", &promote(4)).unwrap();
    assert_eq!(deploy(&house, &rollouts, "churn").unwrap(), 13);
    // Of a model without champion nobody can be kept.
    let policy = RepositoryConfig {
        latest: 0,
        ..RepositoryConfig::default()
    };
    drop(rollouts);
    let rollouts = house.open_with(policy);
    let state = "state = \"candidate\"\n";
    let refused = deploy_as(&house, &rollouts, "loyalty", state).unwrap_err();
    let refused = refused.to_string();
    let expected = "repository.latest = 0 leaves version 1 out, and its model has no champion yet";
    assert!(refused.contains(expected), "{refused}");
}

#[test]
fn a_candidate_that_is_asked_for_stays_loaded_although_the_policy_leaves_it_out() {
    let house = House::new();
    let rollouts = house.open_with(listed(&[]));
    rollouts.change("churn", &promote(1)).unwrap();
    let candidate = change(Transition::Candidate { version: 2 });
    rollouts.change("churn", &candidate).unwrap();
    released(&rollouts);
    assert!(loaded(&rollouts).contains(&2));
    let retire = change(Transition::Retire { version: 2 });
    rollouts.change("churn", &retire).unwrap();
    released(&rollouts);
    assert!(!loaded(&rollouts).contains(&2));
}

#[test]
fn a_number_is_never_given_twice_whatever_becomes_of_the_folder_and_the_process() {
    let house = House::new();
    let folder = |number: u64| house.models().join(format!("churn/{number}"));
    let rollouts = house.open();
    assert_eq!(deploy(&house, &rollouts, "churn").unwrap(), 4);
    drop(rollouts);
    // Given that the folder of the highest version goes while no server is there,
    std::fs::remove_dir_all(folder(4)).unwrap();
    let rollouts = house.open();
    assert_eq!(deploy(&house, &rollouts, "churn").unwrap(), 5);
    // or that of one that somebody had copied in,
    house.fill(&folder(9));
    rollouts.repository.load("churn").unwrap();
    rollouts.keep_up();
    drop(rollouts);
    std::fs::remove_dir_all(folder(9)).unwrap();
    // then the next number is another one,
    let rollouts = house.open();
    assert_eq!(deploy(&house, &rollouts, "churn").unwrap(), 10);
    drop(rollouts);
    // and so it is without the file.
    std::fs::remove_dir_all(folder(10)).unwrap();
    std::fs::remove_file(house.data().join("rollout.json")).unwrap();
    assert_eq!(deploy(&house, &house.open(), "churn").unwrap(), 11);
}

#[test]
fn a_transition_that_another_server_made_while_this_one_was_loading_is_in_force() {
    let house = House::new();
    let policy = || RepositoryConfig {
        latest: 1,
        ..RepositoryConfig::default()
    };
    // Given a server that has read state and models while another one was still stopping
    let repository = house.load(policy());
    let stopping = house.open_with(policy());
    stopping.change("churn", &promote(1)).unwrap();
    assert_eq!(deploy(&house, &stopping, "churn").unwrap(), 4);
    std::fs::remove_dir_all(house.models().join("churn/4")).unwrap();
    drop(stopping);
    // When it has the ledger, then it answers as the other one did at last
    let rollouts = house.serve(repository);
    assert_eq!(champion(&rollouts), "1");
    assert_eq!(loaded(&rollouts), [1, 3]);
    assert_eq!(deploy(&house, &rollouts, "churn").unwrap(), 5);
}
