//! The folder of feature views, and how they hang together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::view::mistake::write_lines;
use super::view::{Mistake, View, ViewError};

/// Everything that is wrong with a folder of views, by file and line.
#[derive(Debug)]
pub struct ViewErrors(pub Vec<ViewError>);

impl std::fmt::Display for ViewErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write_lines(f, &self.0)
    }
}

impl std::error::Error for ViewErrors {}

/// Every view of `features/*.toml`, sorted by name.
#[derive(Debug, Default, Clone)]
pub struct Views {
    views: Vec<Arc<View>>,
}

/// A view that is read and not yet bound to the others.
struct Loaded {
    file: PathBuf,
    view: View,
}

impl Views {
    /// Loads every `*.toml` in `dir` and binds relations.
    ///
    /// # Errors
    /// Every mistake of every file, not only the first; a missing folder; two views of one name or of
    /// one entity; relations that fit no view or run in a circle.
    pub fn load(dir: &Path) -> Result<Views, ViewErrors> {
        let entries = std::fs::read_dir(dir).map_err(|error| {
            let problem = format!(
                "cannot read the folder of feature views: {error}; --features names it, and it may be empty"
            );
            let mistake = Mistake::of_file(problem);
            ViewErrors(vec![ViewError {
                file: dir.to_owned(),
                mistake,
            }])
        })?;
        let mut files: Vec<_> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "toml")
            })
            .collect();
        files.sort();

        let mut loaded: Vec<Loaded> = Vec::new();
        let mut errors = Vec::new();
        for file in files {
            match View::load(&file) {
                Ok(view) => {
                    let clash = loaded.iter().find_map(|other| clash(&other.view, &view));
                    if let Some(problem) = clash {
                        errors.push(ViewError {
                            file,
                            mistake: Mistake::of_file(problem),
                        });
                    } else {
                        loaded.push(Loaded { file, view });
                    }
                }
                Err(mut found) => errors.append(&mut found),
            }
        }
        let views = link(loaded, &mut errors);
        if !errors.is_empty() {
            errors.sort_by(|left, right| {
                let place = |error: &ViewError| (error.file.clone(), error.mistake.line);
                place(left).cmp(&place(right))
            });
            return Err(ViewErrors(errors));
        }
        Ok(Views {
            views: views.into_values().collect(),
        })
    }

    /// All views, sorted by name.
    pub fn all(&self) -> &[Arc<View>] {
        &self.views
    }

    /// The view called `name`.
    pub fn get(&self, name: &str) -> Option<&Arc<View>> {
        self.views.iter().find(|view| view.name == name)
    }

    /// The view whose only key column is `entity`.
    pub fn of_entity(&self, entity: &str) -> Option<&Arc<View>> {
        self.views
            .iter()
            .find(|view| view.key_columns() == [entity])
    }
}

/// Why there cannot be both views.
fn clash(earlier: &View, later: &View) -> Option<String> {
    if earlier.name == later.name {
        return Some(format!("view {} is already declared", later.name));
    }
    (earlier.key_columns() == later.key_columns()).then(|| {
        format!(
            "entity {} already has the view {}; declare its features there",
            later.entity, earlier.name
        )
    })
}

/// Binds each view to those that its relations name, which are bound before it.
fn link(loaded: Vec<Loaded>, errors: &mut Vec<ViewError>) -> BTreeMap<String, Arc<View>> {
    let names: Vec<String> = loaded.iter().map(|one| one.view.name.clone()).collect();
    // A view that has mistakes of its own is not there, and cannot be told from one that is not.
    let some_are_missing = !errors.is_empty();
    let mut linked: BTreeMap<String, Arc<View>> = BTreeMap::new();
    let mut waiting = loaded;
    loop {
        let (ready, still): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|one| {
            let mut targets = one.view.relations().iter().map(|relation| &relation.view);
            targets.all(|target| linked.contains_key(target) || !names.contains(target))
        });
        waiting = still;
        if ready.is_empty() {
            break;
        }
        for Loaded { file, mut view } in ready {
            let bound = view.link(
                |name| linked.get(name).cloned(),
                names.iter().map(String::as_str),
            );
            for mistake in bound.err().into_iter().flatten() {
                let is_absence = mistake.problem.starts_with("no view ");
                if !(some_are_missing && is_absence) {
                    let file = file.clone();
                    errors.push(ViewError { file, mistake });
                }
            }
            // Also with mistakes, so that those of the views that need it are found.
            linked.insert(view.name.clone(), Arc::new(view));
        }
    }
    // What is left runs in a circle, or leads into one.
    for Loaded { file, view } in waiting {
        let stuck = |name: &&String| names.contains(*name) && !linked.contains_key(*name);
        let relation = view
            .relations()
            .iter()
            .find(|relation| stuck(&&relation.view));
        let Some(relation) = relation else { continue };
        let mistake = Mistake {
            line: Some(relation.line),
            place: format!("relation {}", relation.name),
            problem: format!(
                "views read each other in a circle: {} reads {}, which reads its way back",
                view.name, relation.view
            ),
            suggestion: Some(
                "keep one direction: the view whose scores need the other's features".to_owned(),
            ),
        };
        errors.push(ViewError { file, mistake });
    }
    linked
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUSTOMER: &str = r#"
[view]
name = "customer"
entity = "customer_id"
[[relation]]
name = "site"
view = "site"
key = "site_id"
[[feature]]
name = "site_id"
type = "string"
[[feature]]
name = "site_risk"
type = "float64"
from = "site.risk"
"#;
    const SITE: &str = r#"
