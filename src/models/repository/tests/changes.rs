//! What changes by itself, and what is sent.

use std::sync::Weak;
use std::time::{Duration, Instant};

use super::*;
use crate::config::VersionPolicy;
use crate::models::bundles::Incoming;
use crate::models::repository::deploy::DeployError;

impl Folder {
    fn open_latest(&self, latest: usize, roles: AllRoles) -> Arc<Repository> {
        let policy = RepositoryConfig {
            versions: VersionPolicy::Latest,
            latest,
            ..RepositoryConfig::default()
        };
        let repository = Repository::open_with(self.dir.path(), &self.views, roles, policy);
        Arc::new(repository)
    }
}

fn numbers(repository: &Repository, is_wanted: impl Fn(&Entry) -> bool) -> Vec<u64> {
    let catalog = repository.catalog();
    let model = catalog.model("churn");
    let numbered = model.into_iter().flat_map(|model| model.numbered());
    let wanted = numbered.filter(|(_, entry)| is_wanted(entry));
    wanted.map(|(number, _)| number).collect()
}

fn loaded(repository: &Repository) -> Vec<u64> {
    numbers(repository, |entry| entry.state.is_ok())
}

fn listed(repository: &Repository) -> Vec<u64> {
    numbers(repository, |_| true)
}

/// The files of the sample model on their way in.
fn received(repository: &Repository) -> Incoming {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/churn/1");
    let incoming = repository.receive("churn").unwrap();
    for file in ["model.onnx", "model.toml", "golden.json"] {
        let mut target = incoming.create_file(file).unwrap();
        let bytes = std::fs::read(sample.join(file)).unwrap();
        std::io::Write::write_all(&mut target, &bytes).unwrap();
    }
    incoming
}

#[test]
fn a_new_folder_is_read_when_it_has_looked_the_same_twice() {
    let folder = Folder::new(&["1"]);
    let repository = folder.open();
    repository.watch_once();
    // A folder that somebody is about to fill
    std::fs::create_dir(folder.version("2")).unwrap();
    repository.watch_once();
    repository.watch_once();
    assert_eq!(listed(&repository), [1]);
    // Files that are still changing
    folder.add("2");
    repository.watch_once();
    folder.change("2");
    repository.watch_once();
    assert_eq!(listed(&repository), [1]);
    // And at rest
    repository.watch_once();
    assert_eq!(loaded(&repository), [1, 2]);
}

#[test]
fn what_was_read_is_not_read_again_until_it_changes() {
    let folder = Folder::new(&["1", "2"]);
    let repository = folder.open();
    let first = repository.find("churn", Some("1")).unwrap();
    let look = || {
        repository.watch_once();
        repository.watch_once();
    };
    look();
    assert!(Arc::ptr_eq(
        &first,
        &repository.find("churn", Some("1")).unwrap()
    ));
    // Touched, with the same bytes
    let file = folder.version("1").join("model.onnx");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, bytes).unwrap();
    look();
    assert!(Arc::ptr_eq(
        &first,
        &repository.find("churn", Some("1")).unwrap()
    ));
    // Another version
    folder.change("1");
    look();
    assert!(!Arc::ptr_eq(
        &first,
        &repository.find("churn", Some("1")).unwrap()
    ));
    // A broken one leaves what was served and is tried once
    folder.break_model("2");
    look();
    let catalog = repository.catalog();
    let entry = catalog.model("churn").unwrap().numbered_as(2).unwrap();
    assert!(entry.state.is_ok() && entry.not_reloaded.is_some());
    look();
    assert!(Arc::ptr_eq(&catalog, &repository.catalog()));
    // One whose folder goes is dropped
    folder.remove("1");
    repository.watch_once();
    assert_eq!(listed(&repository), [2]);
}

#[test]
fn an_unloaded_model_stays_unloaded_whatever_appears() {
    let folder = Folder::new(&["1"]);
    let repository = folder.open();
    repository.unload("churn");
    folder.add("2");
    repository.watch_once();
    repository.watch_once();
    assert!(loaded(&repository).is_empty());
    repository.load("churn").unwrap();
    assert_eq!(loaded(&repository), [1, 2]);
}

