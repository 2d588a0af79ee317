//! Bounds, after the analysis, what a run would take.

use tract_onnx::prelude::{Symbol, TypedModel};
use tract_onnx::tract_hir::internal::{SymbolValues, TDim};

use crate::error::LoadError;
use crate::limits::Limits;

/// Bytes of the largest tensor of a run in which every symbol is one. Refuses graphs whose tensors
/// are over the limit even so, grow with the square of the number of rows, or have sizes that only
/// the data decides; for all others, bytes times the sizes of the symbols bounds any run.
pub(crate) fn memory(
    model: &TypedModel,
    symbols: &[Symbol],
    limits: &Limits,
) -> Result<u64, LoadError> {
    let mut largest = 0;
    for node in model.nodes() {
        for output in &node.outputs {
            let element_bytes = output.fact.datum_type.size_of().max(1) as u64;
            let volume: TDim = output.fact.shape.volume();
            let refuse = |reason: String| LoadError::Node {
                node: node.name.clone(),
                operator: node.op.name().to_string(),
                reason,
            };
            let Some(elements) = elements(&volume, symbols, None) else {
                return Err(refuse(format!(
                    "the size of its output, {volume}, depends on more than the sizes of the inputs"
                )));
            };
            let bytes = elements.saturating_mul(element_bytes);
            if bytes > limits.tensor_bytes {
                return Err(refuse(format!(
                    "its output takes {bytes} bytes for one row, the limit is {}",
                    limits.tensor_bytes
                )));
            }
            for grown in symbols {
                let at_thousand = self::elements(&volume, symbols, Some(grown));
                if at_thousand.is_none_or(|n| n > elements.max(1).saturating_mul(1000)) {
                    return Err(refuse(format!(
                        "the size of its output, {volume}, grows faster than the number of rows"
                    )));
                }
            }
            largest = largest.max(bytes);
        }
    }
    Ok(largest)
}

/// The value of `volume` with every symbol 1, except `grown`, which is 1000.
fn elements(volume: &TDim, symbols: &[Symbol], grown: Option<&Symbol>) -> Option<u64> {
    let mut values = SymbolValues::default();
    for symbol in symbols {
        values.set(symbol, if grown == Some(symbol) { 1000 } else { 1 });
    }
    volume
        .eval(&values)
        .to_i64()
        .ok()
        .map(|value| u64::try_from(value).unwrap_or(0))
}
