//! Operators that pick elements by their value, and those that make masks: `TopK`, `NonZero`,
//! `Unique`, `OneHot`, `Trilu`.
//!
//! Where elements are put in order, a NaN comes after all numbers, in both directions, and equal
//! elements keep the order of their places. (What a NaN does is not specified; here it must not
//! depend on how the sorting goes about it.)

use std::cmp::Ordering;

use smallvec::SmallVec;

use super::layout::{self, IntegersSource};
use crate::node::Node;
use crate::operator::{Args, Build, OpError, Operator, Outputs, axis, one};
use crate::tensor::{Data, DataType, Element, Shape, Tensor, with_data};

pub(crate) const OPERATORS: &[(&str, Build)] = &[
    ("TopK", top_k),
    ("NonZero", non_zero),
    ("Unique", unique),
    ("OneHot", one_hot),
    ("Trilu", trilu),
];

/// Up to this many best elements are kept in order while walking the row once.
const FEW: usize = 32;

/// The order of two elements, descending if `largest`.
fn compare<T: PartialOrd>(a: &T, b: &T, largest: bool) -> Ordering {
    match a.partial_cmp(b) {
        Some(order) if largest => order.reverse(),
        Some(order) => order,
        None => is_nan(a).cmp(&is_nan(b)),
    }
}

fn is_nan<T: PartialOrd>(value: &T) -> bool {
    value.partial_cmp(value).is_none()
}

/// The sizes before an axis, of the axis and after it, multiplied.
fn around(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    let product = |sizes: &[usize]| {
        let all = sizes.iter();
        all.fold(1usize, |product, size| product.saturating_mul(*size))
    };
    (
        product(&shape[..axis]),
        shape[axis],
        product(&shape[axis + 1..]),
    )
}

#[derive(Debug)]
struct TopK {
    axis: i64,
    largest: bool,
    k: IntegersSource,
}

fn top_k(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    let axis = node.int("axis")?.unwrap_or(-1);
    let (k, inputs) = match node.version {
        10.. => (IntegersSource::input(node, 1)?, 2),
        _ => {
            let k = node.int("k")?.ok_or("attribute `k` is missing")?;
            (IntegersSource::Fixed(SmallVec::from_slice(&[k])), 1)
        }
    };
    node.expect_inputs(inputs, inputs)?;
    let mut largest = true;
    if node.version >= 11 {
        largest = node.flag("largest", true)?;
        // Any order may stand for no order.
        node.ignore(&["sorted"]);
    }
    Ok(Box::new(TopK { axis, largest, k }))
}

impl Operator for TopK {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let k = self.k.require(args, "k")?;
        let tensor = args.get(0)?;
        let place = axis(self.axis, tensor.rank())?;
        let (outer, size, inner) = around(tensor.shape(), place);
        let k = match k.as_slice() {
            [k] => usize::try_from(*k).ok().filter(|k| *k <= size),
            _ => None,
        };
        let k = k.ok_or_else(|| {
            OpError::Value(format!(
                "k is {:?}, expected one number from 0 to {size}",
                self.k
            ))
        })?;
        let mut shape = Shape::from_slice(tensor.shape());
        shape[place] = k;
        args.context
            .reserve(layout::count(&shape)?, DataType::F64)?;
        args.context
            .reserve(layout::count(&shape)?, DataType::I64)?;
        args.context.reserve(size, DataType::I64)?;
        let rows = Rows {
            outer,
            size,
            inner,
            k,
            largest: self.largest,
        };
        let numbers = "numbers";
        let (values, indices) = match tensor.data() {
            Data::F32(values) => best(values, &rows),
            Data::F64(values) => best(values, &rows),
            Data::F16(values) => best(values, &rows),
            Data::I8(values) => best(values, &rows),
            Data::I16(values) => best(values, &rows),
            Data::I32(values) => best(values, &rows),
            Data::I64(values) => best(values, &rows),
            Data::U8(values) => best(values, &rows),
            Data::U16(values) => best(values, &rows),
            Data::U32(values) => best(values, &rows),
            Data::U64(values) => best(values, &rows),
            Data::Bool(_) | Data::String(_) => {
                return Err(OpError::data_type(0, tensor.data_type(), numbers));
            }
        };
        let mut outputs = Outputs::new();
        outputs.push(Tensor::from_data(&shape, values)?);
        outputs.push(Tensor::new::<i64>(&shape, indices)?);
        Ok(outputs)
    }
}

