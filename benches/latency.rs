//! What a score costs over HTTP, against a route that does nothing.
//!
//!     cargo bench --bench latency [-- --requests 20000]
//!
//! Starts the real server with 10,000 simulated customers, and on one keep-alive connection sends
//! `GET /livez` and `POST /v1/score` (one customer, stored features, ledger on) in turn, so that
//! whatever the machine does meanwhile meets both alike. Prints medians and 99th percentiles.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench prints its figures"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

type AnyError = Box<dyn std::error::Error>;

const BINARY: &str = env!("CARGO_BIN_EXE_bellwether");
const CUSTOMERS: usize = 10_000;

/// A server that is stopped when the bench ends, however it ends.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> std::process::ExitCode {
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the bench could not run: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), AnyError> {
    let arguments: Vec<String> = std::env::args().collect();
    let requests = match arguments
        .iter()
        .position(|argument| argument == "--requests")
    {
        Some(index) => arguments
            .get(index + 1)
            .ok_or("--requests needs a number")?
            .parse()?,
        None => 20_000,
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scratch = tempfile::tempdir()?;
    let table = scratch.path().join("customers.csv");
    let data_dir = scratch.path().join("data");
    let simulate = ["simulate", "customers", "--rows", "10000", "--output"];
    finish(Command::new(BINARY).args(simulate).arg(&table))?;
    let push = ["features", "push", "--view", "customer", "--data-dir"];
    finish(
        Command::new(BINARY)
            .args(push)
            .arg(&data_dir)
            .arg(&table)
            .current_dir(root),
    )?;

    let mut server = Server(
        Command::new(BINARY)
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(&data_dir)
            .current_dir(root)
            .stderr(Stdio::piped())
            .spawn()?,
    );
    let log = server.0.stderr.take().ok_or("no log")?;
    let address = BufReader::new(log)
        .lines()
        .map_while(Result::ok)
        .find_map(|line| {
            line.split("\"address\":\"")
                .nth(1)?
                .split('"')
                .next()
                .map(str::to_owned)
        })
        .ok_or("the server said no address")?;

    let stream = TcpStream::connect(&address)?;
    stream.set_nodelay(true)?;
    let mut connection = BufReader::new(stream);
    for models in [None, Some("churn")] {
        measure(&mut connection, requests, models)?;
    }
    Ok(())
}

fn finish(command: &mut Command) -> Result<(), AnyError> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned().into())
}

fn measure(
    connection: &mut BufReader<TcpStream>,
    requests: usize,
    model: Option<&str>,
) -> Result<(), AnyError> {
    let idle = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
    let (mut live, mut score) = (Vec::new(), Vec::new());
    for number in 0..requests + requests / 10 {
        let customer = number % CUSTOMERS + 1;
        let models = model
            .map(|name| format!(", \"models\": [\"{name}\"]"))
            .unwrap_or_default();
        let body = format!("{{\"customer_id\": \"C-{customer:06}\"{models}}}");
        let request = format!(
            "POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let idle_time = round_trip(connection, &idle)?;
        let score_time = round_trip(connection, request.as_bytes())?;
        // The first tenth warms caches on both sides.
        if number >= requests / 10 {
            live.push(idle_time);
            score.push(score_time);
        }
    }
    let microseconds = |times: &mut Vec<Duration>, share: f64| {
        times.sort_unstable();
        times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6
    };
    let (live_median, live_p99) = (microseconds(&mut live, 0.5), microseconds(&mut live, 0.99));
    let (median, p99) = (
        microseconds(&mut score, 0.5),
        microseconds(&mut score, 0.99),
    );
    println!(
        "{requests} alternating requests, {}: /livez median {live_median:.1} us (p99 {live_p99:.1}), \
         /v1/score median {median:.1} us (p99 {p99:.1}), score over livez {:.1} us",
        model.map_or("two models".to_owned(), |name| format!("model {name}")),
        median - live_median
    );
    Ok(())
}

fn round_trip(connection: &mut BufReader<TcpStream>, request: &[u8]) -> Result<Duration, AnyError> {
    let started = Instant::now();
    connection.get_mut().write_all(request)?;
    let mut line = String::new();
    connection.read_line(&mut line)?;
    if !line.starts_with("HTTP/1.1 200") {
        return Err(format!("unexpected answer: {line}").into());
    }
    let mut length = 0;
    loop {
        line.clear();
        connection.read_line(&mut line)?;
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body)?;
    Ok(started.elapsed())
}
