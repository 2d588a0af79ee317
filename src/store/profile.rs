//! The stored features of one entity, as a reader sees them.

use std::sync::Arc;

use crate::features::value::Value;
use crate::features::view::View;

/// A stored value and when it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredValue {
    pub value: Value,
    /// Microseconds since the Unix epoch.
    pub as_of_us: i64,
}

/// Everything stored of one entity in one view: feature names with their values, sorted by name.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// Knows the names that are numbers in `list`.
    view: Option<Arc<View>>,
    list: Vec<(Name, StoredValue)>,
}

/// The name of a stored feature.
#[derive(Clone, Debug)]
enum Name {
    /// That of the view's column.
    Column(u32),
    /// One that the view does not declare, or not any more.
    Other(Box<str>),
}

impl Profile {
    /// A profile with room for `features` of `view`.
    pub(super) fn of(view: &Arc<View>, features: usize) -> Profile {
        Profile {
            view: Some(Arc::clone(view)),
            list: Vec::with_capacity(features),
        }
    }

    /// Appends the feature in a column of the view, whose name comes after those that are there.
    pub(super) fn push_column(&mut self, column: u32, stored: StoredValue) {
        self.list.push((Name::Column(column), stored));
    }

    /// Appends a feature that the view does not have, whose name comes after those that are there.
    pub(super) fn push_other(&mut self, name: &str, stored: StoredValue) {
        self.list.push((Name::Other(name.into()), stored));
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Every feature by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &StoredValue)> {
        self.list
            .iter()
            .map(|(name, stored)| (self.name(name), stored))
    }

    /// The stored value of the feature `name`.
    pub fn get(&self, name: &str) -> Option<&StoredValue> {
        let found = self.find(name).ok()?;
        self.list.get(found).map(|(_, stored)| stored)
    }

    /// Sets a feature, replacing its earlier value.
    pub fn set(&mut self, name: String, value: StoredValue) {
        match self.find(&name) {
            Ok(index) => self.list[index].1 = value,
            Err(index) => self.list.insert(index, (Name::Other(name.into()), value)),
        }
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.list
            .binary_search_by(|(stored, _)| self.name(stored).cmp(name))
    }

    fn name<'a>(&'a self, name: &'a Name) -> &'a str {
        match name {
            Name::Column(column) => column_name(self.view.as_deref(), *column),
            Name::Other(name) => name,
        }
    }
}

/// The name of a column; there is always one.
fn column_name(view: Option<&View>, column: u32) -> &str {
    let feature = view.and_then(|view| view.features().get(column as usize));
    feature.map_or("", |feature| feature.name.as_str())
}

/// Two profiles are equal when they hold the same, however they know the names.
impl PartialEq for Profile {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl FromIterator<(String, StoredValue)> for Profile {
    fn from_iter<I: IntoIterator<Item = (String, StoredValue)>>(features: I) -> Profile {
        let mut profile = Profile::default();
        for (name, stored) in features {
            profile.set(name, stored);
        }
        profile
    }
}