struct Rows {
    outer: usize,
    size: usize,
    inner: usize,
    k: usize,
    largest: bool,
}

/// The best elements of each row and where they are.
fn best<T: Element + Copy + PartialOrd>(values: &[T], rows: &Rows) -> (Data, Vec<i64>) {
    let results = rows.outer * rows.k * rows.inner;
    let mut best_values = vec![T::default(); results];
    let mut best_places = vec![0i64; results];
    let mut row: Vec<T> = Vec::new();
    let mut order: Vec<usize> = Vec::new();
    if results == 0 {
        return (T::into_data(best_values), best_places);
    }
    for outer in 0..rows.outer {
        for inner in 0..rows.inner {
            let first = outer * rows.size * rows.inner + inner;
            let row: &[T] = if rows.inner == 1 {
                &values[first..first + rows.size]
            } else {
                row.clear();
                row.extend((0..rows.size).map(|place| values[first + place * rows.inner]));
                &row
            };
            if rows.k <= FEW {
                best_few(row, rows, &mut order);
            } else {
                best_many(row, rows, &mut order);
            }
            for (number, place) in order.iter().enumerate() {
                let target = (outer * rows.k + number) * rows.inner + inner;
                best_values[target] = row[*place];
                best_places[target] = *place as i64;
            }
        }
    }
    (T::into_data(best_values), best_places)
}

fn best_few<T: Copy + PartialOrd>(row: &[T], rows: &Rows, order: &mut Vec<usize>) {
    order.clear();
    for (place, value) in row.iter().enumerate() {
        if order.len() == rows.k {
            let worst = &row[order[rows.k - 1]];
            if compare(value, worst, rows.largest) != Ordering::Less {
                continue;
            }
            order.pop();
        }
        let mut position = order.len();
        while position > 0
            && compare(value, &row[order[position - 1]], rows.largest) == Ordering::Less
        {
            position -= 1;
        }
        order.insert(position, place);
    }
}

fn best_many<T: Copy + PartialOrd>(row: &[T], rows: &Rows, order: &mut Vec<usize>) {
    let by_value_and_place =
        |a: &usize, b: &usize| compare(&row[*a], &row[*b], rows.largest).then_with(|| a.cmp(b));
    order.clear();
    order.extend(0..row.len());
    if rows.k < row.len() {
        order.select_nth_unstable_by(rows.k, by_value_and_place);
        order.truncate(rows.k);
    }
    order.sort_unstable_by(by_value_and_place);
}

#[derive(Debug)]
struct NonZero;

fn non_zero(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    Ok(Box::new(NonZero))
}

impl Operator for NonZero {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        fn places<T: Element>(values: &[T]) -> Vec<usize> {
            let zero = T::default();
            let all = values.iter().enumerate();
            all.filter(|(_, value)| **value != zero)
                .map(|(place, _)| place)
                .collect()
        }
        let tensor = args.get(0)?;
        if tensor.data_type() == DataType::String {
            return Err(OpError::data_type(0, DataType::String, "numbers or bool"));
        }
        args.context.reserve(tensor.len(), DataType::I64)?;
        let places = with_data!(tensor.data(), values => places(values));
        // A single element counts as a row of one.
        let shape = if tensor.rank() == 0 {
            &[1]
        } else {
            tensor.shape()
        };
        let elements = layout::count(&[shape.len(), places.len()])?;
        args.context.reserve(elements, DataType::I64)?;
        let mut result = Vec::with_capacity(elements);
        for axis in 0..shape.len() {
            let (_, size, inner) = around(shape, axis);
            let each = places.iter();
            result.extend(each.map(|place| (place / inner % size) as i64));
        }
        one(Tensor::new::<i64>(&[shape.len(), places.len()], result)?)
    }
}

#[derive(Debug)]
struct Unique {
    axis: Option<i64>,
    sorted: bool,
}

fn unique(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    Ok(Box::new(Unique {
        axis: node.int("axis")?,
        sorted: node.flag("sorted", true)?,
    }))
}

