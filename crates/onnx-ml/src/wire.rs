//! Bounds what decoding a file would take, by walking its bytes without keeping anything.
//!
//! Two bytes of protobuf can stand for an empty message that takes hundreds of bytes once decoded, so
//! the size of a file says little about its size in memory. This walk knows which fields of ONNX are
//! messages and adds up what the decoder would allocate for them.

use std::mem::size_of;

use crate::proto;

use crate::error::LoadError;
use crate::limits::Limits;

/// Nested messages of an honest file: model, graph, node, attribute, tensor and a few more. The
/// decoder itself stops at 100.
const DEEPEST: usize = 32;

/// The messages of ONNX that the decoder knows, as far as they hold other messages.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Function,
    Graph,
    Node,
    Attribute,
    Tensor,
    SparseTensor,
    ValueInfo,
    Type,
    TensorType,
    Shape,
    /// Holds no further messages that the decoder knows.
    Leaf,
}

/// The message in a field, and the bytes it takes decoded, itself only. `None` when the field is
/// text, bytes or packed numbers, or unknown and so skipped.
fn message_in(parent: Message, field: u64) -> Option<(Message, usize)> {
    use Message::*;
    let entry = size_of::<proto::StringStringEntryProto>();
    Some(match (parent, field) {
        (Model, 7) => (Graph, size_of::<proto::GraphProto>()),
        (Model, 8) => (Leaf, size_of::<proto::OperatorSetIdProto>()),
        (Model, 14) | (Tensor, 13) => (Leaf, entry),
        (Model, 25) => (Function, size_of::<proto::FunctionProto>()),
        (Function, 7) => (Node, size_of::<proto::NodeProto>()),
        (Function, 9) => (Leaf, size_of::<proto::OperatorSetIdProto>()),
        (Function, 11) => (Attribute, size_of::<proto::AttributeProto>()),
        (Graph, 1) => (Node, size_of::<proto::NodeProto>()),
        (Graph, 5) | (SparseTensor, 1) | (Attribute, 5 | 10) => {
            (Tensor, size_of::<proto::TensorProto>())
        }
        (Graph, 11 | 12) => (ValueInfo, size_of::<proto::ValueInfoProto>()),
        (Graph, 15) | (Attribute, 22 | 23) => (SparseTensor, size_of::<proto::SparseTensorProto>()),
        (Node, 5) => (Attribute, size_of::<proto::AttributeProto>()),
        (Attribute, 6 | 11) => (Graph, size_of::<proto::GraphProto>()),
        (ValueInfo, 2) => (Type, size_of::<proto::TypeProto>()),
        (Type, 1) => (TensorType, size_of::<proto::TensorType>()),
        (Type, 4 | 5 | 8 | 9) => (Leaf, size_of::<proto::OtherType>()),
        (TensorType, 2) => (Shape, size_of::<proto::TensorShapeProto>()),
        (Shape, 1) => (Leaf, size_of::<proto::Dimension>()),
        (Tensor, 3) => (Leaf, size_of::<proto::Segment>()),
        _ => return None,
    })
}

/// Verifies that the bytes are well-formed protobuf and within the limits once decoded.
pub(crate) fn check(bytes: &[u8], limits: &Limits) -> Result<(), LoadError> {
    let file_bytes = bytes.len() as u64;
    if file_bytes > limits.file_bytes {
        return Err(LoadError::TooLarge {
            what: "the file's size in bytes",
            found: file_bytes,
            limit: limits.file_bytes,
        });
    }
    // Packed one-byte numbers grow eightfold, short strings sixteenfold; the fixed part is room for
    // some 80,000 attributes.
    let limit = limits.decoded_bytes.min((64 << 20) + 24 * file_bytes);
    let mut walk = Walk { decoded: 0, limit };
    walk.message(Message::Model, bytes, 0)
}

struct Walk {
    decoded: u64,
    limit: u64,
}

impl Walk {
    fn add(&mut self, bytes: usize) -> Result<(), LoadError> {
        self.decoded = self.decoded.saturating_add(bytes as u64);
        if self.decoded > self.limit {
            return Err(LoadError::TooLarge {
                what: "the file's size decoded, in bytes",
                found: self.decoded,
                limit: self.limit,
            });
        }
        Ok(())
    }

    fn message(&mut self, kind: Message, bytes: &[u8], depth: usize) -> Result<(), LoadError> {
        if depth > DEEPEST {
            return Err(malformed(format!(
                "messages are nested more than {DEEPEST} deep"
            )));
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let key = varint(&mut rest)?;
            let field = key >> 3;
            match key & 7 {
                0 => {
                    varint(&mut rest)?;
                    self.add(8)?;
                }
                1 => {
                    take(&mut rest, 8)?;
                    self.add(8)?;
                }
                5 => {
                    take(&mut rest, 4)?;
                    self.add(4)?;
                }
                2 => {
                    let length = varint(&mut rest)?;
                    let payload = take(&mut rest, length)?;
                    match message_in(kind, field) {
                        Some((child, own_bytes)) => {
                            self.add(own_bytes)?;
                            self.message(child, payload, depth + 1)?;
                        }
                        None => self.add(payload.len().saturating_mul(8).saturating_add(32))?,
                    }
                }
                other => {
                    return Err(malformed(format!("field {field} has wire type {other}")));
                }
            }
        }
        Ok(())
    }
}

/// Reads a number of one to ten bytes.
fn varint(rest: &mut &[u8]) -> Result<u64, LoadError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let Some((byte, after)) = rest.split_first() else {
            return Err(malformed("it ends in the middle of a number".to_string()));
        };
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(malformed("a number has more than ten bytes".to_string()))
}

fn take<'a>(rest: &mut &'a [u8], length: u64) -> Result<&'a [u8], LoadError> {
    let split = usize::try_from(length)
        .ok()
        .and_then(|length| rest.split_at_checked(length));
    match split {
        Some((taken, after)) => {
            *rest = after;
            Ok(taken)
        }
        None => Err(malformed(format!(
            "it ends early: a field of {length} bytes, {} bytes left",
            rest.len()
        ))),
    }
}

fn malformed(reason: String) -> LoadError {
    LoadError::Malformed { reason }
}
