//! Scoring whole tables on several machines, by Apache Ballista.
//!
//! A job is a plan of Apache DataFusion: it reads the files and calls one function, [`predict`], which is
//! the function of the one-machine job in the plan's clothes. So the scores are the same to the bit, and a
//! row that is rejected comes back with its reason. Ballista cuts the plan into tasks, gives them to
//! executors, and gives them to others when an executor is lost.
//!
//! * [`spec`] – what a job is, as the function is told.
//! * [`input`] – which reader takes a file, and that it reads it as the one-machine job does.
//! * [`client`] – the command's side: plan, submit, take the rows. [`returned`] – rows as they come back.
//! * [`predict`] – the function; [`models`] – the models of an executor, by digest.
//! * [`scheduler`], [`executor`] – the two services; [`logging`] – what Ballista logs.
//!
//! Everything but the options is compiled with the feature `full` only.
//!
//! The order of the rows is not that of the input, and files are read by the scheduler and the executors
//! under the paths that the command sees. Nobody is authenticated: whoever reaches the ports runs plans.

#[cfg(feature = "full")]
pub mod client;
#[cfg(feature = "full")]
pub mod executor;
#[cfg(feature = "full")]
pub mod input;
#[cfg(feature = "full")]
pub mod logging;
#[cfg(feature = "full")]
pub mod models;
#[cfg(feature = "full")]
pub mod predict;
#[cfg(feature = "full")]
pub mod returned;
#[cfg(feature = "full")]
pub mod scheduler;
#[cfg(feature = "full")]
pub mod spec;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What is said when the feature `full` was left out.
pub const NOT_BUILT: &str = "this binary was built without the cluster; build one with it by \
     `cargo build --release --features full`";

/// The cluster that a job runs on.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The scheduler, as `http://HOST:PORT`.
    pub url: String,
}

/// How the scheduler is run.
#[derive(Clone, Debug)]
pub struct SchedulerOptions {
    pub listen: SocketAddr,
    /// An executor that was not heard of for so long is lost.
    pub executor_timeout: Duration,
    /// How often a task, or a stage of tasks, is tried.
    pub attempts: usize,
    /// How long the results of a job are kept on the executors, to be fetched.
    pub keep_results: Duration,
    /// Without so many executors the scheduler is not ready.
    pub ready_executors: usize,
    /// Whether results come by way of the scheduler, for clients that cannot reach the executors.
    pub proxy_results: bool,
}

/// How an executor is run.
#[derive(Clone, Debug)]
pub struct ExecutorOptions {
    /// The scheduler, as `http://HOST:PORT`.
    pub scheduler: String,
    pub listen: SocketAddr,
    /// The name by which others reach it; the address it is seen to come from when left out.
    pub advertise: Option<String>,
    pub models: PathBuf,
    pub features: PathBuf,
    /// Tasks at the same time.
    pub tasks: usize,
    /// What the rows that are being scored may take, in bytes.
    pub memory: u64,
    /// Where results are kept until they are fetched.
    pub work_dir: PathBuf,
    /// How long it tries to reach the scheduler when it starts.
    pub connect_timeout: Duration,
}

#[cfg(feature = "full")]
pub use client::run;

/// Runs a job on a cluster.
///
/// # Errors
/// That this binary cannot.
#[cfg(not(feature = "full"))]
pub fn run<'p>(
    _cluster: &Cluster,
    _plan: &'p super::score::plan::Plan,
    _files: &'p [super::score::inputs::InputFile],
    _at_us: i64,
    new_sink: &dyn Fn() -> super::score::sink::Sink<'p>,
    _tell: &(dyn Fn(super::score::News<'_>) + Sync),
) -> (super::score::sink::Sink<'p>, Result<(), String>) {
    (new_sink(), Err(NOT_BUILT.to_owned()))
}

/// Checks that the URL of a scheduler is one, before anything is done with it.
///
/// # Errors
/// What was expected.
pub fn read_url(text: &str) -> Result<String, String> {
    let problem = |what: &str| format!("{what}; expected http://HOST:PORT, found {text:?}");
    if text.starts_with("https://") {
        return Err(problem("a cluster does not speak TLS"));
    }
    let place = ["http://", "df://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    let place = place.ok_or_else(|| problem("no scheme"))?;
    let place = place.strip_suffix('/').unwrap_or(place);
    let (host, port) = place.rsplit_once(':').ok_or_else(|| problem("no port"))?;
    let is_host = !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']);
    if !is_host || port.parse::<u16>().is_err() {
        return Err(problem("no host and port"));
    }
    Ok(format!("http://{place}"))
}

/// Checks that an address is not reached by everybody, unless that is meant.
///
/// # Errors
/// What there is to know, and how to say that it is meant.
pub fn check_listen(address: SocketAddr, allow_remote: bool) -> Result<(), String> {
    if address.ip().is_loopback() || allow_remote {
        return Ok(());
    }
    Err(format!(
        "--listen {address}: other machines reach that address, and nobody is authenticated there: \
         whoever reaches it reads files and runs plans as this process. Inside a private network, say \
         --allow-remote"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_a_scheduler_has_a_host_and_a_port() {
        assert_eq!(
            read_url("http://10.0.0.1:50050/"),
            Ok("http://10.0.0.1:50050".to_owned())
        );
        assert_eq!(read_url("df://a:1"), Ok("http://a:1".to_owned()));
        assert_eq!(read_url("http://[::1]:9"), Ok("http://[::1]:9".to_owned()));
        for text in [
            "",
            "a:1",
            "https://a:1",
            "http://a",
            "http://:1",
            "http://a:x",
            "http://a/b:1",
        ] {
            assert!(
                read_url(text).unwrap_err().contains("http://HOST:PORT"),
                "{text}"
            );
        }
    }

    #[test]
    fn an_address_that_others_reach_has_to_be_meant() {
        let check = |address: &str, allow| check_listen(address.parse().unwrap(), allow);
        assert_eq!(check("127.0.0.1:1", false), Ok(()));
        assert_eq!(check("[::1]:1", false), Ok(()));
        assert_eq!(check("0.0.0.0:1", true), Ok(()));
        assert!(
            check("0.0.0.0:1", false)
                .unwrap_err()
                .contains("--allow-remote")
        );
    }
}
