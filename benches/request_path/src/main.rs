//! What an inference request costs between the socket and the socket: time and allocations of every
//! stage, on one thread.
//!
//! ```sh
//! cargo run --release -p request-path -- MODEL.onnx [ROWS]
//! ```
//!
//! The model has one input of float32 columns. The stages are those of
//! [`bellwether::serve::http::infer`]; the last line is all of them together, as the server calls
//! them, with a ledger on disk. Times are medians of batches, so that a pause of the machine does not
//! count; allocations are exact.

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bellwether::admission::{Admission, Limits};
use bellwether::config::Config;
use bellwether::features::views::Views;
use bellwether::infer::{Call, Inference, Turn};
use bellwether::ledger::{Ledger, LedgerOptions};
use bellwether::models::repository::Repository;
use bellwether::models::version::ModelVersion;
use bellwether::serve::http::infer::{Body, answer, bind, read};
use bytes::Bytes;

/// Calls that are timed together.
const BATCH: usize = 200;
const BATCHES: usize = 60;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: request-path MODEL.onnx [ROWS]";
    let file = arguments.next().ok_or(usage)?;
    let rows: usize = arguments.next().map_or(Ok(1), |rows| rows.parse())?;

    let dir = tempfile::tempdir()?;
    let (inference, model) = load(Path::new(&file), dir.path())?;
    let json = request(&model, rows)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{file}, {rows} rows, {} bytes of JSON", json.len())?;
    writeln!(out, "{:<28}{:>12}{:>14}", "stage", "ns", "allocations")?;

    let call = Call::now();
    let read_and_bind = || {
        let given = read::read(&json)?;
        bind::requested_outputs(&model, &given)?;
        bind::inputs(&model, given, None, inference.max_rows)
    };
    let inputs = read_and_bind()?;
    line(&mut out, "read JSON", || read::read(&json).is_ok())?;
    line(&mut out, "read and bind", || read_and_bind().is_ok())?;
    line(&mut out, "run the graph (and clone)", || {
        model.graph.run(inputs.clone()).is_ok()
    })?;
    line(&mut out, "run and record (and clone)", || {
        let mut turn = Turn::begin(&call);
        inference
            .run(&model, inputs.clone(), None, &mut turn)
            .is_ok()
    })?;
    let json = Bytes::from(json);
    line(&mut out, "all: read, run, record, write", || {
        let body = Body {
            json: json.clone(),
            binary: None,
        };
        answer(&inference, &model, body, &call, &mut Turn::begin(&call)).is_ok()
    })?;
    Ok(())
}

/// Measures one stage and prints it.
fn line<T>(
    out: &mut impl Write,
    name: &str,
    mut stage: impl FnMut() -> T,
) -> Result<(), Box<dyn Error>> {
    let mut times: Vec<u128> = Vec::with_capacity(BATCHES);
    for _ in 0..BATCHES {
        let started = Instant::now();
        for _ in 0..BATCH {
            std::hint::black_box(stage());
        }
        times.push(started.elapsed().as_nanos() / BATCH as u128);
    }
    times.sort_unstable();
    let counted = allocation_counter::measure(|| {
        std::hint::black_box(stage());
    });
    let (median, allocations) = (times[BATCHES / 2], counted.count_total);
    writeln!(out, "{name:<28}{median:>12}{allocations:>14}")?;
    Ok(())
}

/// The model in a repository of its own, and what runs it.
fn load(file: &Path, dir: &Path) -> Result<(Arc<Inference>, Arc<ModelVersion>), Box<dyn Error>> {
    let folder = dir.join("models/m/1");
    std::fs::create_dir_all(&folder)?;
    std::fs::create_dir_all(dir.join("features"))?;
    std::fs::copy(file, folder.join("model.onnx"))?;
    let views = Views::load(&dir.join("features")).map_err(|errors| errors.to_string())?;
    let repository = Arc::new(Repository::open(&dir.join("models"), &views));
    let ledger = Arc::new(Ledger::open(dir, LedgerOptions::default())?);
    let admission = Admission::new(Limits {
        concurrency: 1,
        queue: 1,
    });
    let inference = Inference::new(repository, admission, ledger, &Config::default());
    let model = inference.find("m", None)?;
    Ok((Arc::new(inference), model))
}

/// A request of `rows` rows, as a client writes float32 numbers.
fn request(model: &ModelVersion, rows: usize) -> Result<Vec<u8>, Box<dyn Error>> {
    let input = model
        .graph
        .inputs()
        .first()
        .ok_or("the model has no input")?;
    let columns = input.shape.last().copied().flatten().unwrap_or(1);
    // Numbers of every length, the same every time.
    let number = |index: usize| ((index * 7919) % 100_003) as f32 / 25_000.75 - 2.0;
    let data: Vec<String> = (0..rows * columns)
        .map(|index| number(index).to_string())
        .collect();
    let name = serde_json::to_string(&input.name)?;
    let data = data.join(",");
    let json = format!(
        "{{\"inputs\":[{{\"name\":{name},\"shape\":[{rows},{columns}],\"datatype\":\"FP32\",\"data\":[{data}]}}]}}"
    );
    Ok(json.into_bytes())
}