#[test]
fn the_newest_and_those_with_a_role_are_loaded() {
    let folder = Folder::new(&["1", "2", "3", "4", "5", "6"]);
    let roles = Roles {
        retired: vec![6],
        revision: 1,
        ..Roles::unsaid(3, vec![2, 1])
    };
    let roles = AllRoles::from([("churn".to_owned(), Arc::new(roles))]);
    let repository = folder.open_latest(2, roles);
    assert_eq!(loaded(&repository), [2, 3, 5]);
    assert_eq!(listed(&repository), [1, 2, 3, 4, 5, 6]);
    // A refresh comes to the same, and what is left out is no problem
    repository.load("churn").unwrap();
    assert_eq!(loaded(&repository), [2, 3, 5]);
    // One that is about to get a role is loaded, and taken out again when it has got none
    repository.ensure_loaded("churn", 4).unwrap();
    assert_eq!(loaded(&repository), [2, 3, 4, 5]);
    repository.settle("churn");
    assert_eq!(loaded(&repository), [2, 3, 5]);
    assert!(repository.ensure_loaded("churn", 9).is_err());
}

#[test]
fn older_versions_are_loaded_when_none_of_the_chosen_answers() {
    let folder = Folder::new(&["1", "2", "3", "4"]);
    folder.break_model("4");
    folder.demote("3");
    let repository = folder.open_latest(1, AllRoles::new());
    // The newest is broken, the one before a candidate
    assert_eq!(repository.find("churn", None).unwrap().version, "2");
    // And of the champions, the one that is left
    let folder = Folder::new(&["1", "2", "3", "4"]);
    folder.break_model("4");
    folder.break_model("3");
    let roles = Roles::unsaid(4, vec![3, 1]);
    let roles = AllRoles::from([("churn".to_owned(), Arc::new(roles))]);
    let repository = folder.open_latest(0, roles);
    assert_eq!(repository.find("churn", None).unwrap().version, "1");
}

#[test]
fn a_deployed_version_takes_the_next_number_that_nobody_has_or_had() {
    let folder = Folder::new(&["1", "4"]);
    let roles = Roles {
        retired: vec![6],
        revision: 1,
        ..Roles::unsaid(4, vec![1])
    };
    let roles = AllRoles::from([("churn".to_owned(), Arc::new(roles))]);
    let repository = folder.open_latest(3, roles);
    let deployed = repository.deploy("churn", received(&repository), || Ok(()));
    let deployed = deployed.unwrap();
    assert_eq!(
        (deployed.number, deployed.champion.as_deref()),
        (7, Some("4"))
    );
    assert_eq!(deployed.version.version, "7");
    assert_eq!(repository.find("churn", None).unwrap().version, "4");
    let found = repository.find("churn", Some("7")).unwrap();
    assert!(Arc::ptr_eq(&found, &deployed.version));
    // It is there, and the watch does not read it again
    repository.watch_once();
    repository.watch_once();
    assert!(Arc::ptr_eq(
        &found,
        &repository.find("churn", Some("7")).unwrap()
    ));
}

#[test]
fn what_is_refused_or_not_recorded_leaves_nothing_behind() {
    let folder = Folder::new(&["1"]);
    let repository = folder.open();
    let before = repository.catalog();
    let incoming = received(&repository);
    std::fs::write(incoming.folder().join("model.onnx"), "junk").unwrap();
    let refused = repository.deploy("churn", incoming, || Ok(()));
    assert!(matches!(refused, Err(DeployError::Refused { .. })));
    let full = || Err("the disk is full".to_owned());
    let refused = repository.deploy("churn", received(&repository), full);
    assert!(matches!(refused, Err(DeployError::NotRecorded { .. })));
    assert!(Arc::ptr_eq(&before, &repository.catalog()));
    let left = std::fs::read_dir(folder.dir.path().join("churn")).unwrap();
    assert_eq!(left.count(), 1);
    assert!(matches!(
        repository.receive("../x"),
        Err(DeployError::Name(_))
    ));
}

#[tokio::test]
async fn what_is_replaced_is_freed_when_nobody_holds_it_any_more() {
    let folder = Folder::new(&["1"]);
    let repository = folder.open_latest(1, AllRoles::new());
    let held = repository.find("churn", None).unwrap();
    let first: Weak<ModelVersion> = Arc::downgrade(&held);
    for number in 2..=4 {
        let incoming = received(&repository);
        let deployed = repository.deploy_aside("churn".to_owned(), incoming, || Ok(()));
        assert_eq!(deployed.await.unwrap().number, number);
        repository.release("churn");
    }
    // Whoever is being answered by it keeps it.
    assert!(first.upgrade().is_some());
    drop(held);
    let begun = Instant::now();
    while first.upgrade().is_some() {
        assert!(begun.elapsed() < Duration::from_secs(30), "not freed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(loaded(&repository), [4]);
}
