//! Which operators a file may use, and who builds them.

use crate::error::LoadError;
use crate::graph::node_name;
use crate::operator::Build;
use crate::ops;
use crate::proto::NodeProto;

/// The domain of the classical machine learning operators.
pub(crate) const ML: &str = "ai.onnx.ml";

/// A domain and the operators of one file of `ops`: names with their builders.
type Family = (&'static str, &'static [(&'static str, Build)]);

/// Every operator.
const FAMILIES: &[Family] = &[
    ("", ops::shape::OPERATORS),
    ("", ops::joining::OPERATORS),
    ("", ops::arithmetic::OPERATORS),
    ("", ops::bitwise::OPERATORS),
    ("", ops::comparison::OPERATORS),
    ("", ops::activation::OPERATORS),
    ("", ops::cast::OPERATORS),
    ("", ops::reduce::OPERATORS),
    ("", ops::normalization::OPERATORS),
    ("", ops::dense::OPERATORS),
    ("", ops::indexing::OPERATORS),
    ("", ops::scatter::OPERATORS),
    ("", ops::selection::OPERATORS),
    ("", ops::constants::OPERATORS),
    ("", ops::strings::OPERATORS),
    ("", ops::tfidf::OPERATORS),
    ("", ops::regex_match::OPERATORS),
    ("", ops::control::OPERATORS),
    (ML, ops::linear::OPERATORS),
    (ML, ops::svm::OPERATORS),
    (ML, ops::label_encoder::OPERATORS),
    (ML, ops::one_hot_encoder::OPERATORS),
    (ML, ops::scaler::OPERATORS),
    (ML, ops::imputer::OPERATORS),
    (ML, ops::feature_vectorizer::OPERATORS),
    (ML, ops::zip_map::OPERATORS),
    (ML, ops::tree_ensemble::OPERATORS),
    ("com.microsoft", ops::distance::OPERATORS),
    #[cfg(feature = "tract")]
    ("", ops::tract::OPERATORS),
    ("com.microsoft", ops::tokenizer::OPERATORS),
];

/// The builder of an operator.
pub(crate) fn find(domain: &str, operator: &str) -> Option<Build> {
    let domain = if domain == "ai.onnx" { "" } else { domain };
    for (family_domain, operators) in FAMILIES {
        if *family_domain == domain
            && let Some((_, build)) = operators.iter().find(|(name, _)| *name == operator)
        {
            return Some(*build);
        }
    }
    None
}

/// Whether files may use `operator` of `domain` (`""` or `"ai.onnx"`, `"ai.onnx.ml"` or
/// `"com.microsoft"`).
pub fn is_supported(domain: &str, operator: &str) -> bool {
    find(domain, operator).is_some()
}

/// Every supported operator as domain and name, in the order of the tables.
pub fn supported() -> impl Iterator<Item = (&'static str, &'static str)> {
    FAMILIES
        .iter()
        .flat_map(|(domain, operators)| operators.iter().map(move |(name, _)| (*domain, *name)))
}

/// The refusal of a node whose operator is not there.
pub(crate) fn unsupported(node: &NodeProto) -> LoadError {
    let operator = match node.domain.as_str() {
        "" | "ai.onnx" => node.op_type.clone(),
        domain => format!("{domain}.{}", node.op_type),
    };
    let reason = match (node.domain.as_str(), node.op_type.as_str()) {
        (ML, "CastMap" | "DictVectorizer") => {
            ": its input is a map, and only tensors are supported; export the model with one column \
             per key"
        }
        (
            "" | "ai.onnx",
            "RandomNormal" | "RandomNormalLike" | "RandomUniform" | "RandomUniformLike"
            | "Multinomial" | "Bernoulli",
        ) => ": the same row must always give the same result, and this one draws random numbers",
        _ => "",
    };
    LoadError::UnsupportedOperator {
        node: node_name(node).to_string(),
        operator,
        reason: reason.to_string(),
    }
}
