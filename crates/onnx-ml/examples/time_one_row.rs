//! How long a model takes for one call, in microseconds.
//!
//! ```text
//! cargo run --release -p onnx-ml --example time_one_row -- MODEL.onnx [--rows N]
//! ```
//!
//! Every input is filled with zeros, or with the empty string.

#![allow(clippy::print_stdout, reason = "it prints its figures")]

use std::error::Error;
use std::time::Instant;

use onnx_ml::{DatumType, Model, Tensor};
use tract_onnx::prelude::IntoTensor;
use tract_onnx::tract_hir::tract_ndarray::ArrayD;

const CALLS: usize = 20_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut path = None;
    let mut rows = 1usize;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--rows" {
            rows = arguments.next().ok_or("--rows needs a number")?.parse()?;
        } else {
            path = Some(argument);
        }
    }
    let path = path.ok_or("usage: time_one_row MODEL.onnx [--rows N]")?;
    let model = Model::from_bytes(&std::fs::read(path)?)?;
    let mut inputs = Vec::new();
    for info in model.inputs() {
        let shape: Vec<usize> = info.shape.iter().map(|size| size.unwrap_or(rows)).collect();
        inputs.push(if info.datum_type == DatumType::String {
            let texts = vec![String::new(); shape.iter().product()];
            ArrayD::from_shape_vec(shape, texts)?.into_tensor()
        } else {
            Tensor::zero_dt(info.datum_type, &shape)?
        });
    }
    let calls = (CALLS / rows).max(20);
    let mut times = Vec::with_capacity(calls);
    for _ in 0..calls + calls / 10 {
        // A caller makes the tensors anew for every request; that is not part of the model's time.
        let inputs = inputs.clone();
        let started = Instant::now();
        let outputs = model.run(inputs)?;
        times.push(started.elapsed().as_nanos());
        std::hint::black_box(outputs);
    }
    let mut warm = times.split_off(calls / 10);
    warm.sort_unstable();
    let at = |share: f64| warm[((warm.len() - 1) as f64 * share) as usize] as f64 / 1000.0;
    println!(
        "{rows} rows, {} calls: median {:.2} µs, p90 {:.2} µs, p99 {:.2} µs",
        warm.len(),
        at(0.5),
        at(0.9),
        at(0.99)
    );
    Ok(())
}
