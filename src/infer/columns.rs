//! Named columns as the inputs of a graph: how the rows of a table reach a model.
//!
//! Three ways, of which the first that applies is taken:
//!
//! 1. Every input of the graph is a column of that name, and there are no others.
//! 2. The model's manifest says which features an input is made of, and the columns are named as
//!    these: they are laid side by side in the manifest's order.
//! 3. The graph has one input: the columns are laid side by side in their own order.
//!
//! A column that would be left over is an error, never silently dropped. `[N]` and `[N, 1]` are the
//! same column, whichever of the two the graph wants.

use std::collections::{HashMap, HashSet};

use onnx_ml::{Shape, Tensor, TensorInfo};

use super::cells::{self, Layout, Values};
use super::error::InferError;
use super::inputs::Inputs;
use crate::features::value::shorten;
use crate::models::tensors::{protocol_name, shape_text};
use crate::models::version::ModelVersion;

/// A column of a table: as many values as its shape stands for.
#[derive(Debug, Clone)]
pub struct Column {
    pub name: String,
    /// Rows first.
    pub shape: Shape,
    pub values: Values,
}

impl Column {
    /// A column of one value for each row.
    pub fn flat(name: String, values: Values) -> Column {
        Column {
            name,
            shape: Shape::from_slice(&[values.len()]),
            values,
        }
    }

    fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// How many values each row has.
    fn width(&self) -> usize {
        self.shape.iter().skip(1).product()
    }
}

/// The inputs of `model` in the order of the graph, from columns.
///
/// # Errors
/// A column that is missing, unknown or given twice; a shape, a number of rows or a value that does
/// not fit.
pub fn bind(
    model: &ModelVersion,
    max_rows: usize,
    mut columns: Vec<Column>,
) -> Result<Vec<Tensor>, InferError> {
    for column in &columns {
        let claimed = column
            .shape
            .iter()
            .try_fold(1_usize, |all, dim| all.checked_mul(*dim));
        if claimed != Some(column.values.len()) {
            return Err(InferError::invalid(format!(
                "column {:?}: {} values do not fill the shape {}",
                shorten(&column.name, 64),
                column.values.len(),
                shorten(&format!("{:?}", column.shape.as_slice()), 100)
            )));
        }
    }
    let plan = plan(model, &columns)?;
    let mut inputs = Inputs::new(model, max_rows);
    for (info, places) in model.graph.inputs().iter().zip(plan) {
        let shape = bound_shape(info, &columns, &places)?;
        let dims = shape.iter().map(|dim| *dim as u64);
        // Also holds the number of rows and the size against the bounds.
        let declared = inputs.declare(&info.name, protocol_name(info.data_type), dims)?;
        let data = match (places.as_slice(), &mut columns) {
            // A column that is what the graph wants is handed over as it is.
            ([place], columns) if is_of_type(&columns[*place].values, info) => {
                match std::mem::replace(&mut columns[*place].values, Values::Json(Vec::new())) {
                    Values::Typed(data) => data,
                    Values::Json(_) | Values::Written(_) => {
                        return Err(InferError::internal("a typed column has no type"));
                    }
                }
            }
            _ => {
                let layout = Layout {
                    rows: shape.first().copied().unwrap_or(1),
                    columns: places
                        .iter()
                        .map(|place| &columns[*place])
                        .map(|column| (column.name.as_str(), &column.values, column.width()))
                        .collect(),
                };
                cells::fill(info.data_type, &layout).map_err(InferError::invalid)?
            }
        };
        let tensor = Tensor::from_data(&shape, data);
        inputs.put(
            &declared,
            tensor.map_err(|error| InferError::internal(error.to_string()))?,
        )?;
    }
    inputs.finish()
}

fn is_of_type(values: &Values, info: &TensorInfo) -> bool {
    matches!(values, Values::Typed(data) if data.data_type() == info.data_type)
}