impl Operator for Unique {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let tensor = args.get(0)?;
        let (place, shape) = match self.axis {
            Some(place) => (
                axis(place, tensor.rank())?,
                Shape::from_slice(tensor.shape()),
            ),
            None => (0, Shape::from_slice(&[tensor.len()])),
        };
        let (outer, size, inner) = around(&shape, place);
        // Nothing to compare, however many times.
        let outer = if tensor.is_empty() { 0 } else { outer };
        args.context
            .reserve(size.saturating_mul(5), DataType::I64)?;
        let groups = with_data!(tensor.data(), values => groups(values, outer, size, inner));
        let mut order: Vec<usize> = (0..groups.first.len()).collect();
        if !self.sorted {
            order.sort_unstable_by_key(|group| groups.first[*group]);
        }
        let mut number_of = vec![0i64; order.len()];
        for (number, group) in order.iter().enumerate() {
            number_of[*group] = number as i64;
        }
        let mut result_shape = shape.clone();
        result_shape[place] = order.len();
        let mut starts = Vec::new();
        if inner > 0 {
            for number in 0..outer {
                for group in &order {
                    starts.push((number * size + groups.first[*group]) * inner);
                }
            }
        }
        let distinct = layout::copy_blocks(tensor, &starts, inner, &result_shape, args.context)?;
        let firsts = order.iter().map(|group| groups.first[*group] as i64);
        let numbers = groups.of_item.iter().map(|group| number_of[*group]);
        let counts = order.iter().map(|group| groups.count[*group]);
        let mut outputs = Outputs::new();
        outputs.push(distinct);
        outputs.push(Tensor::vector::<i64>(firsts.collect()));
        outputs.push(Tensor::vector::<i64>(numbers.collect()));
        outputs.push(Tensor::vector::<i64>(counts.collect()));
        Ok(outputs)
    }
}

/// Equal items, in ascending order.
struct Groups {
    /// The first place of each group.
    first: Vec<usize>,
    count: Vec<i64>,
    /// The group of each item.
    of_item: Vec<usize>,
}

fn groups<T: PartialOrd>(values: &[T], outer: usize, size: usize, inner: usize) -> Groups {
    let compare_items = |a: usize, b: usize| {
        for number in 0..outer {
            for offset in 0..inner {
                let element = |item: usize| &values[(number * size + item) * inner + offset];
                let order = compare(element(a), element(b), false);
                if order != Ordering::Equal {
                    return order;
                }
            }
        }
        Ordering::Equal
    };
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_unstable_by(|a, b| compare_items(*a, *b).then_with(|| a.cmp(b)));
    let mut groups = Groups {
        first: Vec::new(),
        count: Vec::new(),
        of_item: vec![0; size],
    };
    for item in order {
        match (groups.first.last(), groups.count.last_mut()) {
            (Some(first), Some(count)) if compare_items(*first, item) == Ordering::Equal => {
                *count += 1;
            }
            _ => {
                groups.first.push(item);
                groups.count.push(1);
            }
        }
        groups.of_item[item] = groups.first.len() - 1;
    }
    groups
}

#[derive(Debug)]
struct OneHot {
    axis: i64,
}

fn one_hot(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(3, 3)?;
    let axis = node.int("axis")?.unwrap_or(-1);
    Ok(Box::new(OneHot { axis }))
}

impl Operator for OneHot {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let indices = args.get(0)?;
        let place = axis(self.axis, indices.rank() + 1)?;
        let depth_tensor = args.get(1)?;
        let depth = match numbers(depth_tensor, 1)?.as_slice() {
            [depth] if *depth >= 1.0 && *depth < 1e15 => *depth as usize,
            _ => {
                return Err(OpError::Value(
                    "the depth is not one number of 1 or more".to_string(),
                ));
            }
        };
        let values = args.get(2)?;
        if values.shape() != [2] {
            return Err(OpError::Value(format!(
                "the values have shape {:?}, expected [2] (off and on)",
                values.shape()
            )));
        }
        let mut shape = Shape::from_slice(indices.shape());
        shape.insert(place, depth);
        let elements = layout::count(&shape)?;
        layout::reserve_copies(args.context, values.data(), elements)?;
        args.context.reserve(indices.len(), DataType::F64)?;
        let (_, _, inner) = around(&shape, place);
        let mut hot = Vec::with_capacity(indices.len());
        for (number, index) in numbers(indices, 0)?.into_iter().enumerate() {
            let index = if index < 0.0 {
                index + depth as f64
            } else {
                index
            };
            // Neither an index outside nor a fraction is any place.
            if index >= 0.0 && index < depth as f64 && index.fract() == 0.0 {
                let (row, offset) = (number / inner, number % inner);
                hot.push((row * depth + index as usize) * inner + offset);
            }
        }
        let data = with_data!(values.data(), values => filled(values, &hot, elements));
        one(Tensor::from_data(&shape, data)?)
    }
}

