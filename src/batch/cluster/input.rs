//! Files as a plan: which of DataFusion's readers takes them, and how `predict` is called on them.
//!
//! Parquet and Arrow files come as the columns that are bound. CSV and NDJSON come line by line, and the
//! function parses them by the code of the one-machine job: so quotes, fields too many and values of the
//! wrong type are what they are there. A line is read as a record of one field by a reader whose separator
//! and quote are characters that the text does not have. Where that would not be exact (a quoted line
//! break, text that is not UTF-8), the file is refused before anything runs.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::reader::FileReader;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::arrow::ArrowFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{
    ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl,
};
use datafusion::datasource::provider_as_source;
use datafusion::functions::core::expr_fn::input_file_name;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, Union, lit};
use datafusion::prelude::{Column, Expr};
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

use super::predict;
use super::spec::{InputSpec, Shape};
use crate::batch::score::bind::Binding;
use crate::batch::score::inputs::{Format, InputFile};
use crate::batch::score::plan::Plan;
use crate::batch::score::source::look_at;
use crate::batch::score::split::{Splitter, State, after_csv};

/// The column that lines are read as.
const LINE: &str = "line";
/// Two control characters that text does not have; JSON cannot have them.
const SEPARATOR: u8 = 0x01;
const QUOTE: u8 = 0x02;
/// Each is a scan of its own in the plan that goes with every task.
const MOST_GROUPS: usize = 64;

/// Files that one scan reads: of one format, with the same columns in the same places.
struct Group {
    format: Format,
    schema: SchemaRef,
    shape: Shape,
    columns: Vec<String>,
    /// The second argument of the function.
    input: String,
    urls: Vec<ListingTableUrl>,
}

/// What a cluster is asked for.
pub struct Input {
    /// Nothing, when there are no rows.
    pub plan: Option<LogicalPlan>,
    /// How many scans it consists of.
    pub scans: usize,
    /// What each file is called here, by what it is called there.
    pub names: HashMap<String, String>,
}

/// The plan that scores `files`.
///
/// # Errors
/// A file and why a cluster cannot read it, or that they are of too many kinds.
pub fn plan_of(files: &[InputFile], plan: &Plan, job: &str) -> Result<Input, String> {
    let mut groups: Vec<Group> = Vec::new();
    let mut names = HashMap::new();
    for file in files {
        let path = &file.path;
        let in_file = |problem: String| format!("{}: {problem}", path.display());
        let place = absolute(path).map_err(|error| in_file(error.to_string()))?;
        let there = place.to_string_lossy();
        let there = there.strip_prefix('/').unwrap_or(&there).to_owned();
        names.insert(there, path.display().to_string());
        let Some(mut group) = group_of(path, plan).map_err(in_file)? else {
            continue;
        };
        let url = ListingTableUrl::parse(file_url(&place));
        group
            .urls
            .push(url.map_err(|error| in_file(error.to_string()))?);
        let same = groups.iter().position(|other| {
            other.format == group.format
                && other.input == group.input
                && other.schema == group.schema
        });
        match same {
            Some(index) => groups[index].urls.append(&mut group.urls),
            None if groups.len() == MOST_GROUPS => {
                return Err(in_file(format!(
                    "the files before it have {MOST_GROUPS} different sets of columns, and it has \
                     another; score them in several jobs"
                )));
            }
            None => groups.push(group),
        }
    }
    let scans = groups.len();
    let mut parts = Vec::with_capacity(scans);
    for group in groups {
        let part = group.into_plan(job).map_err(|error| error.to_string())?;
        parts.push(Arc::new(part));
    }
    let plan = match parts.as_slice() {
        [] => None,
        [only] => Some(LogicalPlan::clone(only)),
        _ => {
            let union = Union::try_new(parts).map_err(|error| error.to_string())?;
            Some(LogicalPlan::Union(union))
        }
    };
    Ok(Input { plan, scans, names })
}

