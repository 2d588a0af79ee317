//! `predict(job, input, file, column, ...)`: a row of the input, scored.
//!
//! The first argument says what is the same for all rows of a job, the second what is the same for those of
//! a scan, both as JSON; then come the file of the row, and the columns of the input or its text line by
//! line. The result has the columns of the output, all null for a row that is rejected, and then why it is
//! rejected. Inside is the function of the one-machine job, [`score`].
//!
//! The scheduler plans the function and cannot run it; executors have models.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, StructArray, UInt32Array};
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{DataFusionError, Result as FusionResult, ScalarValue};
use datafusion_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use super::models::Models;
use super::spec::{InputSpec, JobSpec, Shape};
use crate::batch::score::inputs::InputFile;
use crate::batch::score::plan::Plan;
use crate::batch::score::rows::{Scored, score};
use crate::batch::score::source::{Chunk, Content, Position};

/// The name of the function.
pub const NAME: &str = "predict";
/// What a message of the function begins with, by which it is found in what Ballista makes of it.
pub const MESSAGE: &str = "predict: ";

/// The function.
#[derive(Debug)]
struct Predict {
    signature: Signature,
    /// Those that it scores with; none where it is only planned.
    models: Option<Arc<Models>>,
}

/// The function with these models, or one that is only planned.
pub fn function(models: Option<Arc<Models>>) -> ScalarUDF {
    // Volatile: nobody is to run it ahead of time, twice or not at all.
    let signature = Signature::variadic_any(Volatility::Volatile);
    ScalarUDF::new_from_impl(Predict { signature, models })
}

// There is one such function in a process.
impl PartialEq for Predict {
    fn eq(&self, _other: &Predict) -> bool {
        true
    }
}

impl Eq for Predict {}

impl Hash for Predict {
    fn hash<H: Hasher>(&self, state: &mut H) {
        NAME.hash(state);
    }
}

