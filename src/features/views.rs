//! The folder of feature views.

use std::path::Path;
use std::sync::Arc;

use super::view::{View, ViewError};

/// Everything that is wrong with a folder of views, one line each.
#[derive(Debug)]
pub struct ViewErrors(Vec<ViewError>);

impl std::fmt::Display for ViewErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index > 0 { "\n" } else { "" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ViewErrors {}

/// Every view of `features/*.toml`, sorted by name.
#[derive(Debug, Default, Clone)]
pub struct Views {
    views: Vec<Arc<View>>,
}

impl Views {
    /// Loads every `*.toml` in `dir`.
    ///
    /// # Errors
    /// Every file that is wrong, not only the first; a missing folder; two views of one name
    /// or of one entity.
    pub fn load(dir: &Path) -> Result<Views, ViewErrors> {
        let fail = |file: &Path, problem: String| ViewError {
            file: file.to_owned(),
            problem,
        };
        let entries = std::fs::read_dir(dir).map_err(|error| {
            let problem = format!("cannot read the folder of feature views: {error}");
            ViewErrors(vec![fail(dir, problem)])
        })?;
        let mut files: Vec<_> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "toml")
            })
            .collect();
        files.sort();

        let mut views: Vec<Arc<View>> = Vec::new();
        let mut errors = Vec::new();
        for file in &files {
            let view = match View::load(file) {
                Ok(view) => view,
                Err(error) => {
                    errors.push(error);
                    continue;
                }
            };
            for other in &views {
                if other.name == view.name {
                    errors.push(fail(
                        file,
                        format!("view {} is already declared", view.name),
                    ));
                } else if other.entity == view.entity {
                    errors.push(fail(
                        file,
                        format!(
                            "entity {} already has the view {}; declare its features there",
                            view.entity, other.name
                        ),
                    ));
                }
            }
            views.push(Arc::new(view));
        }
        views.sort_by(|left, right| left.name.cmp(&right.name));
        if errors.is_empty() {
            Ok(Views { views })
        } else {
            Err(ViewErrors(errors))
        }
    }

    /// All views, sorted by name.
    pub fn all(&self) -> &[Arc<View>] {
        &self.views
    }

    /// The view called `name`.
    pub fn get(&self, name: &str) -> Option<&Arc<View>> {
        self.views.iter().find(|view| view.name == name)
    }

    /// The view whose key column is `entity`.
    pub fn of_entity(&self, entity: &str) -> Option<&Arc<View>> {
        self.views.iter().find(|view| view.entity == entity)
    }
}