/// The group that a file begins; `None` when it has no rows.
fn group_of(path: &Path, plan: &Plan) -> Result<Option<Group>, String> {
    let format = Format::of(path).ok_or("its format is not known")?;
    let (binding, _) = look_at(path, plan)?;
    let line = || Arc::new(Schema::new(vec![Field::new(LINE, DataType::Utf8, true)]));
    let (schema, shape) = match format {
        Format::Parquet => (parquet_schema(path, &binding)?, Shape::Columns),
        Format::Arrow => (arrow_schema(path)?, Shape::Columns),
        Format::Csv => (line(), Shape::Csv(width(&binding))),
        Format::Ndjson => (line(), Shape::Ndjson),
    };
    let mut columns = vec![LINE.to_owned()];
    if shape == Shape::Columns {
        columns = binding
            .columns()
            .map(|column| column.name.clone())
            .collect();
        check_names(&schema, &binding)?;
    } else {
        let is_csv = format == Format::Csv;
        let records = check_text(path, is_csv)?;
        // Of CSV, one of them is the header.
        if records == usize::from(is_csv) {
            return Ok(None);
        }
    }
    let binding = Binding::clone(&binding);
    let input = serde_json::to_string(&InputSpec { shape, binding });
    Ok(Some(Group {
        format,
        schema,
        shape,
        columns,
        input: input.map_err(|error| error.to_string())?,
        urls: Vec::new(),
    }))
}

impl Group {
    fn into_plan(self, job: &str) -> datafusion::error::Result<LogicalPlan> {
        let text = |has_header: bool| {
            CsvFormat::default()
                .with_has_header(has_header)
                .with_delimiter(SEPARATOR)
                .with_quote(QUOTE)
        };
        let reader: Arc<dyn FileFormat> = match self.format {
            Format::Parquet => Arc::new(ParquetFormat::default()),
            Format::Arrow => Arc::new(ArrowFormat),
            Format::Csv | Format::Ndjson => Arc::new(text(self.shape != Shape::Ndjson)),
        };
        // The files are named one by one, whatever they end in.
        let options = ListingOptions::new(reader).with_file_extension("");
        let config = ListingTableConfig::new_with_multi_paths(self.urls)
            .with_listing_options(options)
            .with_schema(self.schema);
        let table = provider_as_source(Arc::new(ListingTable::try_new(config)?));
        let columns = self.columns.into_iter();
        let columns = columns.map(|name| Expr::from(Column::from_name(name)));
        let mut arguments = vec![lit(job), lit(self.input), input_file_name()];
        arguments.extend(columns);
        let scored = predict::function(None).call(arguments).alias("scored");
        LogicalPlanBuilder::scan("input", table, None)?
            .project(vec![scored])?
            .build()
    }
}

/// How many fields the header has. Two features may be read of one column.
fn width(binding: &Binding) -> usize {
    let read: BTreeSet<usize> = binding.columns().map(|column| column.index).collect();
    read.len() + binding.unread.len()
}

/// The path under which every process finds a file, whatever folder it runs in. Links stay as they are:
/// where they lead may have another name elsewhere.
fn absolute(path: &Path) -> std::io::Result<PathBuf> {
    match path.components().any(|part| part == Component::ParentDir) {
        true => path.canonicalize(),
        false => std::path::absolute(path),
    }
}

/// A path as a URL, in which only plain characters stand for themselves: `*` and `?` would be patterns.
fn file_url(absolute: &Path) -> String {
    let mut url = "file://".to_owned();
    for byte in absolute.to_string_lossy().bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
                url.push(char::from(byte));
            }
            _ => url.push_str(&format!("%{byte:02X}")),
        }
    }
    url
}

/// The columns of a Parquet file that are bound, with the types that the one-machine job reads them as.
fn parquet_schema(file: &Path, binding: &Binding) -> Result<SchemaRef, String> {
    let source = File::open(file).map_err(|error| error.to_string())?;
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(source, options)
        .map_err(|error| error.to_string())?;
    let fields = builder.schema().fields().iter();
    let is_bound = |name: &str| binding.columns().any(|column| column.name == name);
    let bound = fields.filter(|field| is_bound(field.name()));
    let bound = bound.map(|field| field.as_ref().clone().with_nullable(true));
    Ok(Arc::new(Schema::new(bound.collect::<Vec<Field>>())))
}

/// The columns of an Arrow file. All of them: its reader goes by their places.
fn arrow_schema(file: &Path) -> Result<SchemaRef, String> {
    let source = File::open(file).map_err(|error| error.to_string())?;
    let reader = FileReader::try_new_buffered(source, None).map_err(|error| error.to_string())?;
    Ok(reader.schema())
}

