//! Which folders hold models and versions.

use std::path::{Component, Path};

use super::BundleId;
use crate::models::catalog::version_number;
use crate::models::version::FILE_NAMES;

/// The longest name that a model can be given, in bytes: file systems take 255.
const MAX_NAME_BYTES: usize = 200;

/// What makes a folder one of a version.
const GRAPH: &str = FILE_NAMES[0];

/// The versions of a model, oldest first, of which there are none when it has no folder.
pub fn versions_of(dir: &Path, name: &str) -> std::io::Result<Vec<BundleId>> {
    let mut bundles = Vec::new();
    if !is_folder_name(name) {
        return Ok(bundles);
    }
    let versions = match subfolders(&dir.join(name)) {
        Ok(versions) => versions,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    for version in versions {
        // Folders not named by a number hold what belongs to the model but is no version.
        let Some(number) = version_number(&version) else {
            continue;
        };
        bundles.push(BundleId {
            name: name.to_owned(),
            number,
        });
    }
    bundles.sort();
    Ok(bundles)
}

/// Graphs under `dir` that are in no version's folder, though whoever put them there may think so: where
/// each is, and where one of a version would be. What cannot be read is passed over.
pub fn strays_in(dir: &Path) -> Vec<String> {
    let mut strays = Vec::new();
    let mut look = |folder: &Path, expected: &str| {
        let graph = folder.join(GRAPH);
        if graph.is_file() {
            strays.push(format!(
                "{}: not served, because it is in no version's folder; expected {expected}",
                graph.display()
            ));
        }
    };
    let numbered = "in a folder of the model that is named by a number without leading zeros";
    look(
        dir,
        "in a folder named by the model, and in that one of a number: NAME/1/model.onnx",
    );
    for model in subfolders(dir).unwrap_or_default() {
        let model_folder = dir.join(&model);
        look(&model_folder, &format!("{numbered}: {model}/1/{GRAPH}"));
        for folder in subfolders(&model_folder).unwrap_or_default() {
            if version_number(&folder).is_none() {
                let digits = folder.trim_start_matches(|c: char| !matches!(c, '1'..='9'));
                let number = version_number(digits).unwrap_or(1);
                let expected = format!("{numbered}, such as {model}/{number}/{GRAPH}");
                look(&model_folder.join(&folder), &expected);
            }
        }
    }
    strays
}

/// Whether a new model can be called that.
pub fn is_model_name(name: &str) -> bool {
    is_folder_name(name) && name.len() <= MAX_NAME_BYTES && !name.chars().any(char::is_control)
}

/// A name that leads to a folder inside the repository, and not to one elsewhere: it comes from
/// callers.
pub fn is_folder_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let is_one_part = matches!(
        (parts.next(), parts.next()),
        (Some(Component::Normal(part)), None) if part == name
    );
    is_one_part && !name.starts_with('.') && !name.contains('\0')
}

/// The names of the folders in `dir`, sorted, without hidden ones.
pub fn subfolders(dir: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        // Follows links, so that a version may be mounted from elsewhere.
        if entry.path().is_dir()
            && let Ok(name) = entry.file_name().into_string()
            && !name.starts_with('.')
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_outside_of_a_versions_folder_is_named_with_where_it_would_be_one() {
        let dir = tempfile::tempdir().unwrap();
        let put = |folder: &str| {
            let folder = dir.path().join(folder);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("model.onnx"), "graph").unwrap();
        };
        for folder in ["churn/1", "churn/.old", ".hidden/1"] {
            put(folder);
        }
        std::fs::create_dir_all(dir.path().join("churn/notebooks")).unwrap();
        assert!(strays_in(dir.path()).is_empty());

        for folder in ["", "churn", "churn/v2", "upsell/007", "upsell/best"] {
            put(folder);
        }
        let found = strays_in(dir.path());
        for (stray, (at, expected)) in found.iter().zip([
            ("/model.onnx", "NAME/1/model.onnx"),
            ("/churn/model.onnx", "churn/1/model.onnx"),
            ("/churn/v2/model.onnx", "churn/2/model.onnx"),
            ("/upsell/007/model.onnx", "upsell/7/model.onnx"),
            ("/upsell/best/model.onnx", "upsell/1/model.onnx"),
        ]) {
            let begins = format!("{}{at}: not served", dir.path().display());
            assert!(
                stray.starts_with(&begins) && stray.ends_with(expected),
                "{stray}"
            );
        }
        assert_eq!(found.len(), 5);
    }

    #[test]
    fn a_name_leads_nowhere_but_into_the_repository() {
        for name in ["churn", "churn 2", "a..b", "Ü", "1"] {
            assert!(is_folder_name(name) && is_model_name(name), "{name}");
        }
        for name in [
            "", ".", "..", "../churn", "a/b", "a/", "/", "/etc", ".hidden", "a\0b", "./churn",
        ] {
            assert!(!is_folder_name(name) && !is_model_name(name), "{name:?}");
        }
        let long = "x".repeat(MAX_NAME_BYTES + 1);
        for name in ["a\nb", "a\x1b[2J", long.as_str()] {
            assert!(!is_model_name(name), "{name:?}");
        }
    }
}
