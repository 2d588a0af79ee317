//! What changes by itself, and what is sent.

use std::sync::Weak;
use std::time::{Duration, Instant};

use super::*;
use crate::config::VersionPolicy;
use crate::models::bundles::Incoming;
use crate::models::comparison::guardrails::Limits;
use crate::models::metrics;
use crate::models::repository::deploy::{Accepted, DeployError};
use crate::telemetry::exposition::Exposition;

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
    let deployed = repository.deploy("churn", received(&repository), |_| Ok(()));
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
    let refused = repository.deploy("churn", incoming, |_| Ok(()));
    assert!(matches!(refused, Err(DeployError::Refused { .. })));
    let full = |_: &Accepted<'_>| {
        Err(DeployError::NotRecorded {
            name: "churn".to_owned(),
            problem: "the disk is full".to_owned(),
        })
    };
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

#[test]
fn a_number_that_was_taken_while_a_version_was_built_is_left_to_its_owner() {
    let folder = Folder::new(&["1"]);
    let repository = folder.open();
    // Between the record and the rename: the version is not published under a number that is not its own
    let incoming = received(&repository);
    let refused = repository.deploy("churn", incoming, |accepted| {
        folder.add(&accepted.number.to_string());
        Ok(())
    });
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("number 2 meanwhile; try again"),
        "{refused}"
    );
    assert_eq!(listed(&repository), [1]);
    // A stray file is no version, and its name is not taken from it
    std::fs::write(folder.version("3"), "a file").unwrap();
    let deployed = repository.deploy("churn", received(&repository), |_| Ok(()));
    assert_eq!(deployed.unwrap().number, 4);
}

#[test]
fn a_number_whose_folder_is_gone_is_not_given_again() {
    let folder = Folder::new(&["1", "7"]);
    let repository = folder.open();
    folder.remove("7");
    repository.load("churn").unwrap();
    assert_eq!(listed(&repository), [1]);
    let deployed = repository.deploy("churn", received(&repository), |_| Ok(()));
    assert_eq!(deployed.unwrap().number, 8);
    assert_eq!(repository.numbers()["churn"], 8);
    // Nor is one that another process knows of
    repository.remember_numbers(&Numbers::from([("churn".to_owned(), 20)]));
    let deployed = repository.deploy("churn", received(&repository), |_| Ok(()));
    assert_eq!(deployed.unwrap().number, 21);
}

#[test]
fn a_version_that_gets_a_role_while_another_catalog_is_made_stays_loaded() {
    let folder = Folder::new(&["1", "2"]);
    let repository = folder.open();
    let second = repository.find("churn", Some("2")).unwrap();
    // Given versions that were worked out when nobody wanted the second,
    let catalog = repository.catalog();
    let mut versions = versions_of(catalog.model("churn").unwrap());
    let left_out = versions.get_mut(&2).unwrap();
    left_out.state = Err("not loaded".to_owned());
    left_out.left_out = true;
    // when it becomes the champion before they are put in place, then it is.
    repository.set_roles("churn", Roles::unsaid(2, vec![1]));
    repository.swap_in("churn", versions);
    assert!(Arc::ptr_eq(&second, &champion(&repository)));
}

#[test]
fn a_version_that_scores_is_not_replaced_by_files_that_do_not() {
    let folder = Folder::new(&["1"]);
    // Bound by the names of its inputs: files that bind to nothing are no error by themselves.
    std::fs::remove_file(folder.version("1").join("model.toml")).unwrap();
    let repository = folder.open();
    let before = champion(&repository);
    assert!(before.scoring.is_ok());
    let file = folder.version("1").join("model.onnx");
    let mut graph = std::fs::read(&file).unwrap();
    let name = b"total_charges";
    for start in 0..graph.len() - name.len() {
        if &graph[start..start + name.len()] == name {
            graph[start..start + name.len()].copy_from_slice(b"total_chargex");
        }
    }
    std::fs::write(&file, graph).unwrap();
    let problem = repository.load("churn").unwrap_err().to_string();
    assert!(
        problem.contains("its files score no customers"),
        "{problem}"
    );
    assert!(problem.contains("total_chargex"), "{problem}");
    assert!(Arc::ptr_eq(&before, &champion(&repository)));
}

#[test]
fn a_version_that_is_called_back_brings_its_model_back_into_service() {
    let folder = Folder::new(&["1"]);
    let repository = Arc::new(folder.open());
    repository.unload("churn");
    repository.ensure_loaded("churn", 1).unwrap();
    assert_eq!(loaded(&repository), [1]);
    // New folders are looked at again as well
    folder.add("2");
    repository.watch_once();
    repository.watch_once();
    assert_eq!(loaded(&repository), [1, 2]);
}

#[test]
fn what_is_gone_has_no_metrics_and_counts_on_when_it_is_back() {
    let folder = Folder::new(&["1", "2", "3"]);
    folder.break_model("3");
    let roles = AllRoles::from([("churn".to_owned(), Arc::new(Roles::unsaid(2, vec![1])))]);
    let repository = folder.open_latest(1, roles);
    let text = || {
        let mut exposition = Exposition::default();
        let limits = Limits::default();
        metrics::write(&repository.catalog(), &limits, &mut exposition);
        exposition.finish()
    };
    let answered =
        "bellwether_model_requests_total{model=\"churn\",version=\"2\",role=\"champion\"} 1";
    let second = champion(&repository);
    second.statistics.scores.answered(Duration::from_millis(1));
    assert!(text().contains(answered), "{}", text());
    assert!(text().contains("bellwether_model_ready{model=\"churn\",version=\"1\"} 1\n"));
    // One that is refused is to be seen, for somebody has to do something about it
    assert!(text().contains("bellwether_model_ready{model=\"churn\",version=\"3\"} 0\n"));
    // Out of memory
    repository.set_roles("churn", Roles::unsaid(1, Vec::new()));
    repository.settle("churn");
    assert!(!text().contains("version=\"2\""), "{}", text());
    assert!(text().contains("version=\"1\""));
    // Back again
    repository.set_roles("churn", Roles::unsaid(2, vec![1]));
    repository.settle("churn");
    assert!(text().contains(answered), "{}", text());
    // The folder gone
    folder.remove("3");
    repository.watch_once();
    assert!(!text().contains("version=\"3\""), "{}", text());
    folder.remove("1");
    folder.remove("2");
    repository.unload("churn");
    let _ = repository.load("churn");
    assert_eq!(text(), "");
}

#[tokio::test]
async fn what_is_replaced_is_freed_when_nobody_holds_it_any_more() {
    let folder = Folder::new(&["1"]);
    let repository = folder.open_latest(1, AllRoles::new());
    let held = repository.find("churn", None).unwrap();
    let first: Weak<ModelVersion> = Arc::downgrade(&held);
    for number in 2..=4 {
        let incoming = received(&repository);
        let deployed = repository.deploy_aside("churn".to_owned(), incoming, |_| Ok(()));
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
