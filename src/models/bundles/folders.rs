//! Which folders hold models and versions.

use std::path::{Component, Path};

use super::BundleId;
use crate::models::catalog::version_number;

/// The longest name that a model can be given, in bytes: file systems take 255.
const MAX_NAME_BYTES: usize = 200;

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
            tracing::debug!(
                model = name,
                folder = version,
                "not a version: its name is no number"
            );
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
