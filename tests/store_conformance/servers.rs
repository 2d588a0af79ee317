//! Real Redis servers for the tests: on a free port of this machine, in a directory of their own,
//! without persistence, and gone when the test is.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::ConnectionLike;
use tempfile::TempDir;

/// How long a server may take to start on a busy machine.
const START: Duration = Duration::from_secs(30);

/// A running `redis-server`.
pub struct RedisServer {
    process: Child,
    pub port: u16,
    arguments: Vec<String>,
    dir: TempDir,
}

/// Whether there is a `redis-server`; says so where there is none, and fails where all tests must run.
pub fn redis_is_installed() -> bool {
    let version = Command::new("redis-server")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    if version.is_ok() {
        return true;
    }
    let advice =
        "redis-server not found (Debian, Ubuntu: apt-get install redis-server; ./test does it)";
    assert!(std::env::var_os("CI").is_none(), "{advice}");
    // Past the capture of the test harness, which would hide it.
    let _ = writeln!(std::io::stderr(), "skipped: {advice}");
    false
}

/// A port that nobody listens on, and that nobody is given who asks for any: no connection takes it before
/// it is used. Redis cannot choose one by itself.
pub fn free_port() -> u16 {
    let given = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok();
    let first_given = given.and_then(|range| range.split_whitespace().next()?.parse().ok());
    let first_given: u16 = first_given.unwrap_or(49_152);
    loop {
        let port = fastrand::u16(first_given / 2..first_given);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl RedisServer {
    /// Starts a server that speaks plain TCP.
    pub fn start(arguments: &[&str]) -> RedisServer {
        RedisServer::start_with(|port| {
            let mut all = vec!["--port".to_owned(), port.to_string()];
            all.extend(arguments.iter().map(|&argument| argument.to_owned()));
            all
        })
    }

    /// Starts a server with arguments that depend on its port.
    pub fn start_with(arguments: impl Fn(u16) -> Vec<String>) -> RedisServer {
        let dir = tempfile::tempdir().unwrap();
        // Somebody else may take the port before Redis does; then with another.
        for _ in 0..10 {
            let port = free_port();
            let arguments = arguments(port);
            if let Some(process) = launch(port, &arguments, dir.path()) {
                return RedisServer {
                    process,
                    port,
                    arguments,
                    dir,
                };
            }
        }
        panic!("redis-server did not start on any of ten ports");
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A connection of the test's own, without any code that is tested.
    pub fn admin(&self) -> redis::Connection {
        let client = redis::Client::open(self.url()).unwrap();
        client.get_connection().unwrap()
    }

    /// Ends the server as a crash would; what it held is lost.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again on the same port.
    pub fn restart(&mut self) {
        let deadline = Instant::now() + START;
        loop {
            if let Some(process) = launch(self.port, &self.arguments, self.dir.path()) {
                self.process = process;
                return;
            }
            assert!(
                Instant::now() < deadline,
                "redis-server did not start again"
            );
        }
    }

    /// Lets it hold its breath: connections stay open and nothing answers.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    pub fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &id])
            .status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The process once it listens; `None` when it ended before that.
fn launch(port: u16, arguments: &[String], dir: &Path) -> Option<Child> {
    let mut process = Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(["--daemonize", "no", "--loglevel", "warning"])
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + START;
    loop {
        if process.try_wait().unwrap().is_some() {
            return None;
        }
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Some(process);
        }
        assert!(Instant::now() < deadline, "redis-server does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Three servers that share the keys among them.
pub fn start_cluster() -> Vec<RedisServer> {
    let start = || {
        RedisServer::start_with(|port| {
            let bus = free_port().to_string();
            let port = port.to_string();
            [
                "--port",
                &port,
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &bus,
            ]
            .map(str::to_owned)
            .to_vec()
        })
    };
    let nodes = [start(), start(), start()];
    for (index, node) in nodes.iter().enumerate() {
        let mut admin = node.admin();
        let first = [0, 5461, 10923][index];
        let last = [5460, 10922, 16383][index];
        let slots: String = redis::cmd("CLUSTER")
            .arg("ADDSLOTSRANGE")
            .arg(first)
            .arg(last)
            .query(&mut admin)
            .unwrap();
        assert_eq!(slots, "OK");
        for other in &nodes {
            let bus = other.arguments.last().unwrap();
            let meet = redis::cmd("CLUSTER")
                .arg("MEET")
                .arg("127.0.0.1")
                .arg(other.port)
                .arg(bus)
                .query::<String>(&mut admin);
            assert_eq!(meet.unwrap(), "OK");
        }
    }
    let deadline = Instant::now() + START;
    for node in &nodes {
        let mut admin = node.admin();
        loop {
            let info: String = redis::cmd("CLUSTER").arg("INFO").query(&mut admin).unwrap();
            if info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3") {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "the cluster does not form: {info}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    nodes.into()
}

/// How many keys a server holds.
pub fn keys(server: &RedisServer) -> Vec<String> {
    let mut admin = server.admin();
    assert!(admin.check_connection());
    redis::cmd("KEYS").arg("*").query(&mut admin).unwrap()
}

/// An authority and a certificate for 127.0.0.1 signed by it, made by the `openssl` command:
/// `ca.pem`, `server.pem`, `server.key` in `dir`.
pub fn make_certificates(dir: &Path) {
    let config = "[req]\ndistinguished_name=dn\n[dn]\n[ca]\nbasicConstraints=critical,CA:TRUE\n\
                  [server]\nsubjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n";
    std::fs::write(dir.join("openssl.cnf"), config).unwrap();
    let key = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ];
    let openssl = |arguments: &[&str]| {
        let done = Command::new("openssl")
            .args(arguments)
            .current_dir(dir)
            .output();
        let done = done.expect("openssl not found (Debian, Ubuntu: apt-get install openssl)");
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
    };
    let req = |subject: &str, section: &str, out: &[&str]| {
        let mut all = vec!["req", "-x509", "-days", "2", "-config", "openssl.cnf"];
        all.extend(["-subj", subject, "-extensions", section]);
        all.extend(key);
        all.extend(out);
        openssl(&all);
    };
    req(
        "/CN=test authority",
        "ca",
        &["-keyout", "ca.key", "-out", "ca.pem"],
    );
    req(
        "/CN=test server",
        "server",
        &[
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-keyout",
            "server.key",
            "-out",
            "server.pem",
        ],
    );
    req(
        "/CN=somebody else",
        "ca",
        &["-keyout", "other.key", "-out", "other.pem"],
    );
}
