//! Comparisons, logic and the choice between two inputs. All broadcast.

use half::f16;

use crate::node::Node;
use crate::operator::{Args, Build, OpError, Operator, Outputs, one};
use crate::ops::arithmetic::{pair_error, with_number_pair};
use crate::ops::broadcast::{Broadcast, binary};
use crate::tensor::{Data, DataType, Element, Tensor, with_data};

pub(crate) const OPERATORS: &[(&str, Build)] = &[
    ("Equal", equal),
    ("Greater", greater),
    ("Less", less),
    ("GreaterOrEqual", greater_or_equal),
    ("LessOrEqual", less_or_equal),
    ("And", and),
    ("Or", or),
    ("Xor", xor),
    ("Not", not),
    ("Where", choose),
    ("IsNaN", is_nan),
    ("IsInf", is_inf),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Equal,
    Greater,
    Less,
    GreaterOrEqual,
    LessOrEqual,
}

#[derive(Debug)]
struct Compare(Relation);

fn compare(node: &Node<'_>, relation: Relation) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(2, 2)?;
    Ok(Box::new(Compare(relation)))
}

fn equal(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    compare(node, Relation::Equal)
}

fn greater(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    compare(node, Relation::Greater)
}

fn less(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    compare(node, Relation::Less)
}

fn greater_or_equal(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    compare(node, Relation::GreaterOrEqual)
}

fn less_or_equal(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    compare(node, Relation::LessOrEqual)
}

fn compared<T: PartialOrd>(
    relation: Relation,
    layout: &Broadcast<2>,
    lefts: &[T],
    rights: &[T],
) -> Vec<bool> {
    match relation {
        Relation::Equal => binary(layout, lefts, rights, |a, b| a == b),
        Relation::Greater => binary(layout, lefts, rights, |a, b| a > b),
        Relation::Less => binary(layout, lefts, rights, |a, b| a < b),
        Relation::GreaterOrEqual => binary(layout, lefts, rights, |a, b| a >= b),
        Relation::LessOrEqual => binary(layout, lefts, rights, |a, b| a <= b),
    }
}

impl Operator for Compare {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let (left, right) = (args.get(0)?, args.get(1)?);
        let layout = Broadcast::new([left.shape(), right.shape()])?;
        args.context.reserve(layout.elements, DataType::Bool)?;
        let results = match (left.data(), right.data()) {
            (Data::Bool(lefts), Data::Bool(rights)) if self.0 == Relation::Equal => {
                binary(&layout, lefts, rights, |a, b| a == b)
            }
            (Data::String(lefts), Data::String(rights)) if self.0 == Relation::Equal => {
                binary(&layout, lefts, rights, |a, b| a == b)
            }
            (Data::F16(lefts), Data::F16(rights)) => compared(self.0, &layout, lefts, rights),
            pair => with_number_pair!(
                pair,
                (lefts, rights) => compared(self.0, &layout, lefts, rights),
                return Err(pair_error(left, right))
            ),
        };
        one(Tensor::new(&layout.shape, results)?)
    }
}

#[derive(Debug, Clone, Copy)]
enum Connective {
    And,
    Or,
    Xor,
}

#[derive(Debug)]
struct Connect(Connective);

fn connect(node: &Node<'_>, connective: Connective) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(2, 2)?;
    Ok(Box::new(Connect(connective)))
}

fn and(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    connect(node, Connective::And)
}

fn or(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    connect(node, Connective::Or)
}

fn xor(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    connect(node, Connective::Xor)
}

impl Operator for Connect {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let (left, right) = (args.get(0)?, args.get(1)?);
        let layout = Broadcast::new([left.shape(), right.shape()])?;
        args.context.reserve(layout.elements, DataType::Bool)?;
        let (lefts, rights) = (args.slice::<bool>(0)?, args.slice::<bool>(1)?);
        let results = match self.0 {
            Connective::And => binary(&layout, lefts, rights, |a, b| *a && *b),
            Connective::Or => binary(&layout, lefts, rights, |a, b| *a || *b),
            Connective::Xor => binary(&layout, lefts, rights, |a, b| a != b),
        };
        one(Tensor::new(&layout.shape, results)?)
    }
}

#[derive(Debug)]
struct Not;

fn not(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    Ok(Box::new(Not))
}

