//! [`Tensor`]: a shape and its elements.

use compact_str::CompactString;
use half::f16;
use smallvec::SmallVec;

/// Sizes of the dimensions, outermost first. Tabular tensors have two or three.
pub type Shape = SmallVec<[usize; 4]>;

/// The types of elements, with their numbers in the ONNX format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum DataType {
    F32 = 1,
    U8 = 2,
    I8 = 3,
    U16 = 4,
    I16 = 5,
    I32 = 6,
    I64 = 7,
    String = 8,
    Bool = 9,
    F16 = 10,
    F64 = 11,
    U32 = 12,
    U64 = 13,
}

impl DataType {
    /// Every type.
    pub const ALL: [DataType; 13] = [
        DataType::F32,
        DataType::U8,
        DataType::I8,
        DataType::U16,
        DataType::I16,
        DataType::I32,
        DataType::I64,
        DataType::String,
        DataType::Bool,
        DataType::F16,
        DataType::F64,
        DataType::U32,
        DataType::U64,
    ];

    /// The type with this number in the ONNX format.
    ///
    /// # Errors
    /// What the number stands for instead.
    pub fn from_onnx(number: i32) -> Result<DataType, String> {
        for data_type in DataType::ALL {
            if data_type as i32 == number {
                return Ok(data_type);
            }
        }
        Err(match number {
            0 => "no element type is given".to_string(),
            14 | 15 => "complex numbers are not supported".to_string(),
            16 => "bfloat16 is not supported".to_string(),
            17..=20 | 23 | 24 => "8-bit floating point is not supported".to_string(),
            21 | 22 | 25.. => format!("element type {number} (packed numbers) is not supported"),
            _ => format!("element type {number} is not one of ONNX"),
        })
    }

    /// The name in the ONNX specification: `float`, `int64`, `string`, …
    pub fn name(self) -> &'static str {
        match self {
            DataType::F32 => "float",
            DataType::U8 => "uint8",
            DataType::I8 => "int8",
            DataType::U16 => "uint16",
            DataType::I16 => "int16",
            DataType::I32 => "int32",
            DataType::I64 => "int64",
            DataType::String => "string",
            DataType::Bool => "bool",
            DataType::F16 => "float16",
            DataType::F64 => "double",
            DataType::U32 => "uint32",
            DataType::U64 => "uint64",
        }
    }

    /// Bytes of one element; for strings, of one short string.
    pub fn size(self) -> usize {
        match self {
            DataType::Bool | DataType::U8 | DataType::I8 => 1,
            DataType::U16 | DataType::I16 | DataType::F16 => 2,
            DataType::F32 | DataType::I32 | DataType::U32 => 4,
            DataType::F64 | DataType::I64 | DataType::U64 => 8,
            DataType::String => size_of::<CompactString>(),
        }
    }
}

impl std::fmt::Display for DataType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Elements in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    Bool(Vec<bool>),
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    F16(Vec<f16>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    String(Vec<CompactString>),
}

/// Runs `$body` with `$values` bound to the vector inside a [`Data`], whatever its type.
macro_rules! with_data {
    ($data:expr, $values:ident => $body:expr) => {
        match $data {
            $crate::tensor::Data::Bool($values) => $body,
            $crate::tensor::Data::U8($values) => $body,
            $crate::tensor::Data::U16($values) => $body,
            $crate::tensor::Data::U32($values) => $body,
            $crate::tensor::Data::U64($values) => $body,
            $crate::tensor::Data::I8($values) => $body,
            $crate::tensor::Data::I16($values) => $body,
            $crate::tensor::Data::I32($values) => $body,
            $crate::tensor::Data::I64($values) => $body,
            $crate::tensor::Data::F16($values) => $body,
            $crate::tensor::Data::F32($values) => $body,
            $crate::tensor::Data::F64($values) => $body,
            $crate::tensor::Data::String($values) => $body,
        }
    };
}
pub(crate) use with_data;

impl Data {
    /// The type of the elements.
    pub fn data_type(&self) -> DataType {
        match self {
            Data::Bool(_) => DataType::Bool,
            Data::U8(_) => DataType::U8,
            Data::U16(_) => DataType::U16,
            Data::U32(_) => DataType::U32,
            Data::U64(_) => DataType::U64,
            Data::I8(_) => DataType::I8,
            Data::I16(_) => DataType::I16,
            Data::I32(_) => DataType::I32,
            Data::I64(_) => DataType::I64,
            Data::F16(_) => DataType::F16,
            Data::F32(_) => DataType::F32,
            Data::F64(_) => DataType::F64,
            Data::String(_) => DataType::String,
        }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        with_data!(self, values => values.len())
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A type that elements can have.
pub trait Element: Clone + Default + PartialEq + std::fmt::Debug + Send + Sync + 'static {
    /// Its number in the ONNX format.
    const DATA_TYPE: DataType;
    /// Elements as [`Data`].
    fn into_data(values: Vec<Self>) -> Data;
    /// The elements, if they have this type.
    fn from_data(data: &Data) -> Option<&[Self]>;
    /// The elements for changing, if they have this type.
    fn from_data_mut(data: &mut Data) -> Option<&mut Vec<Self>>;
}

macro_rules! element {
    ($($variant:ident: $element:ty),* $(,)?) => {
        $(impl Element for $element {
            const DATA_TYPE: DataType = DataType::$variant;
            fn into_data(values: Vec<Self>) -> Data {
                Data::$variant(values)
            }
            fn from_data(data: &Data) -> Option<&[Self]> {
                match data {
                    Data::$variant(values) => Some(values),
                    _ => None,
                }
            }
            fn from_data_mut(data: &mut Data) -> Option<&mut Vec<Self>> {
                match data {
                    Data::$variant(values) => Some(values),
                    _ => None,
                }
            }
        })*
    };
}

element! {
    Bool: bool, U8: u8, U16: u16, U32: u32, U64: u64, I8: i8, I16: i16, I32: i32, I64: i64,
    F16: f16, F32: f32, F64: f64, String: CompactString,
}

/// A shape and its elements in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    shape: Shape,
    data: Data,
}