/// For each input of the graph the columns that it is made of. No column is in two of them.
fn plan(model: &ModelVersion, columns: &[Column]) -> Result<Vec<Vec<usize>>, InferError> {
    let infos = model.graph.inputs();
    // As many as a caller likes to send: looked up, not searched for.
    let mut places: HashMap<&str, usize> = HashMap::with_capacity(columns.len());
    for (place, column) in columns.iter().enumerate() {
        if places.insert(&column.name, place).is_some() {
            let name = shorten(&column.name, 64);
            return Err(InferError::invalid(format!(
                "column {name:?} is given twice"
            )));
        }
    }
    let position = |name: &str| places.get(name).copied();
    let by_name: Option<Vec<usize>> = infos.iter().map(|info| position(&info.name)).collect();
    if let Some(places) = by_name
        && places.len() == columns.len()
    {
        return Ok(places.into_iter().map(|place| vec![place]).collect());
    }
    let wanted: Vec<Vec<&str>> = infos.iter().map(|info| features_of(model, info)).collect();
    let all: Vec<&str> = wanted.concat();
    let known: HashSet<&str> = all.iter().copied().collect();
    if columns
        .iter()
        .any(|column| known.contains(column.name.as_str()))
    {
        let unknown = columns
            .iter()
            .find(|column| !known.contains(column.name.as_str()));
        let missing = all.iter().find(|name| position(name).is_none());
        if let Some(problem) = unknown
            .map(|column| format!("column {:?} is not known", shorten(&column.name, 64)))
            .or_else(|| missing.map(|name| format!("column {name:?} is missing")))
        {
            return Err(refusal(model, problem, &all));
        }
        let places = |names: Vec<&str>| names.into_iter().filter_map(position).collect();
        return Ok(wanted.into_iter().map(places).collect());
    }
    match infos {
        [_] if !columns.is_empty() => Ok(vec![(0..columns.len()).collect()]),
        _ => {
            let problem = match columns.first() {
                Some(column) => format!("column {:?} is not known", shorten(&column.name, 64)),
                None => "there are no columns".to_owned(),
            };
            Err(refusal(model, problem, &all))
        }
    }
}

/// The names that the columns of an input go by: those of its features, or its own.
fn features_of<'a>(model: &'a ModelVersion, info: &'a TensorInfo) -> Vec<&'a str> {
    let manifest = model.manifest.as_ref();
    match manifest.and_then(|manifest| manifest.inputs.get(&info.name)) {
        Some(features) => features.names(),
        None => vec![info.name.as_str()],
    }
}

fn refusal(model: &ModelVersion, problem: String, expected: &[&str]) -> InferError {
    InferError::invalid(format!(
        "{problem}; the columns of {} are {}",
        model.name,
        shorten(&expected.join(", "), 1000)
    ))
}

/// The shape of an input that is made of these columns.
fn bound_shape(
    info: &TensorInfo,
    columns: &[Column],
    places: &[usize],
) -> Result<Shape, InferError> {
    let (Some(first), rank) = (places.first(), info.shape.len()) else {
        return Err(InferError::internal("an input is made of no columns"));
    };
    let first = &columns[*first];
    if places.len() == 1 {
        return Ok(match (first.shape.as_slice(), rank) {
            ([rows], 2) => Shape::from_slice(&[*rows, 1]),
            ([rows, 1], 1) => Shape::from_slice(&[*rows]),
            (shape, _) => Shape::from_slice(shape),
        });
    }
    if rank != 2 {
        return Err(InferError::invalid(format!(
            "input {:?}: expected one column for the shape {}, found {}",
            info.name,
            shape_text(&info.shape),
            places.len()
        )));
    }
    let mut width = 0;
    for place in places {
        let column = &columns[*place];
        if column.rows() != first.rows() {
            return Err(InferError::invalid(format!(
                "column {:?}: expected {} rows as in column {:?}, found {}",
                shorten(&column.name, 64),
                first.rows(),
                shorten(&first.name, 64),
                column.rows()
            )));
        }
        width += column.width();
    }
    if let Some(Some(expected)) = info.shape.get(1)
        && *expected != width
    {
        let what = match places.len() == width {
            true => "columns",
            false => "values in each row",
        };
        return Err(InferError::invalid(format!(
            "input {:?}: expected {expected} {what}, found {width}",
            info.name
        )));
    }
    Ok(Shape::from_slice(&[first.rows(), width]))
}
