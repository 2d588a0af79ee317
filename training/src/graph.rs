//! Writes fitted linear models as one ONNX graph that takes raw columns.
//!
//! Every raw column is an input `[N, 1]` under its own name: text as string, whole numbers as
//! int64, other numbers as float32 with NaN for a missing value. Imputation, standardisation and
//! one-hot encoding are nodes of the graph, so any ONNX runtime can run the file on raw data:
//!
//! ```text
//! text columns    -> Concat -> OneHotEncoder -> Flatten --------------+
//! numeric columns -> Cast -> Concat -> Imputer -> Scaler -> Concat -> Gemm -> log_odds
//!                                                  log_odds -> Sigmoid -> probabilities
//! ```
//!
//! The one encoder knows the categories of all text columns; the weight of a category in a column
//! where it never occurred in training is 0, as is the weight of a category never seen anywhere.

use crate::encode::{Encoder, Encoding, NumericEncoding};
use crate::fit::LinearModel;
use crate::onnx::{ElementType, GraphBuilder, float, floats, int, strings};

/// Name of the output `[N, models]` with the raw scores.
pub const LOG_ODDS: &str = "log_odds";
/// Name of the last output, with the probabilities.
pub const PROBABILITIES: &str = "probabilities";

/// Whether an input of this name would clash with a value inside an exported graph.
pub fn is_reserved(name: &str) -> bool {
    const VALUES: [&str; 14] = [
        "texts",
        "one_hot_by_column",
        "one_hot",
        "numbers",
        "imputed",
        "standardised",
        "design",
        "weights",
        "intercepts",
        "positive",
        "negative",
        "one",
        LOG_ODDS,
        PROBABILITIES,
    ];
    VALUES.contains(&name) || name.ends_with("_float")
}

/// What the columns of `probabilities` are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// One model: `[N, 2]`, the probabilities of "no" and "yes".
    Binary,
    /// Several models: `[N, models]`, the probability of each, which need not sum to 1.
    Affinity,
}

/// The bytes of the model file for `models`, all fitted on design matrices of `encoder`.
pub fn export(
    name: &str,
    doc: &str,
    encoder: &Encoder,
    models: &[LinearModel],
    task: Task,
) -> Vec<u8> {
    let mut builder = GraphBuilder::new(name, doc);
    let weights = GemmWeights::new(encoder, models);

    add_inputs(&mut builder, encoder);
    let mut parts = Vec::new();
    if text_columns(encoder).next().is_some() {
        add_text_encoding(&mut builder, encoder, &weights.categories);
        parts.push("one_hot");
    }
    if numeric_columns(encoder).next().is_some() {
        add_numeric_encoding(&mut builder, encoder);
        parts.push("standardised");
    }

    let columns = models.len() as i64;
    let rows = weights.rows as i64;
    builder.node("Concat", &parts, "design", vec![int("axis", 1)]);
    builder.constant("weights", &[rows, columns], &weights.values);
    let intercepts: Vec<f32> = models.iter().map(|model| model.intercept as f32).collect();
    builder.constant("intercepts", &[columns], &intercepts);
    builder.node(
        "Gemm",
        &["design", "weights", "intercepts"],
        LOG_ODDS,
        vec![],
    );
    match task {
        Task::Affinity => builder.node("Sigmoid", &[LOG_ODDS], PROBABILITIES, vec![]),
        Task::Binary => {
            builder.node("Sigmoid", &[LOG_ODDS], "positive", vec![]);
            builder.constant("one", &[1], &[1.0]);
            builder.node("Sub", &["one", "positive"], "negative", vec![]);
            let both = ["negative", "positive"];
            builder.node("Concat", &both, PROBABILITIES, vec![int("axis", 1)]);
        }
    }
    builder.output(LOG_ODDS, columns);
    let probabilities = if task == Task::Binary { 2 } else { columns };
    builder.output(PROBABILITIES, probabilities);
    builder.finish()
}

fn add_inputs(builder: &mut GraphBuilder, encoder: &Encoder) {
    for (name, encoding) in &encoder.columns {
        let element_type = match encoding {
            Encoding::Categories { .. } => ElementType::Text,
            Encoding::Numeric(numeric) if numeric.integer => ElementType::Int64,
            Encoding::Numeric(_) => ElementType::Float32,
        };
        builder.input(name, element_type);
    }
}

