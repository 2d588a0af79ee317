//! Files damaged at random, in their bytes and in what they say: each is loaded or refused and run
//! or stopped, within bounds, and none makes anything panic.
//!
//! `ONNX_ML_DAMAGED_FILES` sets how many are tried (300 of either kind by default) and
//! `ONNX_ML_DAMAGE_SEED` where the generator starts. A failure names the number of its file and the
//! victim; `ONNX_ML_DAMAGE_FIRST` begins with that number.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

#[path = "common/bounds.rs"]
mod bounds;
mod common;

use std::path::PathBuf;
use std::time::Duration;

use bounds::{Counting, Measurement, Random};
use common::*;
use onnx_ml::proto::*;
use onnx_ml::{CompactString, Data, DataType, Limits, LoadError, Model, RunError, Tensor, f16};
use prost::Message;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Small, so that what should be stopped is stopped soon.
fn limits() -> Limits {
    Limits {
        nodes: 1000,
        tensor_bytes: 8 << 20,
        run_bytes: 16 << 20,
        steps: 2000,
        ..Limits::default()
    }
}

fn setting(name: &str, default: u64) -> u64 {
    let wanted = std::env::var(name).ok();
    wanted.and_then(|text| text.parse().ok()).unwrap_or(default)
}

struct Victim {
    name: String,
    bytes: Vec<u8>,
}

/// Small models of every kind.
fn victims() -> Vec<Victim> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("zoo/models");
    let mut victims = vec![Victim {
        name: "a tree of three nodes".to_string(),
        bytes: tree(&[1, 0, 0], &[2, 0, 0]).encode_to_vec(),
    }];
    for entry in std::fs::read_dir(&folder).unwrap() {
        let folder = entry.unwrap().path();
        let bytes = std::fs::read(folder.join("model.onnx")).unwrap();
        if bytes.len() < 12_000 {
            let name = folder.file_name().unwrap().to_string_lossy().into_owned();
            victims.push(Victim { name, bytes });
        }
    }
    victims.sort_by(|a, b| a.name.cmp(&b.name));
    victims
}

/// Values that are on the edge of something.
fn odd_float(random: &mut Random) -> f64 {
    *random.one_of(&[
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        3.0,
        1e30,
        -1e300,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::MIN_POSITIVE,
        9.3e18,
        4_294_967_296.0,
    ])
}

fn odd_integer(random: &mut Random) -> i64 {
    *random.one_of(&[
        0,
        1,
        -1,
        2,
        3,
        -2,
        5,
        7,
        64,
        255,
        1000,
        65_536,
        1 << 24,
        i64::from(i32::MAX),
        i64::from(i32::MIN),
        1 << 32,
        1 << 40,
        1 << 62,
        i64::MAX,
        i64::MIN,
        i64::MIN + 1,
    ])
}

fn odd_text(random: &mut Random) -> CompactString {
    let long = "x".repeat(2000);
    CompactString::from(*random.one_of(&[
        "",
        "a",
        "0",
        "-1",
        "1e400",
        " 12 x",
        "NaN",
        "ü\u{0}\n",
        "Yes",
        "a b  c",
        "\\",
        &long,
    ]))
}

fn odd_tensor(random: &mut Random, data_type: DataType, shape: &[usize]) -> Tensor {
    let count = shape.iter().product();
    let mut integers = || {
        (0..count)
            .map(|_| odd_integer(random))
            .collect::<Vec<i64>>()
    };
    let data = match data_type {
        DataType::Bool => Data::Bool(integers().iter().map(|i| i % 2 == 0).collect()),
        DataType::U8 => Data::U8(integers().iter().map(|i| *i as u8).collect()),
        DataType::U16 => Data::U16(integers().iter().map(|i| *i as u16).collect()),
        DataType::U32 => Data::U32(integers().iter().map(|i| *i as u32).collect()),
        DataType::U64 => Data::U64(integers().iter().map(|i| *i as u64).collect()),
        DataType::I8 => Data::I8(integers().iter().map(|i| *i as i8).collect()),
        DataType::I16 => Data::I16(integers().iter().map(|i| *i as i16).collect()),
        DataType::I32 => Data::I32(integers().iter().map(|i| *i as i32).collect()),
        DataType::I64 => Data::I64(integers()),
        DataType::F16 => Data::F16(
            (0..count)
                .map(|_| f16::from_f64(odd_float(random)))
                .collect(),
        ),
        DataType::F32 => Data::F32((0..count).map(|_| odd_float(random) as f32).collect()),
        DataType::F64 => Data::F64((0..count).map(|_| odd_float(random)).collect()),
        DataType::String => Data::String((0..count).map(|_| odd_text(random)).collect()),
    };
    Tensor::from_data(shape, data).unwrap()
}

