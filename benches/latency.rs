//! What a score costs over HTTP, against a route that does nothing; and what an API key costs, against a
//! server that asks for none.
//!
//!     cargo bench --bench latency [-- --requests 20000]
//!
//! Starts the real server with 10,000 simulated customers, and on one keep-alive connection sends
//! `GET /livez` and `POST /v1/score` (one customer, stored features, ledger on) in turn, so that
//! whatever the machine does meanwhile meets both alike. Prints medians and 99th percentiles.
//!
//! Then it starts a second one with the same customers and a key, and sends the same requests to both in
//! turn: a score, an inference, and `GET /v2`, which does little else than look at the key.

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

use serde_json::{Value as Json, json};

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
    let scratch = tempfile::tempdir()?;
    let table = scratch.path().join("customers.csv");
    let simulate = ["simulate", "customers", "--rows", "10000", "--output"];
    finish(command(&simulate).arg(&table))?;
    let open_dir = scratch.path().join("open");
    let (_open, mut connection) = start(&open_dir, &table)?;
    for models in [None, Some("churn")] {
        measure(&mut connection, requests, models)?;
    }

    let keyed_dir = scratch.path().join("keyed");
    let create = ["keys", "create", "--name", "bench", "--scope", "score"];
    let key = finish(command(&create).arg("--data-dir").arg(&keyed_dir))?;
    let (_keyed, mut keyed_connection) = start(&keyed_dir, &table)?;
    let inference = inference(&mut connection)?;
    let score = "{\"customer_id\": \"C-000001\", \"models\": [\"churn\"]}";
    for (name, method, path, body) in [
        ("/v1/score", "POST", "/v1/score", score),
        ("inference", "POST", "/v2/models/churn/infer", &inference),
        ("/v2", "GET", "/v2", ""),
    ] {
        let request = |authorization: &str| {
            format!(
                "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                 {authorization}Content-Length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        let authorization = format!("Authorization: Bearer {}\r\n", key.trim());
        let mut without = (&mut connection, request(""), Vec::new());
        let mut with = (&mut keyed_connection, request(&authorization), Vec::new());
        for number in 0..requests + requests / 10 {
            // Whoever comes second finds caches as the first has left them.
            let turns = match number % 2 {
                0 => [&mut without, &mut with],
                _ => [&mut with, &mut without],
            };
            for (connection, request, times) in turns {
                let time = round_trip(connection, request.as_bytes())?.0;
                if number >= requests / 10 {
                    times.push(time);
                }
            }
        }
        let (without, with) = (median(&mut without.2), median(&mut with.2));
        println!(
            "{requests} alternating requests, {name}: median without keys {without:.1} us, with a key \
             {with:.1} us, ratio {:.3}",
            with / without
        );
    }
    Ok(())
}

/// A command of the program, run where the sample models are.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command
        .args(arguments)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")));
    command
}

/// A server with the customers of `table`, and a connection to it.
fn start(data_dir: &Path, table: &Path) -> Result<(Server, BufReader<TcpStream>), AnyError> {
    let push = ["features", "push", "--view", "customer", "--data-dir"];
    finish(command(&push).arg(data_dir).arg(table))?;
    let mut server = Server(
        command(&["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data_dir)
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
    Ok((server, BufReader::new(stream)))
}

/// An inference of one row of the churn model, by what the server says of its inputs.
fn inference(connection: &mut BufReader<TcpStream>) -> Result<String, AnyError> {
    let metadata = b"GET /v2/models/churn HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let (_, body) = round_trip(connection, metadata)?;
    let metadata: Json = serde_json::from_slice(&body)?;
    let inputs = metadata["inputs"].as_array().ok_or("no inputs")?;
    let inputs: Vec<Json> = inputs
        .iter()
        .map(|input| {
            let value = match input["datatype"].as_str() {
                Some("BYTES") => json!("No"),
                Some("BOOL") => json!(true),
                _ => json!(1),
            };
            json!({
                "name": input["name"], "datatype": input["datatype"], "shape": [1, 1], "data": [value]
            })
        })
        .collect();
    Ok(json!({ "inputs": inputs }).to_string())
}

/// Runs a command to its end; returns what it printed.
fn finish(command: &mut Command) -> Result<String, AnyError> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?);
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
        let idle_time = round_trip(connection, &idle)?.0;
        let score_time = round_trip(connection, request.as_bytes())?.0;
        // The first tenth warms caches on both sides.
        if number >= requests / 10 {
            live.push(idle_time);
            score.push(score_time);
        }
    }
    let (live_median, live_p99) = (median(&mut live), microseconds(&mut live, 0.99));
    let (median, p99) = (median(&mut score), microseconds(&mut score, 0.99));
    println!(
        "{requests} alternating requests, {}: /livez median {live_median:.1} us (p99 {live_p99:.1}), \
         /v1/score median {median:.1} us (p99 {p99:.1}), score over livez {:.1} us",
        model.map_or("two models".to_owned(), |name| format!("model {name}")),
        median - live_median
    );
    Ok(())
}

fn median(times: &mut [Duration]) -> f64 {
    microseconds(times, 0.5)
}

/// The time that a share of all does not exceed.
fn microseconds(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6
}

/// Sends a request; how long its answer takes, and its body.
fn round_trip(
    connection: &mut BufReader<TcpStream>,
    request: &[u8],
) -> Result<(Duration, Vec<u8>), AnyError> {
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
    Ok((started.elapsed(), body))
}
