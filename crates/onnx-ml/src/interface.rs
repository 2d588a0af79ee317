//! What a caller must know of a model: the inputs it takes and the outputs it gives.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};

use compact_str::CompactString;

use crate::error::LoadError;
use crate::node::labels_of;
use crate::operators::ML;
use crate::proto::{
    DimensionValue, GraphProto, NodeProto, TensorShapeProto, TypeValue, ValueInfoProto,
};
use crate::tensor::{DataType, Shape, Tensor};

/// The largest product of an input's fixed dimensions.
const MOST_FIXED_ELEMENTS: usize = 1 << 32;

/// What a caller must know about one input or output of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Exactly as in the file.
    pub name: String,
    /// Element type.
    pub data_type: DataType,
    /// One entry per dimension; `None` is any size, as of the number of rows. An input for which
    /// the file declares no dimensions takes tensors of any shape and is shown as `[None, None]`, as
    /// is an output whose dimensions neither the file nor a trial run tells.
    pub shape: Vec<Option<usize>>,
    /// The classes that the columns stand for, where the file says so (a ZipMap output).
    pub labels: Option<Labels>,
}

/// Names of classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Labels {
    /// As numbers.
    Integers(Vec<i64>),
    /// As text.
    Strings(Vec<String>),
}

/// One dimension of a model input.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Dimension {
    /// Exactly this size.
    Fixed(usize),
    /// Any size; the same number has the same size in every input.
    Named(usize),
    /// Any size.
    Any,
}

/// The model's own inputs: initializers that the file also lists as inputs are constants.
#[derive(Debug)]
pub(crate) struct Inputs {
    pub infos: Vec<TensorInfo>,
    /// For each input its dimensions, or none if any shape fits.
    dimensions: Vec<Option<Vec<Dimension>>>,
    /// How many names of dimensions there are.
    names: usize,
}

/// Why a tensor does not fit an input: the input and the dimensions it would have to have.
pub(crate) struct Misfit {
    pub input: usize,
    pub expected: String,
}

impl Inputs {
    /// Reads the inputs of the file's graph.
    pub fn read(graph: &GraphProto) -> Result<Inputs, LoadError> {
        let constants: HashSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        let mut inputs = Inputs {
            infos: Vec::new(),
            dimensions: Vec::new(),
            names: 0,
        };
        for input in &graph.input {
            // Up to version 3 of the format every initializer had to be listed as an input.
            if constants.contains(input.name.as_str()) {
                continue;
            }
            let refuse = |reason: &str| LoadError::Value {
                role: "graph input",
                name: input.name.clone(),
                reason: reason.to_string(),
            };
            let (data_type, shape) = tensor_type(input).map_err(|reason| refuse(&reason))?;
            let mut dimensions = match shape {
                Some(shape) => Some(read_dimensions(shape, &mut numbers).map_err(|r| refuse(&r))?),
                None => None,
            };
            let shape = match &dimensions {
                Some(dimensions) => dimensions.iter().map(Dimension::fixed).collect(),
                None => vec![None, None],
            };
            // As ONNX Runtime has it, a single number may come in any shape.
            if shape.is_empty() {
                dimensions = None;
            }
            inputs.infos.push(TensorInfo {
                name: input.name.clone(),
                data_type,
                shape,
                labels: None,
            });
            inputs.dimensions.push(dimensions);
        }
        inputs.names = numbers.len();
        Ok(inputs)
    }