impl ScalarUDFImpl for Predict {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> FusionResult<DataType> {
        Err(problem("what it gives is in its first argument"))
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> FusionResult<FieldRef> {
        let job = match arguments.scalar_arguments.first() {
            Some(Some(scalar)) => text(scalar)?,
            _ => return Err(problem("the first argument is not a constant")),
        };
        let job = JobSpec::read(job).map_err(problem)?;
        let kind = DataType::Struct(job.fields());
        Ok(Arc::new(Field::new(NAME, kind, true)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> FusionResult<ColumnarValue> {
        let Some(models) = &self.models else {
            return Err(problem("there are no models here; executors run it"));
        };
        let rows = arguments.number_rows;
        let (job, input, columns) = match arguments.args.as_slice() {
            [
                ColumnarValue::Scalar(job),
                ColumnarValue::Scalar(input),
                columns @ ..,
            ] => (text(job)?, text(input)?, columns),
            _ => return Err(problem("the first two arguments are not constants")),
        };
        let columns = columns.iter().map(|column| column.to_array(rows));
        let columns = columns.collect::<FusionResult<Vec<ArrayRef>>>()?;
        let [files, columns @ ..] = columns.as_slice() else {
            return Err(problem("the name of the file is missing"));
        };
        let scored = predict(models, job, input, files, columns, rows).map_err(problem)?;
        Ok(ColumnarValue::Array(scored))
    }
}

fn problem(text: impl std::fmt::Display) -> DataFusionError {
    DataFusionError::Execution(format!("{MESSAGE}{text}"))
}

fn text(scalar: &ScalarValue) -> FusionResult<&str> {
    let text = scalar.try_as_str().flatten();
    text.ok_or_else(|| problem("an argument is not the text that it should be"))
}

fn predict(
    models: &Models,
    job: &str,
    input: &str,
    files: &ArrayRef,
    columns: &[ArrayRef],
    rows: usize,
) -> Result<ArrayRef, String> {
    let plan = models.plan(job)?;
    let fields = JobSpec::read(job)?.fields();
    let input = InputSpec::read(input, &plan, columns.len())?;
    let binding = Arc::new(input.binding);
    let files = files.as_string_opt::<i32>();
    let files = files.ok_or("expected the names of files as text")?;
    let mut scored: Vec<ArrayRef> = Vec::new();
    let mut start = 0;
    while start < rows || scored.is_empty() {
        let length = plan.chunk_rows.min(rows - start);
        let files = files.slice(start, length);
        let columns = columns.iter().map(|column| column.slice(start, length));
        let columns: Vec<ArrayRef> = columns.collect();
        // Where each row of the chunk is among those that were given: blank lines are none.
        let mut places: Vec<usize> = (0..length).collect();
        let content = match input.shape {
            Shape::Columns => Content::Columns(columns),
            Shape::Csv(width) => Content::Csv(bytes_of(lines(&columns)?), width),
            Shape::Ndjson => {
                let lines = lines(&columns)?;
                places.retain(|row| lines.is_valid(*row) && !is_blank(lines.value(*row)));
                Content::Ndjson(bytes_of(lines))
            }
        };
        let chunk = Chunk {
            file: 0,
            first: 1,
            rows: places.len(),
            end: Position::default(),
            binding: Arc::clone(&binding),
            content,
        };
        let file = InputFile {
            path: files.iter().flatten().next().unwrap_or_default().into(),
            bytes: 0,
            xxh3: String::new(),
        };
        let done = score(&plan, &[file], chunk)?;
        let columns = spread(&plan, done, &files, &places)?;
        let part = StructArray::try_new_with_length(fields.clone(), columns, None, length);
        scored.push(Arc::new(part.map_err(|error| error.to_string())?));
        start += length;
    }
    let parts: Vec<&dyn Array> = scored.iter().map(|part| &**part).collect();
    concat(&parts).map_err(|error| error.to_string())
}

fn lines(columns: &[ArrayRef]) -> Result<&StringArray, String> {
    let lines = columns.first();
    let lines = lines.and_then(|lines| lines.as_string_opt::<i32>());
    lines.ok_or_else(|| "expected a column of lines".to_owned())
}

/// Lines as the text that they were.
fn bytes_of(lines: &StringArray) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in lines {
        bytes.extend_from_slice(line.unwrap_or_default().as_bytes());
        bytes.push(b'\n');
    }
    bytes
}

/// Whether a line of NDJSON is no record, as its reader has it.
fn is_blank(line: &str) -> bool {
    line.bytes().all(|byte| b" \t\r".contains(&byte))
}

/// What became of the rows at `places`, each in its place among `files.len()`.
fn spread(
    plan: &Plan,
    scored: Scored,
    files: &StringArray,
    places: &[usize],
) -> Result<Vec<ArrayRef>, String> {
    let rows = files.len();
    // Where there is no row, there is nothing to say.
    let mut rejected: Vec<Option<String>> = vec![Some(String::new()); rows];
    for place in places {
        rejected[*place] = None;
    }
    for mut reject in scored.rejects {
        let row = reject.row.checked_sub(1);
        let row = row.and_then(|row| usize::try_from(row).ok());
        let place = row.and_then(|row| places.get(row));
        let place = *place.ok_or("a row was rejected that was not there")?;
        // Readers that run side by side do not know which row of the file it is.
        reject.row = 0;
        reject.file = files.value(place).to_owned();
        let text = serde_json::to_string(&reject).map_err(|error| error.to_string())?;
        rejected[place] = Some(text);
    }
    let mut good = 0..;
    let taken = rejected.iter().map(|rejected| match rejected {
        Some(_) => None,
        None => good.next(),
    });
    let taken: UInt32Array = taken.collect();
    let mut columns = Vec::with_capacity(plan.schema.fields().len() + 2);
    for column in scored.batch.columns() {
        columns.push(take(column, &taken, None).map_err(|error| error.to_string())?);
    }
    let counts = serde_json::to_string(&scored.statistics).map_err(|error| error.to_string())?;
    let counts = std::iter::once(Some(counts)).chain(std::iter::repeat(None));
    columns.push(Arc::new(StringArray::from(rejected)));
    columns.push(Arc::new(counts.take(rows).collect::<StringArray>()));
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    use arrow::array::Float64Array;

    use crate::batch::score::bind::{Binding, Column, ColumnOptions};
    use crate::batch::score::plan::Asked;
    use crate::features::views::Views;
    use crate::models::repository::Repository;

    fn folder(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
    }

    fn models() -> Models {
        Models::new(folder("models"), folder("features"), 1, 1 << 30)
    }

    fn job() -> JobSpec {
        let views = Views::load(&folder("features")).unwrap();
        let repository = Repository::open(&folder("models"), &views);
        let asked = Asked {
            models: vec!["churn".to_owned()],
            explain: None,
            bands: None,
            columns: ColumnOptions::default(),
            checkpoint_rows: 1,
        };
        JobSpec::of(&Plan::new(&repository, &asked, 0).unwrap(), 0)
    }

    fn input() -> InputSpec {
        let key = Column {
            index: 0,
            name: "customer_id".to_owned(),
        };
        InputSpec {
            shape: Shape::Ndjson,
            binding: Binding {
                keys: vec![key],
                features: Vec::new(),
                unread: Vec::new(),
            },
        }
    }

    fn texts(values: &[&str]) -> ArrayRef {
        Arc::new(StringArray::from_iter_values(values))
    }

    fn try_predict(
        models: &Models,
        job: &str,
        input: &str,
        lines: &[&str],
    ) -> Result<StructArray, String> {
        let files = texts(&vec!["a/b"; lines.len()]);
        let scored = predict(models, job, input, &files, &[texts(lines)], lines.len())?;
        Ok(scored.as_struct().clone())
    }

    #[test]
    fn each_row_is_scored_or_says_why_not_in_its_place() {
        let models = models();
        let job = serde_json::to_string(&job()).unwrap();
        let input = serde_json::to_string(&input()).unwrap();
        let lines = [
            "{}",
            r#"{"customer_id":"x"}"#,
            " \t",
            "{",
            r#"{"customer_id":"y"}"#,
        ];
        let rows = try_predict(&models, &job, &input, &lines).unwrap();
        let text = |column: usize| rows.column(column).as_string::<i32>().clone();
        let keys: Vec<Option<String>> = text(0).iter().map(|key| key.map(str::to_owned)).collect();
        assert_eq!(keys, [None, Some("x".into()), None, None, Some("y".into())]);
        let scores = rows
            .column(1)
            .as_any()
            .downcast_ref::<Float64Array>()
            .unwrap();
        assert!(
            scores.is_valid(1) && scores.value(1) == scores.value(4) && scores.null_count() == 3
        );
        let width = rows.num_columns();
        let (rejected, counts) = (text(width - 2), text(width - 1));
        assert!(rejected.value(0).contains("missing") && rejected.value(0).contains("a/b"));
        assert_eq!(rejected.value(2), "");
        assert!(
            rejected.value(3).contains("JSON object"),
            "{}",
            rejected.value(3)
        );
        assert!(rejected.is_null(1) && rejected.is_null(4));
        assert!(counts.is_valid(0) && counts.null_count() == 4);
        let nothing = try_predict(&models, &job, &input, &[]).unwrap();
        assert_eq!((nothing.len(), nothing.num_columns()), (0, width));
    }

    #[test]
    fn what_does_not_fit_is_an_error_that_says_so() {
        let models = models();
        let good = job();
        let with = |edit: fn(&mut JobSpec, &mut InputSpec), expected: &str| {
            let (mut job, mut input) = (good.clone(), input());
            edit(&mut job, &mut input);
            let job = serde_json::to_string(&job).unwrap();
            let input = serde_json::to_string(&input).unwrap();
            let problem = try_predict(&models, &job, &input, &["{}"]).unwrap_err();
            assert!(problem.contains(expected), "{problem}");
        };
        with(|job, _| job.program = "9.9".into(), "bellwether 9.9");
        with(|job, _| job.view = "nobody".into(), "feature view nobody");
        with(|job, _| job.view_digest = "00".into(), "digest 00");
        with(
            |job, _| job.models[0].digest = "00".into(),
            "made with digest 00",
        );
        with(
            |job, _| job.models[0].version = "77".into(),
            "cannot read it",
        );
        with(
            |job, _| job.models[0].version = "../1".into(),
            "name and number",
        );
        with(
            |job, _| job.models[0].model = "../churn".into(),
            "name and number",
        );
        with(|job, _| job.models.clear(), "at least one model");
        with(|job, _| job.output.clear(), "other columns");
        with(
            |_, input| input.binding.keys.clear(),
            "expected 1 key columns",
        );
        with(
            |_, input| {
                let column = input.binding.keys[0].clone();
                input.binding.features.push((usize::MAX, column));
            },
            "the view does not have",
        );
        with(
            |_, input| {
                input.shape = Shape::Columns;
                input.binding.keys.push(input.binding.keys[0].clone());
            },
            "expected 2 columns",
        );
        for (job, input) in [("", "{}"), ("[]", "{}")] {
            assert!(try_predict(&models, job, input, &["{}"]).is_err());
        }
    }
}
