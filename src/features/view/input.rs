//! Values from outside: to be stored, to replace what is known, or of a request's context.

use serde_json::Value as Json;

use super::mistake::{ValueError, suggestion};
use super::{Holds, Role, View, shorten};
use crate::features::value::Value;

impl View {
    /// Reads a JSON value to be stored for the feature `name` and checks type, range and allowed
    /// values. Returns the column, the value, and whether the value is an unknown category.
    ///
    /// # Errors
    /// The feature's name with: no such feature, not stored, wrong type, out of range, or refused
    /// as unknown.
    pub fn read_value(&self, name: &str, json: &Json) -> Result<(usize, Value, bool), ValueError> {
        let column = self.stored_index(name)?;
        self.read_column(column, json)
    }

    /// Reads a JSON value that replaces the one that the server knows, for one request: of any
    /// feature but a derived one.
    ///
    /// # Errors
    /// As [`View::read_value`].
    pub fn read_override(
        &self,
        name: &str,
        json: &Json,
    ) -> Result<(usize, Value, bool), ValueError> {
        self.read_column(self.override_index(name)?, json)
    }

    /// The column of the feature `name`, which may be any but a derived one.
    ///
    /// # Errors
    /// When there is no such feature, or it is derived.
    pub fn override_index(&self, name: &str) -> Result<usize, ValueError> {
        match self.index_of(name) {
            Some(column) if column < self.bounds.related => Ok(column),
            _ => self.stored_index(name),
        }
    }

    /// Reads a JSON value of a request's context.
    ///
    /// # Errors
    /// As [`View::read_value`], and when the feature is not a request feature.
    pub fn read_context(
        &self,
        name: &str,
        json: &Json,
    ) -> Result<(usize, Value, bool), ValueError> {
        let request = self.request_columns();
        let problem = match self.index_of(name) {
            Some(column) if request.contains(&column) => return self.read_column(column, json),
            Some(column) => {
                let feature = &self.features[column];
                format!(
                    "is {}; what a request may say of it goes into `features`",
                    feature.role.as_phrase()
                )
            }
            None => {
                let names = self.features[request].iter().map(|f| f.name.as_str());
                format!(
                    "no such request feature in view {}{}",
                    self.name,
                    suggestion(name, names)
                )
            }
        };
        Err(ValueError {
            feature: shorten(name, 64),
            problem,
        })
    }

    /// Reads a JSON value for the feature in `column` and checks it.
    ///
    /// # Errors
    /// The feature's name with: wrong type, out of range, or refused as unknown.
    pub fn read_column(
        &self,
        column: usize,
        json: &Json,
    ) -> Result<(usize, Value, bool), ValueError> {
        let feature = &self.features[column];
        let read = match (feature.holds, json) {
            // The column holds them as text.
            (Holds::List, Json::Array(_)) | (Holds::Map, Json::Object(_)) => {
                Ok(Value::String(json.to_string()))
            }
            _ => Value::from_json(json, feature.kind),
        };
        let value = read.map_err(|problem| ValueError {
            feature: feature.name.clone(),
            problem,
        })?;
        let unknown = feature.check(&value)?;
        Ok((column, value, unknown))
    }

    /// The column of the stored feature `name`.
    ///
    /// # Errors
    /// When there is no such feature, or it is not stored.
    pub fn stored_index(&self, name: &str) -> Result<usize, ValueError> {
        let problem = match self.index_of(name) {
            Some(column) if column < self.bounds.stored => return Ok(column),
            Some(column) => self.why_not_stored(column),
            None => {
                let names = self.features.iter().map(|feature| feature.name.as_str());
                format!(
                    "no such feature in view {}{}",
                    self.name,
                    suggestion(name, names)
                )
            }
        };
        Err(ValueError {
            feature: shorten(name, 64),
            problem,
        })
    }

    fn why_not_stored(&self, column: usize) -> String {
        let feature = &self.features[column];
        match feature.role {
            Role::Stored => String::new(),
            Role::Request => "comes with each request and is not stored; send it as `context` of \
                              the request"
                .to_owned(),
            Role::Window => {
                let index = column - self.bounds.request;
                let event = self
                    .windows
                    .aggregates()
                    .get(index)
                    .map(|a| a.event.as_str());
                format!(
                    "is computed from events; send events {:?} instead",
                    event.unwrap_or_default()
                )
            }
            Role::Related => {
                let related = self.related.get(column - self.bounds.window);
                let relation = related.and_then(|related| self.relations.get(related.relation));
                format!(
                    "is read from view {}; set it there",
                    relation.map_or("", |relation| relation.view.as_str())
                )
            }
            Role::Derived => {
                let inputs = feature.expression.as_ref().map(|e| e.columns().join(", "));
                format!(
                    "is derived and cannot be set; set what it is computed from ({})",
                    inputs.unwrap_or_default()
                )
            }
        }
    }
}