    /// Verifies the shapes of the tensors of one run.
    pub fn check<T: Borrow<Tensor>>(&self, tensors: &[T]) -> Result<(), Misfit> {
        let mut sizes: Vec<Option<usize>> = vec![None; self.names];
        let tensors = tensors.iter().map(Borrow::borrow);
        for (input, (tensor, dimensions)) in tensors.zip(&self.dimensions).enumerate() {
            let Some(dimensions) = dimensions else {
                continue;
            };
            let mut fits = tensor.rank() == dimensions.len();
            for (size, dimension) in tensor.shape().iter().zip(dimensions) {
                fits &= match dimension {
                    Dimension::Fixed(expected) => size == expected,
                    Dimension::Named(number) => *sizes[*number].get_or_insert(*size) == *size,
                    Dimension::Any => true,
                };
            }
            if !fits {
                let each = dimensions.iter().map(|dimension| match dimension {
                    Dimension::Fixed(size) => size.to_string(),
                    Dimension::Named(number) => match sizes[*number] {
                        Some(size) if input > 0 => size.to_string(),
                        _ => "any".to_string(),
                    },
                    Dimension::Any => "any".to_string(),
                });
                let expected = format!("[{}]", each.collect::<Vec<_>>().join(", "));
                return Err(Misfit { input, expected });
            }
        }
        Ok(())
    }

    /// Tensors of zeros that fit, with `rows` rows: what a model is tried on when
    /// it is loaded. `None` when they would take more than `limit_bytes`.
    pub fn sample(&self, rows: usize, limit_bytes: u64) -> Option<Vec<Tensor>> {
        let mut tensors = Vec::new();
        let mut left = limit_bytes;
        for (info, dimensions) in self.infos.iter().zip(&self.dimensions) {
            let mut shape = Vec::new();
            for (axis, size) in info.shape.iter().enumerate() {
                shape.push(size.unwrap_or(if axis == 0 { rows } else { 1 }));
            }
            if dimensions.is_none() && !shape.is_empty() {
                shape = vec![rows, 1];
            }
            let elements = shape
                .iter()
                .try_fold(1usize, |n, size| n.checked_mul(*size))?;
            let bytes = (elements as u64).checked_mul(info.data_type.size() as u64)?;
            left = left.checked_sub(bytes)?;
            // Text that is a number too, for models that read numbers from text.
            let tensor = match info.data_type {
                DataType::String => {
                    Tensor::new(&shape, vec![CompactString::const_new("0"); elements])
                }
                other => Tensor::zeros(other, &shape),
            };
            tensors.push(tensor.ok()?);
        }
        Some(tensors)
    }
}

impl Dimension {
    fn fixed(&self) -> Option<usize> {
        match self {
            Dimension::Fixed(size) => Some(*size),
            Dimension::Named(_) | Dimension::Any => None,
        }
    }
}

fn read_dimensions<'a>(
    shape: &'a TensorShapeProto,
    numbers: &mut HashMap<&'a str, usize>,
) -> Result<Vec<Dimension>, String> {
    if shape.dim.len() > 8 {
        let found = shape.dim.len();
        return Err(format!(
            "it has {found} dimensions, at most 8 are supported"
        ));
    }
    let mut dimensions = Vec::new();
    let mut product = 1usize;
    for dimension in &shape.dim {
        dimensions.push(match &dimension.value {
            Some(DimensionValue::DimValue(size)) if *size >= 0 => {
                let size = usize::try_from(*size).unwrap_or(usize::MAX);
                product = product.saturating_mul(size.max(1));
                Dimension::Fixed(size)
            }
            // Empty names and the placeholder `?` name nothing.
            Some(DimensionValue::DimParam(name)) if !name.is_empty() && name != "?" => {
                let next = numbers.len();
                Dimension::Named(*numbers.entry(name).or_insert(next))
            }
            _ => Dimension::Any,
        });
    }
    if product > MOST_FIXED_ELEMENTS {
        return Err("its fixed dimensions are too large".to_string());
    }
    Ok(dimensions)
}

/// Element type and shape of a value that is a tensor.
fn tensor_type(value: &ValueInfoProto) -> Result<(DataType, Option<&TensorShapeProto>), String> {
    let found = match value.r#type.as_ref().and_then(|t| t.value.as_ref()) {
        Some(TypeValue::Tensor(tensor)) => {
            let data_type = DataType::from_onnx(tensor.elem_type)?;
            return Ok((data_type, tensor.shape.as_ref()));
        }
        Some(TypeValue::Sequence(_)) => "a sequence",
        Some(TypeValue::Map(_)) => "a map",
        Some(TypeValue::SparseTensor(_)) => "a sparse tensor",
        Some(TypeValue::Optional(_)) => "an optional value",
        None => "a value without type",
    };
    Err(format!(
        "it is {found}, and only tensors are supported; export the model with tensors (for a map, \
         one column per key)"
    ))
}

