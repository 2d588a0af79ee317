//! A page of entities with their values on its way from a server to whoever scores them: an Arrow IPC
//! stream of one batch.
//!
//! The first columns are those of the key, as text; then come features under their names, null where a value
//! is missing. What else there is to say is in the schema's metadata: the digest of the view, where the next
//! page begins, and how many values are unusual. The reader checks all of it: what it gives fits the view.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use serde_json::{Map, Value as Json};

use super::given::{Given, Notes};
use crate::features::change::KEY_SEPARATOR;
use crate::features::column::value_at;
use crate::features::view::View;
use crate::models::version::hexadecimal;

/// The content type of an encoded page.
pub const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";

/// The most entities that are asked for at a time.
pub const MOST_ENTITIES: usize = 10_000;

const VIEW: &str = "bellwether.view";
const NEXT: &str = "bellwether.next";
const IN_ORDER: &str = "bellwether.in_order";
const NOTES: &str = "bellwether.notes";

/// Some entities of a view.
#[derive(Clone, Debug, PartialEq)]
pub struct GivenPage {
    pub keys: Vec<String>,
    pub given: Given,
    /// Where the next page begins, as text that a URL can hold; `None` at the end.
    pub next: Option<String>,
    /// The pages go in the order of the keys, and no entity comes twice.
    pub in_order: bool,
}

/// The columns of the key: each key cut into its parts.
pub fn key_columns(view: &View, keys: &[String]) -> Vec<ArrayRef> {
    let parts = 0..view.key_columns().len();
    let column = |part: usize| -> ArrayRef {
        let texts = keys.iter();
        let texts = texts.map(|key| key.split(KEY_SEPARATOR).nth(part).unwrap_or_default());
        Arc::new(StringArray::from_iter_values(texts))
    };
    parts.map(column).collect()
}