/// Inputs that fit the model, with odd values; `None` when they would be large.
fn odd_inputs(random: &mut Random, model: &Model) -> Option<Vec<Tensor>> {
    let rows = *random.one_of(&[0, 1, 2, 3, 5]);
    let mut inputs = Vec::new();
    for info in model.inputs() {
        let mut shape = Vec::new();
        for (place, size) in info.shape.iter().enumerate() {
            let free = if place == 0 { rows } else { random.below(4) };
            shape.push(size.unwrap_or(free));
        }
        let count = shape
            .iter()
            .try_fold(1usize, |n, size| n.checked_mul(*size));
        if count.is_none_or(|count| count > 1 << 16) {
            return None;
        }
        inputs.push(odd_tensor(random, info.data_type, &shape));
    }
    Some(inputs)
}

/// Loads, and runs what loads. Says what is wrong.
fn survive(random: &mut Random, bytes: &[u8], ran: &mut usize) -> Result<(), String> {
    let measurement = Measurement::start();
    let model = Model::from_bytes_with(bytes, &limits());
    if let Err(LoadError::Defect { reason }) = &model {
        return Err(format!("a panic while loading: {reason}"));
    }
    let loaded = measurement.time();
    if let Ok(model) = &model {
        for _ in 0..2 {
            let Some(inputs) = odd_inputs(random, model) else {
                continue;
            };
            let outputs = model.run(inputs);
            if let Err(RunError::Defect { reason }) = outputs {
                return Err(format!("a panic while running: {reason}"));
            }
            *ran += usize::from(outputs.is_ok());
        }
    }
    let (time, peak) = (measurement.time(), measurement.peak());
    if time > Duration::from_secs(5) {
        return Err(format!("it took {time:?}, {loaded:?} of it to load"));
    }
    let allowed = (128 << 20) + 64 * bytes.len();
    if peak > allowed {
        return Err(format!("it took {peak} bytes, {allowed} are allowed"));
    }
    Ok(())
}

