mod changes;

use std::path::PathBuf;

use super::*;
use crate::models::describe;

/// A repository of the sample model `churn`, to be changed by a test.
struct Folder {
    dir: tempfile::TempDir,
    views: Views,
}

impl Folder {
    fn new(versions: &[&str]) -> Folder {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = Folder {
            dir: tempfile::tempdir().unwrap(),
            views: Views::load(&root.join("features")).unwrap(),
        };
        for version in versions {
            folder.add(version);
        }
        folder
    }

    fn open(&self) -> Repository {
        Repository::open(self.dir.path(), &self.views)
    }

    fn version(&self, version: &str) -> PathBuf {
        self.dir.path().join("churn").join(version)
    }

    fn add(&self, version: &str) {
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/churn/1");
        let folder = self.version(version);
        std::fs::create_dir_all(&folder).unwrap();
        for file in ["model.onnx", "model.toml"] {
            std::fs::copy(sample.join(file), folder.join(file)).unwrap();
        }
    }

    fn remove(&self, version: &str) {
        std::fs::remove_dir_all(self.version(version)).unwrap();
    }

    /// Another version of the same model, by a comment.
    fn change(&self, version: &str) {
        let file = self.version(version).join("model.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(file, format!("# changed\n{text}")).unwrap();
    }

    /// Makes the version a candidate.
    fn demote(&self, version: &str) {
        let file = self.version(version).join("model.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let text = text.replacen("[model]\n", "[model]\nstate = \"candidate\"\n", 1);
        std::fs::write(file, text).unwrap();
    }

    fn break_model(&self, version: &str) {
        let file = self.version(version).join("model.onnx");
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
    }
}

/// Version, state and whether there is a reason, of every folder.
fn index(repository: &Repository) -> Vec<(String, &'static str, bool)> {
    let entries = describe::index(repository, false).into_iter();
    entries
        .map(|entry| (entry.version, entry.state, !entry.reason.is_empty()))
        .collect()
}

fn listed(version: &str, state: &'static str, has_reason: bool) -> (String, &'static str, bool) {
    (version.to_owned(), state, has_reason)
}

fn champion(repository: &Repository) -> Arc<ModelVersion> {
    repository.find("churn", None).unwrap()
}

#[test]
fn a_version_that_is_new_answers_and_one_that_has_not_changed_is_kept() {
    let folder = Folder::new(&["1"]);
    let repository = folder.open();
    let first = champion(&repository);
    folder.add("2");
    assert_eq!(
        champion(&repository).version,
        "1",
        "nothing is loaded unasked"
    );
    repository.load("churn").unwrap();
    assert_eq!(champion(&repository).version, "2");
    let kept = repository.find("churn", Some("1")).unwrap();
    assert!(Arc::ptr_eq(&first, &kept));
}

#[test]
fn a_version_whose_files_have_changed_is_loaded_again() {
    let folder = Folder::new(&["1"]);
    let repository = folder.open();
    let before = champion(&repository);
    folder.change("1");
    repository.load("churn").unwrap();
    let after = champion(&repository);
    assert_ne!(before.digest, after.digest);
    assert!(
        Arc::ptr_eq(&before.statistics, &after.statistics),
        "what is counted is the version, not one load of it"
    );
}

#[test]
fn a_load_that_fails_leaves_the_old_version_serving_and_says_why() {
    let folder = Folder::new(&["1"]);
    let repository = folder.open();
    let before = champion(&repository);
    folder.break_model("1");
    let problem = repository.load("churn").unwrap_err().to_string();
    assert!(problem.contains("model churn: version 1"), "{problem}");
    assert!(problem.contains("model.onnx"), "{problem}");
    assert!(Arc::ptr_eq(&before, &champion(&repository)));
    assert_eq!(index(&repository), [listed("1", "READY", true)]);

    // Put right again, and nothing is left of it.
    folder.add("1");
    repository.load("churn").unwrap();
    assert_eq!(index(&repository), [listed("1", "READY", false)]);
}

#[test]
fn a_new_version_that_fails_is_listed_and_the_others_answer() {
    let folder = Folder::new(&["1"]);
    let repository = folder.open();
    folder.add("2");
    folder.break_model("2");
    let problem = repository.load("churn").unwrap_err().to_string();
    assert!(problem.contains("version 2"), "{problem}");
    assert_eq!(champion(&repository).version, "1");
    assert_eq!(
        index(&repository),
        [
            listed("1", "READY", false),
            listed("2", "UNAVAILABLE", true)
        ]
    );
}

#[test]
fn a_candidate_answers_only_when_it_is_named() {
    let folder = Folder::new(&["1", "2"]);
    folder.demote("2");
    let repository = folder.open();
    assert_eq!(champion(&repository).version, "1");
    assert_eq!(repository.catalog().champions().len(), 1);
    let candidate = repository.find("churn", Some("2")).unwrap();
    assert_eq!(candidate.version, "2");
    assert_eq!(
        index(&repository),
        [listed("1", "READY", false), listed("2", "READY", false)]
    );

    // Promoted by taking the line out, and by nothing else.
    repository.load("churn").unwrap();
    assert_eq!(champion(&repository).version, "1");
    folder.add("2");
    repository.load("churn").unwrap();
    assert_eq!(champion(&repository).version, "2");
}

#[test]
fn with_candidates_alone_there_is_no_champion_and_the_reason_says_what_to_do() {
    let folder = Folder::new(&["1"]);
    folder.demote("1");
    let repository = folder.open();
    let problem = repository.find("churn", None).unwrap_err();
    assert!(matches!(problem, FindError::NotReady { .. }));
    let problem = problem.to_string();
    assert!(problem.contains("version 1 is a candidate"), "{problem}");
    assert!(
        problem.contains("bellwether model promote churn 1"),
        "{problem}"
    );
    assert!(repository.catalog().champions().is_empty());
    repository.find("churn", Some("1")).unwrap();
}

#[test]
fn a_champion_whose_folder_is_gone_is_not_replaced_by_a_candidate() {
    let folder = Folder::new(&["1", "2"]);
    folder.demote("2");
    let repository = folder.open();
    folder.remove("1");
    let problem = repository.load("churn").unwrap_err().to_string();
    let expected = "version 1 is served as it was before: its folder is gone";
    assert!(problem.contains(expected), "{problem}");
    assert_eq!(champion(&repository).version, "1");
}

#[test]
fn a_label_that_cannot_be_trusted_is_refused() {
    let folder = Folder::new(&["1"]);
    let file = folder.version("1").join("model.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        text.replace("maturity = \"30d\"", "maturity = \"7d\""),
    )
    .unwrap();
    let problem = folder.open().find("churn", None).unwrap_err().to_string();
    let expected = "model.toml: [label] maturity = 7d is shorter than window = 30d";
    assert!(problem.contains(expected), "{problem}");
}