/// Text columns to `one_hot` of shape `[N, text columns * categories]`.
fn add_text_encoding(builder: &mut GraphBuilder, encoder: &Encoder, categories: &[String]) {
    let names: Vec<&str> = text_columns(encoder).map(|(name, _)| name).collect();
    builder.node("Concat", &names, "texts", vec![int("axis", 1)]);
    // `zeros`: a category that is not in the list is no error but a row of zeros.
    let attributes = vec![strings("cats_strings", categories), int("zeros", 1)];
    builder.ml_node("OneHotEncoder", &["texts"], "one_hot_by_column", attributes);
    // Flatten keeps the batch dimension open, where Reshape would need it in its shape input.
    builder.node(
        "Flatten",
        &["one_hot_by_column"],
        "one_hot",
        vec![int("axis", 1)],
    );
}

/// Numeric columns to `standardised` of shape `[N, numeric columns]`.
fn add_numeric_encoding(builder: &mut GraphBuilder, encoder: &Encoder) {
    let mut float_names = Vec::new();
    let mut medians = Vec::new();
    let mut offsets = Vec::new();
    let mut scales = Vec::new();
    for (name, numeric) in numeric_columns(encoder) {
        if numeric.integer {
            let float_name = format!("{name}_float");
            // 1 is float32 in ONNX's list of element types.
            builder.node("Cast", &[name], &float_name, vec![int("to", 1)]);
            float_names.push(float_name);
        } else {
            float_names.push(name.to_owned());
        }
        medians.push(numeric.median as f32);
        offsets.push(numeric.mean as f32);
        scales.push((1.0 / numeric.deviation) as f32);
    }
    let float_names: Vec<&str> = float_names.iter().map(String::as_str).collect();
    builder.node("Concat", &float_names, "numbers", vec![int("axis", 1)]);
    let attributes = vec![
        floats("imputed_value_floats", medians),
        float("replaced_value_float", f32::NAN),
    ];
    builder.ml_node("Imputer", &["numbers"], "imputed", attributes);
    let attributes = vec![floats("offset", offsets), floats("scale", scales)];
    builder.ml_node("Scaler", &["imputed"], "standardised", attributes);
}

/// The weight matrix over the graph's design: text columns times all categories, then numbers.
struct GemmWeights {
    /// Sorted categories of all text columns together.
    categories: Vec<String>,
    rows: usize,
    /// Row-major, one column per model.
    values: Vec<f32>,
}

impl GemmWeights {
    fn new(encoder: &Encoder, models: &[LinearModel]) -> GemmWeights {
        let mut categories = Vec::new();
        for (_, own_categories) in text_columns(encoder) {
            categories.extend_from_slice(own_categories);
        }
        categories.sort();
        categories.dedup();

        let mut values = Vec::new();
        for (name, own_categories) in text_columns(encoder) {
            let start = encoder.range_of(name).start;
            for category in &categories {
                let own = own_categories.binary_search(category).ok();
                for model in models {
                    let weight = own.map_or(0.0, |own| model.weights[start + own]);
                    values.push(weight as f32);
                }
            }
        }
        for (name, _) in numeric_columns(encoder) {
            let column = encoder.range_of(name).start;
            for model in models {
                values.push(model.weights[column] as f32);
            }
        }
        GemmWeights {
            rows: values.len() / models.len().max(1),
            categories,
            values,
        }
    }
}

fn text_columns(encoder: &Encoder) -> impl Iterator<Item = (&str, &[String])> {
    encoder
        .columns
        .iter()
        .filter_map(|(name, encoding)| match encoding {
            Encoding::Categories { categories, .. } => Some((name.as_str(), categories.as_slice())),
            Encoding::Numeric(_) => None,
        })
}

fn numeric_columns(encoder: &Encoder) -> impl Iterator<Item = (&str, &NumericEncoding)> {
    encoder
        .columns
        .iter()
        .filter_map(|(name, encoding)| match encoding {
            Encoding::Numeric(numeric) => Some((name.as_str(), numeric)),
            Encoding::Categories { .. } => None,
        })
}
