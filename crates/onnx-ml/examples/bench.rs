//! Times one model: `cargo run --release -p onnx-ml --example bench -- MODEL.onnx X.npy --batch 1000 --json`
//!
//! `X.npy` holds a float32 matrix, one row a customer, for a model with one float input. Batches of
//! `--batch N` rows are taken from it in turn (and its rows repeated if it has fewer) for about
//! `--seconds S`; printed are rows a second and the median and 99th percentile of one call.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use onnx_ml::{DataType, Model, ScopedThreads, Tensor};

const USAGE: &str =
    "usage: bench MODEL.onnx X.npy [--batch N] [--threads T] [--seconds S] [--json]";

struct Options {
    model: String,
    rows: String,
    batch: usize,
    threads: usize,
    seconds: f64,
    json: bool,
}

fn main() -> ExitCode {
    match options().and_then(|options| run(&options)) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options, String> {
    let mut files = Vec::new();
    let (mut batch, mut threads, mut seconds, mut json) = (1, 1, 1.0, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .ok_or(format!("{argument} needs a value\n{USAGE}"))
        };
        let not_a_number = |error| format!("{argument}: {error}\n{USAGE}");
        match argument.as_str() {
            "--batch" => {
                batch = value()?
                    .parse()
                    .map_err(|e: std::num::ParseIntError| not_a_number(e.to_string()))?
            }
            "--threads" => {
                threads = value()?
                    .parse()
                    .map_err(|e: std::num::ParseIntError| not_a_number(e.to_string()))?
            }
            "--seconds" => {
                seconds = value()?
                    .parse()
                    .map_err(|e: std::num::ParseFloatError| not_a_number(e.to_string()))?
            }
            "--json" => json = true,
            _ if argument.starts_with("--") => {
                return Err(format!("unknown option {argument}\n{USAGE}"));
            }
            _ => files.push(argument),
        }
    }
    let [model, rows] = <[String; 2]>::try_from(files).map_err(|_| USAGE.to_string())?;
    if batch == 0 || threads == 0 {
        return Err(format!("--batch and --threads are at least 1\n{USAGE}"));
    }
    Ok(Options {
        model,
        rows,
        batch,
        threads,
        seconds,
        json,
    })
}

fn run(options: &Options) -> Result<String, String> {
    let bytes = std::fs::read(&options.model).map_err(|e| format!("{}: {e}", options.model))?;
    let started = Instant::now();
    let model = Model::from_bytes(&bytes).map_err(|e| format!("{}: {e}", options.model))?;
    let load_ms = started.elapsed().as_secs_f64() * 1e3;
    let (rows, width) = read_npy(&options.rows)?;
    let batches = batches(&rows, width, options.batch, &model)?;

    let pool = ScopedThreads(options.threads);
    let call = |batch: &Tensor| -> Result<Duration, String> {
        let input = batch.clone();
        let started = Instant::now();
        let outputs = if options.threads == 1 {
            model.run(vec![input])
        } else {
            model.run_on(vec![input], &pool)
        };
        black_box(outputs.map_err(|error| error.to_string())?);
        Ok(started.elapsed())
    };
    for batch in batches.iter().take(100) {
        call(batch)?;
    }
    let mut times = Vec::new();
    let started = Instant::now();
    let enough = Duration::from_secs_f64(options.seconds);
    while started.elapsed() < enough || times.len() < 5 {
        for batch in &batches {
            times.push(call(batch)?);
        }
    }
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    let (p50, p99) = (at(0.5), at(0.99));
    let rows_per_s = options.batch as f64 / p50 * 1e6;
    Ok(if options.json {
        format!(
            r#"{{"rows_per_s": {rows_per_s:.1}, "p50_us": {p50:.3}, "p99_us": {p99:.3}, "load_ms": {load_ms:.1}}}"#
        )
    } else {
        format!(
            "{} rows a call: {rows_per_s:.0} rows/s, a call {p50:.1} us (99 %: {p99:.1} us), {} calls; loaded in {load_ms:.1} ms",
            options.batch,
            times.len()
        )
    })
}

/// Batches of consecutive rows: several different ones as long as they are small.
fn batches(rows: &[f32], width: usize, batch: usize, model: &Model) -> Result<Vec<Tensor>, String> {
    let [input] = model.inputs() else {
        return Err(format!(
            "the model has {} inputs, expected one",
            model.inputs().len()
        ));
    };
    let available = rows.len() / width.max(1);
    if available == 0 {
        return Err("the file with the rows has none".to_string());
    }
    let count = (2000 / batch).clamp(1, available);
    let mut batches = Vec::new();
    for number in 0..count {
        let mut values = Vec::with_capacity(batch * width);
        for row in 0..batch {
            let row = (number * batch + row) % available;
            values.extend_from_slice(&rows[row * width..(row + 1) * width]);
        }
        let shape = [batch, width];
        let tensor = match input.data_type {
            DataType::F32 => Tensor::new(&shape, values),
            DataType::F64 => Tensor::new(&shape, values.into_iter().map(f64::from).collect()),
            other => {
                return Err(format!(
                    "the model's input is of type {other}, expected float or double"
                ));
            }
        };
        batches.push(tensor.map_err(|error| error.to_string())?);
    }
    Ok(batches)
}

/// The numbers of a two-dimensional little-endian float32 array in row-major order, and its width.
fn read_npy(path: &str) -> Result<(Vec<f32>, usize), String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    let broken = || format!("{path}: expected an .npy file");
    let (start, length) = match bytes.get(..12) {
        Some([0x93, b'N', b'U', b'M', b'P', b'Y', 1, _, a, b, ..]) => {
            (10, usize::from(u16::from_le_bytes([*a, *b])))
        }
        Some([0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, _, a, b, c, d]) => {
            (12, u32::from_le_bytes([*a, *b, *c, *d]) as usize)
        }
        _ => return Err(broken()),
    };
    let header = bytes.get(start..start + length).ok_or_else(broken)?;
    let header = String::from_utf8_lossy(header);
    if !header.contains("'<f4'") || !header.contains("'fortran_order': False") {
        return Err(format!(
            "{path}: expected float32 in C order, found {header}"
        ));
    }
    let shape = header
        .split_once("'shape': (")
        .and_then(|(_, rest)| rest.split_once(')'));
    let sizes: Vec<usize> = shape
        .map(|(sizes, _)| {
            sizes
                .split(',')
                .filter_map(|size| size.trim().parse().ok())
                .collect()
        })
        .unwrap_or_default();
    let [rows, width] = sizes.as_slice() else {
        return Err(format!("{path}: expected two dimensions, found {header}"));
    };
    let data = &bytes[start + length..];
    if data.len() != rows * width * 4 {
        return Err(format!(
            "{path}: {rows} x {width} float32 need {} bytes, found {}",
            rows * width * 4,
            data.len()
        ));
    }
    let values = data
        .as_chunks::<4>()
        .0
        .iter()
        .map(|chunk| f32::from_le_bytes(*chunk));
    Ok((values.collect(), *width))
}