#[test]
fn a_version_whose_folder_is_gone_is_dropped_unless_nothing_else_answers() {
    let folder = Folder::new(&["1", "2"]);
    let repository = folder.open();
    folder.remove("2");
    repository.load("churn").unwrap();
    assert_eq!(index(&repository), [listed("1", "READY", false)]);

    folder.add("3");
    folder.break_model("3");
    folder.remove("1");
    repository.load("churn").unwrap_err();
    assert_eq!(champion(&repository).version, "1");
    assert_eq!(
        index(&repository),
        [listed("1", "READY", true), listed("3", "UNAVAILABLE", true)]
    );

    folder.remove("3");
    repository.load("churn").unwrap_err();
    assert_eq!(champion(&repository).version, "1");
}

#[test]
fn an_unloaded_model_is_listed_not_found_and_freed_by_its_last_request() {
    let folder = Folder::new(&["1"]);
    let repository = folder.open();
    let in_flight = champion(&repository);
    repository.unload("churn");
    assert_eq!(index(&repository), [listed("1", "UNAVAILABLE", true)]);
    let problem = repository.find("churn", None).unwrap_err();
    assert_eq!(
        problem.to_string(),
        "model churn has no version that is ready: version 1 is unavailable: unloaded"
    );
    assert!(matches!(problem, FindError::NotReady { .. }));
    assert_eq!(
        Arc::strong_count(&in_flight),
        1,
        "only the request holds it"
    );

    repository.load("churn").unwrap();
    assert_eq!(champion(&repository).version, "1");
    repository.unload("no such model");
}

