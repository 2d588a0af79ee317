//! Which column of a file is which feature.
//!
//! Columns are matched by name, ignoring case, underscores and spaces, unless one is named for the
//! feature. A table to be scored has columns that no model reads: they are left unread, and listed. The
//! reverse is an error: a stored feature that a model reads and that has no column in the file is not
//! quietly taken to be missing for everyone. Who wants that says so (`--without`).

use serde::{Deserialize, Serialize};

use crate::batch::push::plain_name;
use crate::features::value::shorten;
use crate::features::view::{Role, View, suggestion};

/// What the caller says of columns.
#[derive(Clone, Debug, Default)]
pub struct ColumnOptions {
    /// A feature or key column, and the column of the file that holds it.
    pub named: Vec<(String, String)>,
    /// Features that are missing in every row.
    pub without: Vec<String>,
}

/// A column of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    pub index: usize,
    pub name: String,
}

/// What is read of a file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Binding {
    /// The columns of the key, in the order of the view's key columns.
    pub keys: Vec<Column>,
    /// The feature (a column of the view), and its column in the file.
    pub features: Vec<(usize, Column)>,
    /// Columns that nothing is read of.
    pub unread: Vec<String>,
}

impl ColumnOptions {
    /// Checks that what is named is there to be named.
    ///
    /// # Errors
    /// A name that is no feature or key of the view, is derived, or is named twice.
    pub fn check(&self, view: &View) -> Result<(), String> {
        let known = || {
            let features = view.features().iter().map(|feature| feature.name.as_str());
            features.chain(view.key_columns().iter().map(String::as_str))
        };
        let named = self.named.iter().map(|(feature, _)| ("--column", feature));
        let all = named.chain(self.without.iter().map(|feature| ("--without", feature)));
        let mut seen: Vec<&String> = Vec::new();
        for (option, name) in all {
            if !known().any(|known| known == name) {
                let like = suggestion(name, known());
                let (name, view) = (shorten(name, 64), &view.name);
                return Err(format!(
                    "{option} {name}: no such feature in view {view}{like}"
                ));
            }
            let column = view.index_of(name);
            if column.is_some_and(|column| view.features()[column].role == Role::Derived) {
                return Err(format!(
                    "{option} {name}: it is a derived feature, computed from others; name those"
                ));
            }
            if column.is_none() && option == "--without" {
                return Err(format!("--without {name}: every row needs its key"));
            }
            if seen.contains(&name) {
                return Err(format!("{option} {name}: it is named twice"));
            }
            seen.push(name);
        }
        Ok(())
    }
}

/// Finds the columns of the key and of the features marked in `needed` among `names`.
///
/// # Errors
/// A key or needed feature without a column, or with two.
pub fn bind(
    names: &[String],
    view: &View,
    needed: &[bool],
    options: &ColumnOptions,
) -> Result<Binding, String> {
    let find = |feature: &str| -> Result<Option<Column>, String> {
        let named = options.named.iter().find(|(name, _)| name == feature);
        let column = |index: usize| Column {
            index,
            name: names[index].clone(),
        };
        if let Some((_, wanted)) = named {
            let index = names.iter().position(|name| name == wanted);
            let index = index.ok_or_else(|| {
                let like = suggestion(wanted, names.iter().map(String::as_str));
                format!("--column {feature}={wanted}: there is no column {wanted:?}{like}")
            })?;
            return Ok(Some(column(index)));
        }
        let exactly = names.iter().filter(|name| *name == feature).count();
        if exactly > 1 {
            return Err(format!(
                "{exactly} columns are called {feature}; give them different names"
            ));
        }
        // The name itself goes before other spellings of it.
        if let Some(index) = names.iter().position(|name| name == feature) {
            return Ok(Some(column(index)));
        }
        let plain = plain_name(feature);
        let alike: Vec<usize> = (0..names.len())
            .filter(|index| plain_name(&names[*index]) == plain)
            .collect();
        match alike.as_slice() {
            [] => Ok(None),
            [index] => Ok(Some(column(*index))),
            [first, second, ..] => Err(format!(
                "columns {:?} and {:?} both look like {feature}; say which with --column {feature}=COLUMN",
                names[*first], names[*second]
            )),
        }
    };
    let mut keys = Vec::new();
    for part in view.key_columns() {
        let column = find(part)?;
        keys.push(column.ok_or_else(|| {
            let like = suggestion(part, names.iter().map(String::as_str));
            format!("no key column {part}{like}; say which it is with --column {part}=COLUMN")
        })?);
    }
    let mut features = Vec::new();
    let mut missing = Vec::new();
    let given = &view.features()[..view.derived_columns().start];
    for (index, feature) in given.iter().enumerate().filter(|(index, _)| needed[*index]) {
        if options.without.contains(&feature.name) {
            continue;
        }
        match (find(&feature.name)?, feature.role) {
            (Some(column), _) => features.push((index, column)),
            // Without events a window is empty; the time of a request is that of the job.
            (None, Role::Window | Role::Request) => {}
            (None, _) => missing.push(feature.name.as_str()),
        }
    }
    if let [first, ..] = missing.as_slice() {
        let all = missing.join(", ");
        return Err(format!(
            "no column for {all}, which the models read; say --column {first}=COLUMN for each, or \
             --without {first} when its default is meant for every row"
        ));
    }
    let is_read = |index: usize| {
        let features = features.iter().map(|(_, column)| column);
        keys.iter()
            .chain(features)
            .any(|column| column.index == index)
    };
    let unread = (0..names.len()).filter(|index| !is_read(*index));
    let unread = unread.map(|index| names[index].clone()).collect();
    Ok(Binding {
        keys,
        features,
        unread,
    })
}

