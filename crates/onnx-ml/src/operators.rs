//! Which operators a file may use.
//!
//! A list of what is accepted, not of what is refused: tract knows some two hundred operators, many
//! of them for images, audio and language, several of which compute sizes from data and so could not
//! be bounded before running. Each accepted operator states how large its output can get, from which
//! `check::constants` bounds what is computed at load time.

/// How the number of elements of an operator's outputs is bounded by its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Growth {
    /// At most as many as the largest input.
    NoMore,
    /// The inputs are broadcast against each other.
    Broadcast,
    /// As many as all inputs together.
    Sum,
    /// At most the product of the inputs and of the longest attribute.
    Product,
    /// A handful: a shape or a size.
    Shape,
    /// A tensor held in an attribute.
    Attribute,
    /// The values of the second input (for `ConstantOfShape` the first) say how many.
    Values,
}

/// Operators of the default ONNX domain.
const DEFAULT_DOMAIN: &[(Growth, &[&str])] = &[
    (
        Growth::NoMore,
        &[
            "Abs",
            "Acos",
            "Acosh",
            "ArgMax",
            "ArgMin",
            "Asin",
            "Asinh",
            "Atan",
            "Atanh",
            "BatchNormalization",
            "Cast",
            "Ceil",
            "Celu",
            "Clip",
            "Cos",
            "Cosh",
            "CumSum",
            "Dropout",
            "Elu",
            "Erf",
            "Exp",
            "Flatten",
            "Floor",
            "HardSigmoid",
            "HardSwish",
            "Identity",
            "IsInf",
            "IsNaN",
            "LayerNormalization",
            "LeakyRelu",
            "Log",
            "LogSoftmax",
            "LpNormalization",
            "Neg",
            "Not",
            "Reciprocal",
            "ReduceL1",
            "ReduceL2",
            "ReduceLogSum",
            "ReduceLogSumExp",
            "ReduceMax",
            "ReduceMean",
            "ReduceMin",
            "ReduceProd",
            "ReduceSum",
            "ReduceSumSquare",
            "Relu",
            "Reshape",
            "Round",
            "Selu",
            "Sigmoid",
            "Sign",
            "Sin",
            "Sinh",
            "Slice",
            "Softmax",
            "Softplus",
            "Softsign",
            "Split",
            "Sqrt",
            "Squeeze",
            "Tan",
            "Tanh",
            "ThresholdedRelu",
            "TopK",
            "Transpose",
            "Unsqueeze",
        ],
    ),
    (
        Growth::Broadcast,
        &[
            "Add",
            "And",
            "Div",
            "Equal",
            "Greater",
            "GreaterOrEqual",
            "Less",
            "LessOrEqual",
            "Max",
            "Mean",
            "Min",
            "Mod",
            "Mul",
            "Or",
            "PRelu",
            "Pow",
            "Sub",
            "Sum",
            "Where",
            "Xor",
        ],
    ),
    (Growth::Sum, &["Concat"]),
    (
        Growth::Product,
        &["Gather", "GatherElements", "GatherND", "Gemm", "MatMul"],
    ),
    (Growth::Shape, &["Shape", "Size"]),
    (Growth::Attribute, &["Constant"]),
    (
        Growth::Values,
        &["ConstantOfShape", "Expand", "OneHot", "Pad", "Tile"],
    ),
];

/// Operators of `ai.onnx.ml`.
const ML_DOMAIN: &[(Growth, &[&str])] = &[
    (
        Growth::NoMore,
        &["CategoryMapper", "Imputer", "Normalizer", "Scaler"],
    ),
    (
        Growth::Product,
        &[
            "ArrayFeatureExtractor",
            "LinearClassifier",
            "LinearRegressor",
            "OneHotEncoder",
            "TreeEnsembleClassifier",
        ],
    ),
];

/// Operators of `ai.onnx.ml` that are refused by name until they are written.
pub const NOT_YET: &[&str] = &[
    "Binarizer",
    "CastMap",
    "DictVectorizer",
    "FeatureVectorizer",
    "LabelEncoder",
    "SVMClassifier",
    "SVMRegressor",
    "TreeEnsemble",
    "TreeEnsembleRegressor",
    "ZipMap",
];

/// The domains that name the default operator set, and the one of the classical models.
pub(crate) const ML: &str = "ai.onnx.ml";

/// How the outputs of an operator are bounded; `None` when the operator is not accepted.
pub(crate) fn growth(domain: &str, operator: &str) -> Option<Growth> {
    let table = match domain {
        "" | "ai.onnx" => DEFAULT_DOMAIN,
        ML => ML_DOMAIN,
        _ => return None,
    };
    for (growth, names) in table {
        if names.contains(&operator) {
            return Some(*growth);
        }
    }
    None
}

/// Whether files may use `operator` of `domain` (`""` or `"ai.onnx"`, or `"ai.onnx.ml"`).
pub fn is_supported(domain: &str, operator: &str) -> bool {
    growth(domain, operator).is_some()
}