#[test]
fn a_model_that_was_unloaded_and_whose_folder_is_gone_is_no_longer_listed() {
    let folder = Folder::new(&["1"]);
    let repository = folder.open();
    folder.remove("1");
    repository.unload("churn");
    let problem = repository.load("churn").unwrap_err();
    assert!(matches!(problem, ChangeError::UnknownModel { .. }));
    assert_eq!(index(&repository), []);
}

#[test]
fn what_is_not_there_is_told_apart() {
    let folder = Folder::new(&["1", "12"]);
    folder.break_model("12");
    let repository = folder.open();
    let find = |name, version| repository.find(name, version).unwrap_err();
    let unknown_model = find("chrun", None);
    assert!(matches!(unknown_model, FindError::UnknownModel { .. }));
    assert_eq!(
        unknown_model.to_string(),
        "no model \"chrun\"; the models are: churn"
    );
    for version in ["7", "first", "01", "-1", "", "18446744073709551616"] {
        let problem = find("churn", Some(version));
        assert!(matches!(problem, FindError::UnknownVersion { .. }));
        assert_eq!(
            problem.to_string(),
            format!("model churn has no version {version:?}; it has 1, 12")
        );
    }
    let refused = find("churn", Some("12"));
    assert!(matches!(refused, FindError::NotReady { .. }));
    assert!(
        refused
            .to_string()
            .starts_with("version 12 is unavailable: model.onnx: ")
    );
    assert_eq!(champion(&repository).version, "1");
}

#[test]
fn a_request_cannot_load_from_elsewhere() {
    let folder = Folder::new(&["1"]);
    let inside = folder.dir.path().join("churn");
    let repository = Repository::open(&inside, &folder.views);
    for name in ["../churn", "..", ".", "/", "", "nowhere"] {
        let problem = repository.load(name).unwrap_err();
        assert!(
            matches!(problem, ChangeError::UnknownModel { .. }),
            "{name}"
        );
    }
    assert_eq!(index(&repository), []);
}

#[test]
fn whoever_reads_during_changes_always_finds_a_version() {
    let folder = Folder::new(&["1"]);
    let repository = folder.open();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut found = 0_u64;
            // Once at least, however late it begins.
            while found == 0 || !done.load(std::sync::atomic::Ordering::Relaxed) {
                repository.find("churn", None).unwrap();
                repository.find("churn", Some("1")).unwrap();
                found += 1;
            }
            found
        });
        for round in 0..10 {
            folder.change("1");
            if round % 2 == 0 {
                folder.add("2");
            } else {
                folder.remove("2");
            }
            repository.load("churn").unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
}

#[test]
fn the_configuration_leaves_the_rows_out_of_dims() {
    let folder = Folder::new(&["1"]);
    let repository = folder.open();
    let config = describe::config(&repository, "churn", None, 500).unwrap();
    assert_eq!(config.max_batch_size, 500);
    assert!(config.input.iter().all(|input| input.dims == [1]));
    let probabilities = config
        .output
        .iter()
        .find(|output| output.name == "probabilities");
    assert_eq!(probabilities.unwrap().dims, [2]);
    let contract = config.input.iter().find(|input| input.name == "contract");
    assert_eq!(contract.unwrap().data_type, "TYPE_STRING");
}