impl Binding {
    /// The columns that are read: those of the key, then those of the features.
    pub fn columns(&self) -> impl Iterator<Item = &Column> {
        let features = self.features.iter().map(|(_, column)| column);
        self.keys.iter().chain(features)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIEW: &str = r#"
[view]
name = "customer"
entity = "customer_id"
[[feature]]
name = "tenure"
type = "int64"
[[feature]]
name = "total"
type = "float64"
[[feature]]
name = "tickets"
type = "int64"
aggregate = { event = "ticket", function = "count", window = "30d" }
[[feature]]
name = "doubled"
type = "int64"
expression = "tenure * 2"
"#;

    fn try_bind(
        names: &[&str],
        named: &[(&str, &str)],
        without: &[&str],
    ) -> Result<Binding, String> {
        let view = View::parse(VIEW).unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let named = named
            .iter()
            .map(|(f, c)| ((*f).to_owned(), (*c).to_owned()));
        let options = ColumnOptions {
            named: named.collect(),
            without: without.iter().map(|name| (*name).to_owned()).collect(),
        };
        options.check(&view)?;
        bind(&names, &view, &[true; 4], &options)
    }

    #[test]
    fn columns_are_found_by_any_spelling_or_by_being_named() {
        let binding = try_bind(
            &["x", "CustomerID", "Tenure", "sum"],
            &[("total", "sum")],
            &[],
        );
        let binding = binding.unwrap();
        let places: Vec<usize> = binding.columns().map(|column| column.index).collect();
        assert_eq!(places, [1, 2, 3]);
        assert_eq!(binding.unread, ["x"]);
        let binding = try_bind(&["customer_id", "tenure", "tickets"], &[], &["total"]).unwrap();
        assert_eq!(binding.features.len(), 2);
    }

    #[test]
    fn what_cannot_be_bound_is_said_with_what_to_do() {
        for (names, named, without, expected) in [
            (
                vec!["tenure", "total"],
                vec![],
                vec![],
                "no key column customer_id",
            ),
            (
                vec!["customer_id", "tenure"],
                vec![],
                vec![],
                "no column for total",
            ),
            (
                vec!["customer_id", "tenure", "Total", "TOTAL"],
                vec![],
                vec![],
                "both look like total",
            ),
            (
                vec!["customer_id", "tenure"],
                vec![("total", "summ")],
                vec![],
                "there is no column \"summ\"",
            ),
            (vec![], vec![("totals", "x")], vec![], "no such feature"),
            (vec![], vec![("doubled", "x")], vec![], "derived feature"),
            (
                vec![],
                vec![],
                vec!["customer_id"],
                "every row needs its key",
            ),
        ] {
            let problem = try_bind(&names, &named, &without).unwrap_err();
            assert!(problem.contains(expected), "{problem}");
        }
    }
}