impl Operator for Not {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let mut tensor = args.take(0)?;
        let found = tensor.data_type();
        let values = tensor.as_mut_slice::<bool>();
        let values = values.ok_or_else(|| OpError::data_type(0, found, "bool"))?;
        for value in values {
            *value = !*value;
        }
        one(tensor)
    }
}

/// `Where`: the second input where the first is true, the third where it is false.
#[derive(Debug)]
struct Choose;

fn choose(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(3, 3)?;
    Ok(Box::new(Choose))
}

impl Operator for Choose {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let conditions = args.slice::<bool>(0)?;
        let (yes, no) = (args.get(1)?, args.get(2)?);
        if yes.data_type() != no.data_type() {
            return Err(OpError::Type(format!(
                "the inputs to choose from have element types {} and {}, expected the same",
                yes.data_type(),
                no.data_type()
            )));
        }
        let layout = Broadcast::new([args.get(0)?.shape(), yes.shape(), no.shape()])?;
        for source in [yes, no] {
            super::layout::reserve_copies(args.context, source.data(), layout.elements)?;
        }
        let data = with_data!(yes.data(), values => chosen(&layout, conditions, values, no)?);
        one(Tensor::from_data(&layout.shape, data)?)
    }
}

fn chosen<T: Element>(
    layout: &Broadcast<3>,
    conditions: &[bool],
    yes: &[T],
    no: &Tensor,
) -> Result<Data, OpError> {
    let no = no.as_slice::<T>();
    let no = no.ok_or_else(|| OpError::Type("the inputs have different types".to_string()))?;
    let mut results = Vec::with_capacity(layout.elements);
    layout.for_each_run(|run| {
        let [condition_start, yes_start, no_start] = run.starts;
        let steps = run.moves.map(usize::from);
        if run.moves == [true, true, true] {
            let conditions = &conditions[condition_start..condition_start + run.length];
            let yes = &yes[yes_start..yes_start + run.length];
            let no = &no[no_start..no_start + run.length];
            let pairs = conditions.iter().zip(yes.iter().zip(no));
            results.extend(pairs.map(
                |(condition, (yes, no))| {
                    if *condition { yes.clone() } else { no.clone() }
                },
            ));
            return;
        }
        for offset in 0..run.length {
            results.push(if conditions[condition_start + offset * steps[0]] {
                yes[yes_start + offset * steps[1]].clone()
            } else {
                no[no_start + offset * steps[2]].clone()
            });
        }
    });
    Ok(T::into_data(results))
}

/// A question about each floating point number.
#[derive(Debug)]
struct Test {
    nan: bool,
    positive_infinity: bool,
    negative_infinity: bool,
}

fn is_nan(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    Ok(Box::new(Test {
        nan: true,
        positive_infinity: false,
        negative_infinity: false,
    }))
}

fn is_inf(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    Ok(Box::new(Test {
        nan: false,
        positive_infinity: node.flag("detect_positive", true)?,
        negative_infinity: node.flag("detect_negative", true)?,
    }))
}

impl Operator for Test {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let tensor = args.get(0)?;
        let (positive, negative) = (self.positive_infinity, self.negative_infinity);
        let results: Vec<bool> = match (tensor.data(), self.nan) {
            (Data::F32(values), true) => values.iter().map(|x| x.is_nan()).collect(),
            (Data::F64(values), true) => values.iter().map(|x| x.is_nan()).collect(),
            (Data::F16(values), true) => values.iter().map(|x| x.is_nan()).collect(),
            (Data::F32(values), false) => values
                .iter()
                .map(|x| (positive & (*x == f32::INFINITY)) | (negative & (*x == -f32::INFINITY)))
                .collect(),
            (Data::F64(values), false) => values
                .iter()
                .map(|x| (positive & (*x == f64::INFINITY)) | (negative & (*x == -f64::INFINITY)))
                .collect(),
            (Data::F16(values), false) => values
                .iter()
                .map(|x| {
                    (positive & (*x == f16::INFINITY)) | (negative & (*x == f16::NEG_INFINITY))
                })
                .collect(),
            (other, _) => {
                let expected = "float, double or float16";
                return Err(OpError::data_type(0, other.data_type(), expected));
            }
        };
        one(Tensor::new(tensor.shape(), results)?)
    }
}
