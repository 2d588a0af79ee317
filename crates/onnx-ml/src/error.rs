//! The two ways this crate says no: a file that cannot be loaded, a call that cannot be run.
//!
//! Every message carries what was wrong, where, and what was expected, so that it can be shown as it
//! is to the person who exported the model or wrote the request.

use thiserror::Error;

use crate::tensor::DataType;

/// Why a file is refused. Nothing is left behind; the caller may try another file at once.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file, or what it would become in memory, is over a bound of [`crate::Limits`].
    #[error("{what} is {found}, the limit is {limit}: raise the limit if the file is trusted")]
    TooLarge {
        /// What was measured, with its unit.
        what: &'static str,
        /// What the file holds.
        found: u64,
        /// The bound.
        limit: u64,
    },
    /// The bytes are not a complete ONNX model.
    #[error("not a valid ONNX file: {reason}")]
    Malformed {
        /// What is missing or broken.
        reason: String,
    },
    /// A graph input, output or initializer cannot be used.
    #[error("{role} `{name}`: {reason}")]
    Value {
        /// `graph input`, `graph output`, `initializer` or `operator set`.
        role: &'static str,
        /// Its name in the file.
        name: String,
        /// What was found and what was expected.
        reason: String,
    },
    /// The file needs an operator that this crate does not run.
    #[error("node `{node}`: operator {operator} is not supported{reason}")]
    UnsupportedOperator {
        /// The node's name, or the name of its first output when it has none.
        node: String,
        /// The operator, with its domain when that is not the default one.
        operator: String,
        /// Empty, or more about it, starting with a separator.
        reason: String,
    },
    /// A node of a supported operator is wrong in itself.
    #[error("node `{node}` ({operator}): {reason}")]
    Node {
        /// The node's name, or the name of its first output when it has none.
        node: String,
        /// The operator.
        operator: String,
        /// What was found and what was expected.
        reason: String,
    },
    /// A defect in this crate met this file. The process is unharmed; the file cannot be used.
    #[error("the model cannot be prepared for running (a defect in onnx-ml): {reason}")]
    Defect {
        /// The panic's message.
        reason: String,
    },
}

/// Why a call of [`crate::Model::run`] gave no result. The model stays usable.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// Not one tensor per model input.
    #[error("{found} input tensors given, the model takes {expected}")]
    InputCount {
        /// How many inputs the model has.
        expected: usize,
        /// How many were given.
        found: usize,
    },
    /// A tensor has another element type than the model input.
    #[error("input `{name}`: element type is {found}, expected {expected}")]
    InputType {
        /// The input's name.
        name: String,
        /// What the model declares.
        expected: DataType,
        /// What was given.
        found: DataType,
    },
    /// A tensor's shape does not fit the model input.
    #[error("input `{name}`: shape is {found:?}, expected {expected}")]
    InputShape {
        /// The input's name.
        name: String,
        /// What the model declares, with the sizes that earlier inputs have fixed.
        expected: String,
        /// What was given.
        found: Vec<usize>,
    },
    /// The call would need more memory than [`crate::Limits`] allows.
    #[error(
        "running these rows would take {needed_bytes} bytes, the limit is {limit_bytes}: send fewer \
         rows per call"
    )]
    TooLarge {
        /// Size of the tensors of the run together.
        needed_bytes: u64,
        /// The bound.
        limit_bytes: u64,
    },
    /// An operator refused its input (an unknown category without `zeros`, a string that is no
    /// number, …).
    #[error("node `{node}` ({operator}): {reason}")]
    Compute {
        /// The node's name, or the name of its first output when it has none.
        node: String,
        /// The operator.
        operator: String,
        /// What was found and what was expected.
        reason: String,
    },
    /// A defect in this crate met this input.
    #[error("the model could not be evaluated (a defect in onnx-ml): {reason}")]
    Defect {
        /// The panic's message.
        reason: String,
    },
}
