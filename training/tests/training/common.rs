//! What the tests share: where the data is, and a directory that cleans up after itself.

use std::path::{Path, PathBuf};

use bellwether_training::scores::Scorer;
use bellwether_training::table::Table;

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// A file of the shared data: below `BELLWETHER_SHARED_DIR`, or `../shared` beside the repository.
/// Without it the test has nothing to do and says so.
pub fn shared_file(path: &str) -> Option<PathBuf> {
    let shared = std::env::var_os("BELLWETHER_SHARED_DIR");
    let shared = shared.map_or_else(|| repository().join("../shared"), PathBuf::from);
    let file = shared.join(path);
    if file.is_file() {
        return Some(file);
    }
    println!("skipped: data not found");
    None
}

pub fn telco_file() -> Option<PathBuf> {
    shared_file("data/ibm-telco-churn/Telco-Customer-Churn.csv")
}

/// A file of a committed model.
pub fn committed(model: &str, file: &str) -> PathBuf {
    repository().join("models").join(model).join("1").join(file)
}

/// The committed model, loaded.
pub fn committed_scorer(model: &str) -> Scorer {
    let bytes = std::fs::read(committed(model, "model.onnx")).unwrap();
    Scorer::load(model, &bytes).unwrap()
}

/// A directory that is removed at the end of the test.
pub struct ScratchDirectory(PathBuf);

impl ScratchDirectory {
    pub fn new(name: &str) -> ScratchDirectory {
        let name = format!("bellwether-training-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        ScratchDirectory(directory)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ScratchDirectory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Asserts that a retrained version equals the committed one: the same bytes, or on another kind
/// of processor predictions within 1e-7 on every row of `table`.
pub fn assert_same_version(model: &str, retrained: &Path, table: &Table) {
    let directory = retrained.join(model).join("1");
    let bytes = std::fs::read(directory.join("model.onnx")).unwrap();
    if bytes == std::fs::read(committed(model, "model.onnx")).unwrap() {
        for file in ["model.toml", "golden.json", "report.json", "report.md"] {
            let found = std::fs::read_to_string(directory.join(file)).unwrap();
            let expected = std::fs::read_to_string(committed(model, file)).unwrap();
            assert_eq!(
                found, expected,
                "{file} of '{model}' is not the committed one"
            );
        }
        return;
    }
    let found = Scorer::load(model, &bytes).unwrap().score(table).unwrap();
    let expected = committed_scorer(model).score(table).unwrap();
    for (row, found) in found.probabilities.iter().enumerate() {
        for (found, expected) in found.iter().zip(&expected.probabilities[row]) {
            assert!(
                (found - expected).abs() <= 1e-7,
                "row {row} of '{model}': expected {expected}, found {found}"
            );
        }
    }
}