fn filled<T: Element>(values: &[T], hot: &[usize], elements: usize) -> Data {
    let [off, on] = values else {
        return T::into_data(Vec::new());
    };
    let mut result = vec![off.clone(); elements];
    for place in hot {
        result[*place] = on.clone();
    }
    T::into_data(result)
}

/// The elements as f64, which holds every index that can be inside a tensor.
fn numbers(tensor: &Tensor, index: usize) -> Result<Vec<f64>, OpError> {
    Ok(match tensor.data() {
        Data::F32(values) => values.iter().copied().map(f64::from).collect(),
        Data::F64(values) => values.clone(),
        Data::F16(values) => values.iter().copied().map(f64::from).collect(),
        Data::I8(values) => values.iter().copied().map(f64::from).collect(),
        Data::I16(values) => values.iter().copied().map(f64::from).collect(),
        Data::I32(values) => values.iter().copied().map(f64::from).collect(),
        Data::I64(values) => values.iter().map(|value| *value as f64).collect(),
        Data::U8(values) => values.iter().copied().map(f64::from).collect(),
        Data::U16(values) => values.iter().copied().map(f64::from).collect(),
        Data::U32(values) => values.iter().copied().map(f64::from).collect(),
        Data::U64(values) => values.iter().map(|value| *value as f64).collect(),
        Data::Bool(_) | Data::String(_) => {
            return Err(OpError::data_type(index, tensor.data_type(), "numbers"));
        }
    })
}

#[derive(Debug)]
struct Trilu {
    upper: bool,
    diagonal: IntegersSource,
}

fn trilu(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 2)?;
    Ok(Box::new(Trilu {
        upper: node.flag("upper", true)?,
        diagonal: IntegersSource::input(node, 1)?,
    }))
}

impl Operator for Trilu {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let diagonal = self.diagonal.get(args)?;
        let diagonal = diagonal.and_then(|k| k.first().copied()).unwrap_or(0);
        let tensor = args.take(0)?;
        let shape = Shape::from_slice(tensor.shape());
        let [.., rows, columns] = shape.as_slice() else {
            return Err(OpError::Value(format!(
                "the input has shape {shape:?}, expected a matrix"
            )));
        };
        let (rows, columns) = (*rows, *columns);
        let mut data = tensor.into_data();
        with_data!(&mut data, values => {
            clear_triangle(values, rows, columns, diagonal, self.upper);
        });
        one(Tensor::from_data(&shape, data)?)
    }
}

fn clear_triangle<T: Element>(
    values: &mut [T],
    rows: usize,
    columns: usize,
    diagonal: i64,
    upper: bool,
) {
    if values.is_empty() {
        return;
    }
    for (number, row) in values.chunks_mut(columns).enumerate() {
        let on_diagonal = ((number % rows) as i64).saturating_add(diagonal);
        // The first column kept by the upper triangle, or dropped by the lower.
        let first = if upper {
            on_diagonal
        } else {
            on_diagonal.saturating_add(1)
        };
        let split = first.clamp(0, columns as i64) as usize;
        let cleared = if upper {
            &mut row[..split]
        } else {
            &mut row[split..]
        };
        cleared.fill(T::default());
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::testing::{int, node, run_graph};
    use super::*;

    #[test]
    fn nan_comes_last_however_many_are_asked_for() {
        let mut values: Vec<f32> = (0..80).map(|number| (number % 7) as f32).collect();
        values[3] = f32::NAN;
        values[50] = f32::NAN;
        for largest in [0, 1] {
            let mut few: Option<Vec<i64>> = None;
            // Both ways of sorting agree on the order, ties by place.
            for k in [10, 80] {
                let mut top = node("TopK", &["a", "b"], &["values", "places"]);
                top.attribute.push(int("largest", largest));
                let inputs = vec![Tensor::vector(values.clone()), Tensor::vector(vec![k])];
                let outputs = run_graph(vec![top], &["values", "places"], inputs).unwrap();
                let places = outputs[1].as_slice::<i64>().unwrap().to_vec();
                if k == 80 {
                    assert_eq!(places[78..], [3, 50]);
                    assert_eq!(few.take().unwrap(), places[..10]);
                } else {
                    few = Some(places);
                }
            }
        }
    }
}
