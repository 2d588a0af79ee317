//! [`Versions`]: which rules the operators of a file follow.

use std::ops::RangeInclusive;

use crate::error::LoadError;
use crate::operators::ML;
use crate::proto::{ModelProto, NodeProto};

/// Versions of the default operator set. Before 7 the rules of broadcasting were others.
const DEFAULT_VERSIONS: RangeInclusive<i64> = 7..=26;
/// Versions of ai.onnx.ml.
const ML_VERSIONS: RangeInclusive<i64> = 1..=5;
/// The versions for files that use an operator set without importing it, as some exporters do for
/// files of ai.onnx.ml operators alone.
const CURRENT_DEFAULT: i64 = 21;
const CURRENT_ML: i64 = 3;

/// The versions of the operator sets that a file is written for.
pub(super) struct Versions {
    default: i64,
    ml: i64,
}

impl Versions {
    /// Verifies that the operator sets are of versions whose rules this crate knows. Sets of other
    /// domains may be imported as long as no node uses them.
    pub fn imported_by(model: &ModelProto) -> Result<Versions, LoadError> {
        let mut versions = Versions {
            default: CURRENT_DEFAULT,
            ml: CURRENT_ML,
        };
        let only_identity = only_identity(model);
        for import in &model.opset_import {
            let (known, version) = match import.domain.as_str() {
                "" | "ai.onnx" => (DEFAULT_VERSIONS, &mut versions.default),
                ML => (ML_VERSIONS, &mut versions.ml),
                _ => continue,
            };
            if import.version >= 1 && *known.start() > import.version && only_identity {
                continue;
            }
            if !known.contains(&import.version) {
                return Err(LoadError::Value {
                    role: "operator set",
                    name: import.domain.clone(),
                    reason: format!(
                        "version {} is not supported, expected {} to {}",
                        import.version,
                        known.start(),
                        known.end()
                    ),
                });
            }
            *version = import.version;
        }
        Ok(versions)
    }

    /// The version whose rules the node follows: that of the function it comes from, or of the file.
    pub fn of_node(&self, node: &NodeProto) -> Result<i64, String> {
        let (known, of_file) = if node.domain == ML {
            (ML_VERSIONS, self.ml)
        } else {
            (DEFAULT_VERSIONS, self.default)
        };
        match node.function_version {
            0 => Ok(of_file),
            own if known.contains(&own) => Ok(own),
            own => Err(format!(
                "version {own} of its operator set is not supported"
            )),
        }
    }
}

/// Whether the graph uses nothing of the default operator set but `Identity`, which has always been
/// the same. Exporters import version 1 for such graphs.
fn only_identity(model: &ModelProto) -> bool {
    let mut nodes = model.graph.iter().flat_map(|graph| &graph.node);
    nodes.all(|node| !matches!(node.domain.as_str(), "" | "ai.onnx") || node.op_type == "Identity")
}