/// A plan goes by names, and the one-machine job by places: a name has to be in one place.
fn check_names(schema: &SchemaRef, binding: &Binding) -> Result<(), String> {
    for field in schema.fields() {
        let name = field.name();
        let count = schema
            .fields()
            .iter()
            .filter(|other| other.name() == name)
            .count();
        if count > 1 && binding.columns().any(|column| column.name == *name) {
            return Err(format!(
                "{count} columns are called {name}; a cluster needs different names"
            ));
        }
    }
    Ok(())
}

/// Reads text to its end and checks that lines are records; gives how many there are, a header among them.
fn check_text(file: &Path, is_csv: bool) -> Result<usize, String> {
    let instead = "convert it to Parquet, or score it without --cluster";
    let mut splitter = Splitter::open(file, 0, is_csv).map_err(|error| error.to_string())?;
    let (mut records, mut begin) = (0, 0);
    let mut is_behind_return = false;
    while let Some(piece) = splitter.next(usize::MAX)? {
        let bytes = &piece.bytes;
        if let Err(error) = std::str::from_utf8(bytes) {
            let at = begin + error.valid_up_to() as u64;
            return Err(format!(
                "byte {at} is not UTF-8 text, which a cluster cannot pass over; {instead}"
            ));
        }
        if begin == 0 && !is_csv && bytes.starts_with(b"\xef\xbb\xbf") {
            return Err(format!("it begins with a byte order mark; {instead}"));
        }
        if let Some(at) = bytes
            .iter()
            .position(|byte| [SEPARATOR, QUOTE].contains(byte))
        {
            let at = begin + at as u64;
            return Err(format!(
                "byte {at} is a control character that a cluster splits at; {instead}"
            ));
        }
        let mut state = State::Blank;
        for (at, &byte) in bytes.iter().enumerate() {
            if state == State::Quoted && matches!(byte, b'\n' | b'\r') {
                let at = begin + at as u64;
                return Err(format!(
                    "byte {at} is a line break inside quotes, where a cluster cannot split it; {instead}"
                ));
            }
            if is_behind_return && byte != b'\n' {
                return Err(format!(
                    "a line ends with a carriage return alone; {instead}"
                ));
            }
            is_behind_return = byte == b'\r';
            if is_csv {
                (state, _) = after_csv(state, byte);
            }
        }
        if state == State::Quoted {
            return Err(format!(
                "the quotes of its last field are not closed; {instead}"
            ));
        }
        records += piece.records;
        begin = piece.end;
    }
    match is_behind_return {
        true => Err(format!(
            "its last line ends with a carriage return alone; {instead}"
        )),
        false => Ok(records),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_lines_do_not_split_exactly_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        let check = |bytes: &[u8], is_csv| {
            std::fs::write(&file, bytes).unwrap();
            check_text(&file, is_csv)
        };
        for (text, is_csv, records) in [
            ("a,b\r\n1,\"x \"\"y\"\"\"\r\n\r\n2,z", true, 3),
            ("a\n  \n", true, 2),
            ("\u{feff}a\n1\n", true, 2),
            ("{}\n \t\r\n{\"a\":\"\\n\"}\n\n", false, 2),
            ("", true, 0),
        ] {
            assert_eq!(check(text.as_bytes(), is_csv), Ok(records), "{text:?}");
        }
        for (bytes, is_csv, expected) in [
            (&b"a\n\"x\ny\"\n"[..], true, "inside quotes"),
            (b"a\n\"x\n", true, "inside quotes"),
            (b"a\n\"x", true, "not closed"),
            (b"a\r1\r", true, "carriage return"),
            (b"{}\r{}\n", false, "carriage return"),
            (b"a\n1\r", true, "carriage return"),
            (b"a\n\xff\n", true, "byte 2 is not UTF-8"),
            (b"a\n\x01\n", true, "byte 2 is a control character"),
            (b"\xef\xbb\xbf{}\n", false, "byte order mark"),
        ] {
            let problem = check(bytes, is_csv).unwrap_err();
            assert!(
                problem.contains(expected) && problem.contains("Parquet"),
                "{problem}"
            );
        }
    }

    #[test]
    fn nothing_in_a_path_is_a_pattern() {
        let url = file_url(Path::new("/a b/c*?[d]%.csv"));
        assert_eq!(url, "file:///a%20b/c%2A%3F%5Bd%5D%25.csv");
    }
}