[view]
name = "site"
entity = "site_id"
[[feature]]
name = "risk"
type = "float64"
[[feature]]
name = "doubled"
type = "float64"
expression = "risk * 2"
"#;

    fn load(files: &[(&str, &str)]) -> Result<Views, String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Views::load(folder.path()).map_err(|errors| {
            let text = errors.to_string();
            text.replace(&format!("{}/", folder.path().display()), "")
        })
    }

    #[test]
    fn a_related_feature_is_bound_to_the_column_of_the_other_view() {
        let views = load(&[("a.toml", CUSTOMER), ("b.toml", SITE)]).unwrap();
        let customer = views.get("customer").unwrap();
        let site = views.get("site").unwrap();
        let target = customer.relations()[0].target.as_ref().unwrap();
        assert!(Arc::ptr_eq(target, site));
        assert_eq!(Some(customer.related()[0].column), site.index_of("risk"));
        assert_eq!(views.of_entity("site_id").unwrap().name, "site");
    }

    #[test]
    fn another_definition_of_a_related_view_is_another_digest() {
        let digest = |site: &str| {
            let views = load(&[("a.toml", CUSTOMER), ("b.toml", site)]).unwrap();
            views.get("customer").unwrap().digest
        };
        assert_eq!(digest(SITE), digest(SITE));
        assert_ne!(digest(SITE), digest(&SITE.replace("risk * 2", "risk * 3")));
    }

    #[test]
    fn what_does_not_fit_another_view_is_named_with_file_and_line() {
        let circle = format!(
            "{SITE}[[feature]]\nname = \"customer_id\"\ntype = \"string\"\n\
             [[relation]]\nname = \"owner\"\nview = \"customer\"\nkey = \"customer_id\"\n"
        );
        let composite = SITE.replace("\"site_id\"", "[\"site_id\", \"region\"]");
        for (customer, site, message) in [
            (
                CUSTOMER.replace("site.risk", "site.rusk"),
                SITE.to_owned(),
                "a.toml:15: feature site_risk: from \"site.rusk\": no feature rusk in view site; did \
                 you mean risk?",
            ),
            (
                CUSTOMER.replace("\"float64\"", "\"int64\""),
                SITE.to_owned(),
                "a.toml:15: feature site_risk: from \"site.risk\": the type is float64 in view site, \
                 declared here as int64; write type = \"float64\"",
            ),
            (
                CUSTOMER.replace("view = \"site\"", "view = \"sites\""),
                SITE.to_owned(),
                "a.toml:7: relation site: no view sites; did you mean site?",
            ),
            (
                CUSTOMER.to_owned(),
                composite,
                "a.toml:7: relation site: key: 1 given, view site has 2: site_id, region",
            ),
            (
                CUSTOMER.to_owned(),
                circle,
                "a.toml:7: relation site: views read each other in a circle: customer reads site",
            ),
            (
                CUSTOMER.to_owned(),
                SITE.replace("name = \"site\"", "name = \"customer\""),
                "b.toml: view customer is already declared",
            ),
            (
                CUSTOMER.to_owned(),
                SITE.replace("site_id", "customer_id"),
                "b.toml: entity customer_id already has the view customer",
            ),
        ] {
            let found = load(&[("a.toml", &customer), ("b.toml", &site)]).unwrap_err();
            assert!(
                found.contains(message),
                "expected {message}\nfound    {found}"
            );
        }
    }

    #[test]
    fn a_mistake_in_one_view_is_not_blamed_on_those_that_need_it() {
        let site = SITE.replace("risk * 2", "rusk * 2");
        let found = load(&[("a.toml", CUSTOMER), ("b.toml", &site)]).unwrap_err();
        assert_eq!(
            found,
            "b.toml:11: feature doubled: expression \"rusk * 2\": no feature rusk; did you mean risk?"
        );
    }

    #[test]
    fn only_what_an_entity_has_itself_can_be_read_from_it() {
        let cell = "[view]\nname = \"cell\"\nentity = \"cell_id\"\n[[feature]]\nname = \"load\"\n\
                    type = \"float64\"\n";
        let site = format!(
            "{SITE}[[relation]]\nname = \"cell\"\nview = \"cell\"\nkey = \"cell_id\"\n[[feature]]\n\
             name = \"cell_id\"\ntype = \"string\"\n[[feature]]\nname = \"cell_load\"\n\
             type = \"float64\"\nfrom = \"cell.load\"\n"
        );
        let views = [("b.toml", site.as_str()), ("c.toml", cell)];
        let chained = CUSTOMER.replace("site.risk", "site.cell_load");
        let found = load(&[&[("a.toml", chained.as_str())], views.as_slice()].concat());
        let found = found.unwrap_err();
        assert!(found.contains("comes from yet another entity"), "{found}");
        assert!(load(&[&[("a.toml", CUSTOMER)], views.as_slice()].concat()).is_ok());
    }
}