impl GivenPage {
    /// The names of the columns, and the columns: those of the key, then those of the features that are
    /// there.
    fn columns<'a>(&'a self, view: &'a View) -> Vec<(&'a str, ArrayRef)> {
        let names = view.key_columns().iter().map(String::as_str);
        let keys = names.zip(key_columns(view, &self.keys));
        let features = view.features().iter().zip(&self.given.columns);
        let features = features.filter_map(|(feature, column)| {
            Some((feature.name.as_str(), Arc::clone(column.as_ref()?)))
        });
        keys.chain(features).collect()
    }

    /// As an Arrow IPC stream.
    ///
    /// # Errors
    /// Never for columns that fit the view.
    pub fn to_arrow(&self, view: &View) -> Result<Vec<u8>, arrow::error::ArrowError> {
        let columns = self.columns(view);
        let fields = columns.iter().enumerate().map(|(index, (name, array))| {
            let is_key = index < view.key_columns().len();
            Field::new(*name, array.data_type().clone(), !is_key)
        });
        let features = view.features().iter().zip(&self.given.notes);
        let notes: BTreeMap<&str, Notes> = features
            .filter(|(_, notes)| **notes != Notes::default())
            .map(|(feature, notes)| (feature.name.as_str(), *notes))
            .collect();
        let notes = serde_json::to_string(&notes);
        let notes =
            notes.map_err(|error| arrow::error::ArrowError::from_external_error(error.into()))?;
        let mut metadata = HashMap::from([
            (VIEW.to_owned(), hexadecimal(&view.digest)),
            (IN_ORDER.to_owned(), self.in_order.to_string()),
            (NOTES.to_owned(), notes),
        ]);
        if let Some(next) = &self.next {
            metadata.insert(NEXT.to_owned(), next.clone());
        }
        let schema = Schema::new_with_metadata(fields.collect::<Vec<Field>>(), metadata);
        let schema = Arc::new(schema);
        let arrays = columns.into_iter().map(|(_, array)| array).collect();
        let batch = RecordBatch::try_new(Arc::clone(&schema), arrays)?;
        let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
        writer.write(&batch)?;
        writer.into_inner()
    }

    /// As lines of JSON, one for each entity.
    pub fn to_lines(&self, view: &View) -> String {
        let columns = self.columns(view);
        let mut lines = String::new();
        for row in 0..self.keys.len() {
            let members = columns.iter();
            let members =
                members.map(|(name, array)| ((*name).to_owned(), value_at(array, row).to_json()));
            let line: Map<String, Json> = members.collect();
            lines.push_str(&Json::Object(line).to_string());
            lines.push('\n');
        }
        lines
    }

    /// Reads what [`GivenPage::to_arrow`] wrote.
    ///
    /// # Errors
    /// When it is another view's, or not a page.
    pub fn from_arrow(bytes: &[u8], view: &View) -> Result<GivenPage, String> {
        let failed = |error: arrow::error::ArrowError| format!("a page of entities: {error}");
        let reader = StreamReader::try_new(bytes, None).map_err(failed)?;
        let schema = reader.schema();
        let said = |name: &str| schema.metadata().get(name);
        if said(VIEW) != Some(&hexadecimal(&view.digest)) {
            return Err(format!(
                "view {} of the server is not the one of --features, so its models may read something \
                 else; use the same view files, or have the server read them again",
                view.name
            ));
        }
        let mut page = GivenPage {
            keys: Vec::new(),
            given: Given {
                columns: vec![None; view.features().len()],
                notes: vec![Notes::default(); view.features().len()],
            },
            next: said(NEXT).cloned(),
            in_order: said(IN_ORDER).is_some_and(|said| said == "true"),
        };
        let notes: BTreeMap<String, Notes> = match said(NOTES) {
            Some(text) => serde_json::from_str(text)
                .map_err(|error| format!("a page of entities: {NOTES}: {error}"))?,
            None => BTreeMap::new(),
        };
        for (name, notes) in notes {
            if let Some(column) = view.index_of(&name) {
                page.given.notes[column] = notes;
            }
        }
        let batches: Vec<RecordBatch> = reader.collect::<Result<_, _>>().map_err(failed)?;
        let [batch] = batches.as_slice() else {
            let count = batches.len();
            return Err(format!("a page of entities: {count} batches, expected one"));
        };
        page.read(batch, view)?;
        Ok(page)
    }

    fn read(&mut self, batch: &RecordBatch, view: &View) -> Result<(), String> {
        let parts = view.key_columns();
        let mut keys = Vec::with_capacity(parts.len());
        for (index, (field, array)) in batch
            .schema()
            .fields()
            .iter()
            .zip(batch.columns())
            .enumerate()
        {
            let name = field.name();
            let wrong = |expected: &DataType| {
                let found = array.data_type();
                format!("a page of entities: column {name:?}: expected {expected}, found {found}")
            };
            if index < parts.len() {
                let texts = array.as_string_opt::<i32>();
                let texts = texts.filter(|texts| *name == parts[index] && texts.null_count() == 0);
                keys.push(texts.ok_or_else(|| wrong(&DataType::Utf8))?);
                continue;
            }
            let column = view.index_of(name);
            let column = column.filter(|column| *column < view.derived_columns().start);
            let column = column
                .ok_or_else(|| format!("a page of entities: column {name:?} is not known"))?;
            let kind = view.features()[column].kind.arrow();
            if *array.data_type() != kind {
                return Err(wrong(&kind));
            }
            self.given.columns[column] = Some(Arc::clone(array));
        }
        if keys.len() != parts.len() {
            let expected = parts.join(", ");
            return Err(format!(
                "a page of entities: expected the columns {expected}"
            ));
        }
        for row in 0..batch.num_rows() {
            let parts: Vec<&str> = keys.iter().map(|texts| texts.value(row)).collect();
            self.keys.push(parts.join(&KEY_SEPARATOR.to_string()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int64Array};

    const SITES: &str = "[view]\nname = \"cell\"\nentity = [\"site_id\", \"cell_id\"]\n\
                         [[feature]]\nname = \"load\"\ntype = \"float64\"\n\
                         [[feature]]\nname = \"faults\"\ntype = \"int64\"\ndefault = 0\n";

    fn page() -> GivenPage {
        let load: ArrayRef = Arc::new(Float64Array::from(vec![Some(0.1 + 0.2), None]));
        let faults: ArrayRef = Arc::new(Int64Array::from(vec![None, Some(7)]));
        let notes = Notes {
            stale: 1,
            ..Notes::default()
        };
        GivenPage {
            keys: vec!["s\u{1f}1".into(), "ü\u{1f}2".into()],
            given: Given {
                columns: vec![Some(load), Some(faults)],
                notes: vec![notes, Notes::default()],
            },
            next: Some("3c".into()),
            in_order: true,
        }
    }

    #[test]
    fn a_page_is_read_as_it_was_written() {
        let view = View::parse(SITES).unwrap();
        let bytes = page().to_arrow(&view).unwrap();
        assert_eq!(GivenPage::from_arrow(&bytes, &view).unwrap(), page());
        let last = GivenPage {
            keys: Vec::new(),
            given: Given {
                columns: vec![None; 2],
                notes: vec![Notes::default(); 2],
            },
            next: None,
            in_order: false,
        };
        let bytes = last.to_arrow(&view).unwrap();
        assert_eq!(GivenPage::from_arrow(&bytes, &view).unwrap(), last);
    }

    #[test]
    fn lines_have_the_parts_of_the_key_and_all_digits() {
        let view = View::parse(SITES).unwrap();
        let lines = page().to_lines(&view);
        let first = lines.lines().next().unwrap();
        let read: Json = serde_json::from_str(first).unwrap();
        assert_eq!(read["site_id"], "s");
        assert_eq!(read["load"].as_f64().unwrap(), 0.1 + 0.2);
        assert!(read["faults"].is_null());
    }

    #[test]
    fn a_page_of_another_view_and_what_is_no_page_are_refused() {
        let view = View::parse(SITES).unwrap();
        let other = View::parse(&SITES.replace("load", "charge")).unwrap();
        let bytes = page().to_arrow(&view).unwrap();
        let problem = GivenPage::from_arrow(&bytes, &other).unwrap_err();
        assert!(problem.contains("--features"), "{problem}");
        for length in [0, 10, bytes.len() / 2] {
            assert!(GivenPage::from_arrow(&bytes[..length], &view).is_err());
        }
        assert!(GivenPage::from_arrow(b"{\"error\": \"x\"}", &view).is_err());
    }
}