/// The number of elements does not fill the shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found} elements do not fill the shape {shape:?}")]
pub struct ShapeError {
    /// The shape.
    pub shape: Vec<usize>,
    /// How many elements were given.
    pub found: usize,
}

impl Tensor {
    /// A tensor of the elements in row-major order.
    ///
    /// # Errors
    /// When their number is not the product of the sizes.
    pub fn new<T: Element>(shape: &[usize], values: Vec<T>) -> Result<Tensor, ShapeError> {
        Tensor::from_data(shape, T::into_data(values))
    }

    /// As [`Tensor::new`], of elements whose type is known at run time.
    ///
    /// # Errors
    /// As [`Tensor::new`].
    pub fn from_data(shape: &[usize], data: Data) -> Result<Tensor, ShapeError> {
        let expected = shape
            .iter()
            .try_fold(1usize, |n, size| n.checked_mul(*size));
        if expected != Some(data.len()) {
            return Err(ShapeError {
                shape: shape.to_vec(),
                found: data.len(),
            });
        }
        Ok(Tensor {
            shape: Shape::from_slice(shape),
            data,
        })
    }

    /// A tensor in ONNX's own format, as in the `.pb` files of test data.
    ///
    /// # Errors
    /// What does not fit: element type, number of elements, data in another file.
    pub fn from_proto(proto: &crate::proto::TensorProto) -> Result<Tensor, String> {
        crate::tensors::read(proto)
    }

    /// A single element without dimensions.
    pub fn scalar<T: Element>(value: T) -> Tensor {
        Tensor {
            shape: Shape::new(),
            data: T::into_data(vec![value]),
        }
    }

    /// One dimension.
    pub fn vector<T: Element>(values: Vec<T>) -> Tensor {
        Tensor {
            shape: Shape::from_slice(&[values.len()]),
            data: T::into_data(values),
        }
    }

    /// Zeros, `false` or empty strings.
    ///
    /// # Errors
    /// When the product of the sizes is no `usize`.
    pub fn zeros(data_type: DataType, shape: &[usize]) -> Result<Tensor, ShapeError> {
        fn filled<T: Element>(count: usize) -> Data {
            T::into_data(vec![T::default(); count])
        }
        let count = shape
            .iter()
            .try_fold(1usize, |n, size| n.checked_mul(*size));
        let Some(count) = count else {
            return Err(ShapeError {
                shape: shape.to_vec(),
                found: 0,
            });
        };
        let data = match data_type {
            DataType::Bool => filled::<bool>(count),
            DataType::U8 => filled::<u8>(count),
            DataType::U16 => filled::<u16>(count),
            DataType::U32 => filled::<u32>(count),
            DataType::U64 => filled::<u64>(count),
            DataType::I8 => filled::<i8>(count),
            DataType::I16 => filled::<i16>(count),
            DataType::I32 => filled::<i32>(count),
            DataType::I64 => filled::<i64>(count),
            DataType::F16 => filled::<f16>(count),
            DataType::F32 => filled::<f32>(count),
            DataType::F64 => filled::<f64>(count),
            DataType::String => filled::<CompactString>(count),
        };
        Ok(Tensor {
            shape: Shape::from_slice(shape),
            data,
        })
    }

    /// The type of the elements.
    pub fn data_type(&self) -> DataType {
        self.data.data_type()
    }

    /// The sizes of the dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The elements in row-major order.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// The elements, taken out.
    pub fn into_data(self) -> Data {
        self.data
    }

    /// The elements in row-major order, if they are of type `T`.
    pub fn as_slice<T: Element>(&self) -> Option<&[T]> {
        T::from_data(&self.data)
    }

    /// The elements for changing, if they are of type `T`.
    pub fn as_mut_slice<T: Element>(&mut self) -> Option<&mut [T]> {
        T::from_data_mut(&mut self.data).map(Vec::as_mut_slice)
    }

    /// The same elements in another shape.
    ///
    /// # Errors
    /// When their number is not the product of the sizes.
    pub fn reshaped(self, shape: &[usize]) -> Result<Tensor, ShapeError> {
        Tensor::from_data(shape, self.data)
    }
}