/// Damages so many files and reports all that do harm.
fn damage(seed: u64, mut damaged: impl FnMut(&mut Random, &Victim) -> Vec<u8>) {
    let victims = victims();
    let first = setting("ONNX_ML_DAMAGE_FIRST", 0);
    let seed = setting("ONNX_ML_DAMAGE_SEED", seed);
    let count = setting("ONNX_ML_DAMAGED_FILES", 300);
    let mut harm = Vec::new();
    let mut ran = 0;
    for number in first..first + count {
        // Each file has its own generator, so that it can be tried alone.
        let mut random = Random((seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1);
        for _ in 0..4 {
            random.next();
        }
        let victim = random.one_of(&victims);
        let bytes = damaged(&mut random, victim);
        if let Err(what) = survive(&mut random, &bytes, &mut ran) {
            harm.push(format!("file {number} ({}): {what}", victim.name));
        }
    }
    println!("{count} files, {ran} runs with a result");
    assert!(harm.is_empty(), "{}", harm.join("\n"));
}

#[test]
fn flipped_bits_and_bytes_do_no_harm() {
    damage(1, |random, victim| {
        let mut bytes = victim.bytes.clone();
        for _ in 0..=random.below(4) {
            let place = random.below(bytes.len());
            if random.below(2) == 0 {
                bytes[place] ^= 1 << random.below(8);
            } else {
                bytes[place] = *random.one_of(&[0, 1, 0x7f, 0x80, 0xff]);
            }
        }
        bytes
    });
}

#[test]
fn files_that_say_something_else_do_no_harm() {
    damage(2, |random, victim| {
        let mut model = ModelProto::decode(victim.bytes.as_slice()).unwrap();
        for _ in 0..=random.below(3) {
            change(random, &mut model);
        }
        model.encode_to_vec()
    });
}

/// One change somewhere in the model.
fn change(random: &mut Random, model: &mut ModelProto) {
    let operators: Vec<(&str, &str)> = onnx_ml::supported().collect();
    if random.below(20) == 0 {
        if let Some(import) = model.opset_import.first_mut() {
            import.version = *random.one_of(&[0, 1, 5, 7, 9, 11, 13, 18, 21, 99]);
        }
        return;
    }
    if random.below(20) == 0
        && let Some(function) = model.functions.first_mut()
        && !function.node.is_empty()
    {
        let place = random.below(function.node.len());
        return change_node(random, &mut function.node[place], &operators, &[]);
    }
    if let Some(graph) = &mut model.graph {
        change_graph(random, graph, &operators);
    }
}

fn change_graph(random: &mut Random, graph: &mut GraphProto, operators: &[(&str, &str)]) {
    let mut names: Vec<String> = graph.input.iter().map(|input| input.name.clone()).collect();
    names.extend(graph.initializer.iter().map(|tensor| tensor.name.clone()));
    names.extend(graph.node.iter().flat_map(|node| node.output.clone()));
    names.push(String::new());
    match random.below(12) {
        0 if !graph.initializer.is_empty() => {
            let place = random.below(graph.initializer.len());
            change_tensor(random, &mut graph.initializer[place]);
        }
        1 if !graph.input.is_empty() => {
            let place = random.below(graph.input.len());
            change_value(random, &mut graph.input[place]);
        }
        2 if !graph.output.is_empty() => {
            let place = random.below(graph.output.len());
            match random.below(3) {
                0 => change_value(random, &mut graph.output[place]),
                1 => graph.output[place].name = random.one_of(&names).clone(),
                _ => graph.output.push(graph.output[place].clone()),
            }
        }
        3 if graph.node.len() > 1 => {
            let (one, other) = (
                random.below(graph.node.len()),
                random.below(graph.node.len()),
            );
            graph.node.swap(one, other);
        }
        _ if !graph.node.is_empty() => {
            let place = random.below(graph.node.len());
            change_node(random, &mut graph.node[place], operators, &names);
        }
        _ => {}
    }
}

fn change_node(
    random: &mut Random,
    node: &mut NodeProto,
    operators: &[(&str, &str)],
    names: &[String],
) {
    match random.below(12) {
        0 => {
            let (domain, name) = random.one_of(operators);
            node.domain = domain.to_string();
            node.op_type = name.to_string();
            if random.below(2) == 0 {
                node.attribute.clear();
            }
        }
        1 if !node.input.is_empty() && !names.is_empty() => {
            let place = random.below(node.input.len());
            node.input[place] = random.one_of(names).clone();
        }
        2 if !names.is_empty() => match random.below(2) {
            0 => node.input.push(random.one_of(names).clone()),
            _ => {
                node.input.pop();
            }
        },
        3 if !node.output.is_empty() && !names.is_empty() => match random.below(3) {
            0 => node.output.push("another".to_string()),
            1 => {
                node.output.pop();
            }
            _ => node.output[0] = random.one_of(names).clone(),
        },
        4 if !node.attribute.is_empty() => {
            let place = random.below(node.attribute.len());
            match random.below(2) {
                0 => {
                    node.attribute.remove(place);
                }
                _ => node.attribute.push(node.attribute[place].clone()),
            }
        }
        _ if !node.attribute.is_empty() => {
            let place = random.below(node.attribute.len());
            change_attribute(random, &mut node.attribute[place], operators);
        }
        _ => {}
    }
}

/// A number in another place, another number, or another count of them.
fn change_list<T: Clone>(
    random: &mut Random,
    list: &mut Vec<T>,
    odd: impl Fn(&mut Random) -> T,
    most: usize,
) {
    let place = random.below(list.len());
    match random.below(7) {
        _ if list.is_empty() => list.push(odd(random)),
        0 => {
            list.remove(place);
        }
        1 => list.push(list[place].clone()),
        2 => {
            let other = random.below(list.len());
            list.swap(place, other);
        }
        3 => {
            let other = random.below(list.len());
            list[place] = list[other].clone();
        }
        4 if random.below(8) == 0 => {
            let value = odd(random);
            list.resize(*random.one_of(&[1, 7, 100, most]), value);
        }
        _ => list[place] = odd(random),
    }
}

fn change_attribute(
    random: &mut Random,
    attribute: &mut AttributeProto,
    operators: &[(&str, &str)],
) {
    if random.below(30) == 0 {
        attribute.r#type = random.below(15) as i32;
        return;
    }
    match attribute.r#type() {
        AttributeType::Int => attribute.i = odd_integer(random),
        AttributeType::Float => attribute.f = odd_float(random) as f32,
        AttributeType::String => change_list(
            random,
            &mut attribute.s,
            |random| *random.one_of(b"aN.-,>\\[\xff0 "),
            1000,
        ),
        AttributeType::Ints => change_list(random, &mut attribute.ints, odd_integer, 10_000),
        AttributeType::Floats => change_list(
            random,
            &mut attribute.floats,
            |random| odd_float(random) as f32,
            10_000,
        ),
        AttributeType::Strings => change_list(
            random,
            &mut attribute.strings,
            |random| odd_text(random).as_bytes().to_vec(),
            1000,
        ),
        AttributeType::Tensor => {
            if let Some(tensor) = &mut attribute.t {
                change_tensor(random, tensor);
            }
        }
        AttributeType::Graph => {
            if let Some(graph) = &mut attribute.g {
                change_graph(random, graph, operators);
            }
        }
        _ => attribute.r#type = AttributeType::Ints as i32,
    }
}