/// Element type and shape of an inner graph's output, where the file says what they are; unknown
/// sizes as 0.
pub(crate) fn declared(value: &ValueInfoProto) -> Option<(DataType, Shape)> {
    let (data_type, shape) = tensor_type(value).ok()?;
    let sizes = shape?.dim.iter().map(|dimension| match dimension.value {
        Some(DimensionValue::DimValue(size)) => usize::try_from(size).unwrap_or(0),
        _ => 0,
    });
    Some((data_type, sizes.collect()))
}

/// The outputs as the file declares them. Element type and rank are those of a sample run when there
/// is one: what the operators really give.
pub(crate) fn outputs(
    graph: &GraphProto,
    samples: Option<(&[Tensor], &[Tensor])>,
) -> Result<Vec<TensorInfo>, LoadError> {
    let mut infos: Vec<TensorInfo> = Vec::new();
    let mut names: HashSet<&str> = HashSet::new();
    let mut maps: HashMap<&str, &NodeProto> = HashMap::new();
    for node in &graph.node {
        if node.domain == ML && node.op_type == "ZipMap" {
            maps.extend(node.output.iter().map(|name| (name.as_str(), node)));
        }
    }
    for (place, output) in graph.output.iter().enumerate() {
        let refuse = |reason: String| LoadError::Value {
            role: "graph output",
            name: output.name.clone(),
            reason,
        };
        if !names.insert(&output.name) {
            return Err(refuse("the name is used twice".to_string()));
        }
        let labels = maps
            .get(output.name.as_str())
            .and_then(|node| labels_of(node, "classlabels_int64s", "classlabels_strings"));
        let sample = samples.and_then(|(one, more)| Some((one.get(place)?, more.get(place)?)));
        let declared = tensor_type(output);
        let (data_type, declared_shape) = match (&declared, sample, &labels) {
            (Ok((_, shape)), Some((one, _)), _) => (one.data_type(), *shape),
            (Ok((data_type, shape)), None, _) => (*data_type, *shape),
            (Err(_), Some((one, _)), _) => (one.data_type(), None),
            (Err(_), None, Some(_)) => (DataType::F32, None),
            (Err(reason), None, None) => return Err(refuse(reason.clone())),
        };
        let declared_shape = declared_shape.map(|shape| {
            let sizes = shape.dim.iter().map(|dimension| match dimension.value {
                Some(DimensionValue::DimValue(size)) => usize::try_from(size).ok(),
                _ => None,
            });
            sizes.collect::<Vec<_>>()
        });
        let seen_shape = sample.map(|(one, more)| {
            let pairs = one.shape().iter().zip(more.shape());
            let sizes = pairs.map(|(one, more)| (one == more).then_some(*one));
            sizes.collect::<Vec<_>>()
        });
        let shape = match (declared_shape, seen_shape) {
            // Exporters declare one row where there are as many as in the input: what is seen counts.
            (Some(declared), Some(seen)) if declared.len() == seen.len() => {
                let pairs = declared.into_iter().zip(seen);
                pairs
                    .map(|(declared, seen)| declared.filter(|_| declared == seen))
                    .collect()
            }
            (_, Some(seen)) => seen,
            (Some(declared), None) => declared,
            (None, None) => vec![None, labels.as_ref().map(Labels::len)],
        };
        infos.push(TensorInfo {
            name: output.name.clone(),
            data_type,
            shape,
            labels,
        });
    }
    if infos.is_empty() {
        return Err(LoadError::Malformed {
            reason: "the graph has no output".to_string(),
        });
    }
    Ok(infos)
}

impl Labels {
    /// The number of classes.
    pub fn len(&self) -> usize {
        match self {
            Labels::Integers(labels) => labels.len(),
            Labels::Strings(labels) => labels.len(),
        }
    }

    /// Whether there is no class.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