/// Most changes keep a tensor readable: its values become others, or it gets another shape or type
/// with as many values as that needs.
fn change_tensor(random: &mut Random, tensor: &mut TensorProto) {
    if random.below(6) == 0 {
        return change_list(random, &mut tensor.dims, odd_integer, 100);
    }
    let Ok(read) = Tensor::from_proto(tensor) else {
        return;
    };
    let mut shape = read.shape().to_vec();
    if random.below(3) == 0 {
        shape = random
            .one_of(&[
                vec![],
                vec![0],
                vec![1],
                vec![1, 1],
                vec![2],
                vec![5],
                vec![0, 3],
                vec![3, 0],
                vec![2, 1],
                vec![1, 3],
                vec![2, 2, 2],
                vec![0, 1 << 40, 1 << 40],
                vec![1; 20],
            ])
            .clone();
    }
    if shape.iter().product::<usize>() > 10_000 {
        return;
    }
    let data_type = match random.below(4) {
        0 => *random.one_of(&DataType::ALL),
        _ => read.data_type(),
    };
    let odd = odd_tensor(random, data_type, &shape);
    let mut values: Vec<usize> = (0..odd.len()).collect();
    // Some values stay as they were, so that not every change is fatal.
    if data_type == read.data_type() && shape == read.shape() {
        values.retain(|_| random.below(4) == 0);
    }
    *tensor = TensorProto {
        name: tensor.name.clone(),
        dims: shape.iter().map(|size| *size as i64).collect(),
        data_type: data_type as i32,
        ..TensorProto::default()
    };
    let old = (read.data_type() == odd.data_type() && read.len() == odd.len()).then_some(read);
    macro_rules! merged {
        ($odd:expr, $variant:ident, $convert:expr) => {
            $odd.iter()
                .enumerate()
                .map(|(place, value)| match old.as_ref().map(Tensor::data) {
                    Some(Data::$variant(old)) if !values.contains(&place) => old[place].clone(),
                    _ => value.clone(),
                })
                .map($convert)
                .collect()
        };
    }
    match odd.data() {
        Data::F32(odd) => tensor.float_data = merged!(odd, F32, |x| x),
        Data::F64(odd) => tensor.double_data = merged!(odd, F64, |x| x),
        Data::I64(odd) => tensor.int64_data = merged!(odd, I64, |x| x),
        Data::U64(odd) => tensor.uint64_data = merged!(odd, U64, |x| x),
        Data::U32(odd) => tensor.uint64_data = merged!(odd, U32, u64::from),
        Data::I32(odd) => tensor.int32_data = merged!(odd, I32, |x| x),
        Data::I16(odd) => tensor.int32_data = merged!(odd, I16, i32::from),
        Data::I8(odd) => tensor.int32_data = merged!(odd, I8, i32::from),
        Data::U16(odd) => tensor.int32_data = merged!(odd, U16, i32::from),
        Data::U8(odd) => tensor.int32_data = merged!(odd, U8, i32::from),
        Data::Bool(odd) => tensor.int32_data = merged!(odd, Bool, i32::from),
        Data::F16(odd) => {
            tensor.int32_data = merged!(odd, F16, |x: f16| i32::from(x.to_bits()));
        }
        Data::String(odd) => {
            tensor.string_data = merged!(odd, String, |x: CompactString| x.as_bytes().to_vec());
        }
    }
}

fn change_value(random: &mut Random, value: &mut ValueInfoProto) {
    let Some(TypeProto {
        value: Some(TypeValue::Tensor(tensor)),
    }) = &mut value.r#type
    else {
        value.r#type = None;
        return;
    };
    match random.below(4) {
        0 => tensor.elem_type = random.below(17) as i32,
        1 => tensor.shape = None,
        _ => {
            let dims = tensor.shape.get_or_insert_default();
            let odd = |random: &mut Random| Dimension {
                value: match random.below(3) {
                    0 => None,
                    1 => Some(DimensionValue::DimParam("N".to_string())),
                    _ => Some(DimensionValue::DimValue(odd_integer(random))),
                },
            };
            change_list(random, &mut dims.dim, odd, 9);
        }
    }
}
