//! From the configuration to something that connects.
//!
//! A password is read here and handed to the client; no message and no log entry repeats it.

use std::time::Duration;

use ::redis::aio::{ConnectionLike, MultiplexedConnection};
use ::redis::cluster::ClusterClient;
use ::redis::cluster_async::ClusterConnection;
use ::redis::cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr};
use ::redis::io::tcp::TcpSettings;
use ::redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, FromRedisValue, IntoConnectionInfo,
    Pipeline, RedisResult, Script, TlsCertificates, Value,
};
use futures_util::future::join_all;

use crate::config::StoreConfig;

const EXPECTED: &str = "expected redis://[user:password@]host[:port][/db]; rediss:// for TLS, \
                        redis+cluster:// and rediss+cluster:// for a cluster, of which several nodes may be \
                        named, separated by commas";

/// A Redis server or cluster.
pub struct Address {
    name: String,
    client: Connector,
}

enum Connector {
    Single(Box<Client>),
    Cluster(Box<ClusterClient>),
}

/// An open connection; clones share it.
#[derive(Clone)]
pub enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Address {
    /// # Errors
    /// The setting that is wrong, and what was expected.
    pub fn new(config: &StoreConfig) -> Result<Address, String> {
        let url = config
            .url
            .as_ref()
            .ok_or_else(|| format!("store.url: missing; {EXPECTED}"))?;
        let wrong = |problem: &str| format!("store.url: {problem}; {EXPECTED}");
        let (scheme, rest) = url
            .reveal()
            .split_once("://")
            .ok_or_else(|| wrong("has no scheme"))?;
        let (scheme, in_scheme) = match scheme.strip_suffix("+cluster") {
            Some(scheme) => (scheme, true),
            None => (scheme, false),
        };
        if !matches!(scheme, "redis" | "rediss" | "valkey" | "valkeys") {
            return Err(wrong("has a scheme that is not known"));
        }
        if rest.contains(['?', '#']) {
            return Err(wrong(
                "has options behind ? or #, which are not taken; settings have names of their own",
            ));
        }
        let cluster = config.cluster || in_scheme;
        let (authority, db) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (format!("{user}@"), hosts),
            None => (String::new(), authority),
        };
        if hosts.contains(',') && !cluster {
            return Err(wrong("names several hosts, which only a cluster has"));
        }
        if cluster && !matches!(db, "" | "0") {
            return Err(wrong("names a database, and a cluster has only one"));
        }
        let mut nodes = Vec::new();
        for host in hosts.split(',') {
            // What the parser says may repeat the text it was given, so it is not repeated here.
            let node = format!("{scheme}://{user}{host}/{db}").into_connection_info();
            let node: ConnectionInfo = node.map_err(|_| wrong("cannot be read"))?;
            nodes.push(node.set_tcp_settings(TcpSettings::default().set_nodelay(true)));
        }
        let certificates = certificates(config, scheme)?;
        let name = format!("{scheme}://{hosts}/{db}");
        let client = if cluster {
            cluster_client(nodes, certificates, config)
        } else {
            single_client(nodes, certificates)
        };
        let client = client.map_err(|error| {
            format!(
                "store: cannot prepare the connection to {name}: {}",
                describe(&error)
            )
        })?;
        Ok(Address { name, client })
    }

    /// Scheme, hosts and database, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn is_cluster(&self) -> bool {
        matches!(self.client, Connector::Cluster(_))
    }

    /// Connects and asks for a sign of life.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn connect(&self, limit: Duration) -> Result<Connection, String> {
        let connect = async {
            let mut connection = match &self.client {
                Connector::Single(client) => {
                    let config = AsyncConnectionConfig::new()
                        .set_connection_timeout(Some(limit))
                        .set_response_timeout(None);
                    let open = client.get_multiplexed_async_connection_with_config(&config);
                    Connection::Single(open.await?)
                }
                Connector::Cluster(client) => {
                    Connection::Cluster(client.get_async_connection().await?)
                }
            };
            let _: String = connection
                .command(&Cmd::new().arg("PING").to_owned())
                .await?;
            Ok(connection)
        };
        match tokio::time::timeout(limit, connect).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(describe(&error)),
            Err(_) => Err(format!(
                "no connection within {}",
                humantime::format_duration(limit)
            )),
        }
    }
}

impl Connection {
    /// Sends one command.
    pub async fn command<T: FromRedisValue>(&mut self, command: &Cmd) -> RedisResult<T> {
        let value = match self {
            Connection::Single(connection) => connection.req_packed_command(command).await?,
            Connection::Cluster(connection) => connection.req_packed_command(command).await?,
        };
        read_answer(value)
    }

    /// Sends one command, in a cluster to the primary that has `slot`.
    pub async fn command_at<T: FromRedisValue>(
        &mut self,
        slot: u16,
        command: &Cmd,
    ) -> RedisResult<T> {
        let value = match self {
            Connection::Single(connection) => connection.req_packed_command(command).await?,
            Connection::Cluster(connection) => {
                let primary =
                    SingleNodeRoutingInfo::SpecificNode(Route::new(slot, SlotAddr::Master));
                let routing = RoutingInfo::SingleNode(primary);
                connection.route_command(command.clone(), routing).await?
            }
        };
        read_answer(value)
    }

    /// Sends commands at once and waits for all answers. A cluster takes each to the node that has its
    /// key; those for one node go one behind the other.
    ///
    /// # Errors
    /// When the connection fails; what the server refuses is with its command.
    pub async fn commands<T: FromRedisValue>(
        &mut self,
        commands: &Pipeline,
    ) -> RedisResult<Vec<RedisResult<T>>> {
        match self {
            Connection::Single(connection) => {
                let values = connection.req_packed_commands(commands, 0, commands.len());
                Ok(values.await?.into_iter().map(read_answer).collect())
            }
            Connection::Cluster(connection) => {
                let send = |command: &Cmd| {
                    let mut connection = connection.clone();
                    let command = command.clone();
                    async move { read_answer(connection.req_packed_command(&command).await?) }
                };
                Ok(join_all(commands.cmd_iter().map(send)).await)
            }
        }
    }

    /// Makes a script known.
    pub async fn load(&mut self, script: &Script) -> RedisResult<()> {
        match self {
            Connection::Single(connection) => script.load_async(connection).await?,
            Connection::Cluster(connection) => script.load_async(connection).await?,
        };
        Ok(())
    }
}

fn read_answer<T: FromRedisValue>(value: Value) -> RedisResult<T> {
    Ok(::redis::from_redis_value(value.extract_error()?)?)
}

fn certificates(config: &StoreConfig, scheme: &str) -> Result<Option<TlsCertificates>, String> {
    let with_tls = matches!(scheme, "rediss" | "valkeys");
    let Some(file) = &config.tls_ca_file else {
        return Ok(with_tls.then_some(TlsCertificates {
            client_tls: None,
            root_cert: None,
        }));
    };
    if !with_tls {
        return Err(format!(
            "store.tls_ca_file is set, but store.url says {scheme}://, which is not encrypted; write \
             rediss://, or leave the file out"
        ));
    }
    let pem = std::fs::read(file)
        .map_err(|error| format!("store.tls_ca_file {}: {error}", file.display()))?;
    if !pem
        .windows(22)
        .any(|window| window == b"-----BEGIN CERTIFICATE")
    {
        return Err(format!(
            "store.tls_ca_file {}: holds no certificate; expected PEM text with BEGIN CERTIFICATE",
            file.display()
        ));
    }
    Ok(Some(TlsCertificates {
        client_tls: None,
        root_cert: Some(pem),
    }))
}

fn single_client(
    nodes: Vec<ConnectionInfo>,
    certificates: Option<TlsCertificates>,
) -> RedisResult<Connector> {
    let Some(node) = nodes.into_iter().next() else {
        return Err((::redis::ErrorKind::InvalidClientConfig, "no host").into());
    };
    let client = match certificates {
        Some(certificates) => Client::build_with_tls(node, certificates)?,
        None => Client::open(node)?,
    };
    Ok(Connector::Single(Box::new(client)))
}

fn cluster_client(
    nodes: Vec<ConnectionInfo>,
    certificates: Option<TlsCertificates>,
    config: &StoreConfig,
) -> RedisResult<Connector> {
    let mut builder = ClusterClient::builder(nodes)
        .connection_timeout(config.connect_timeout)
        .response_timeout(config.timeout * super::WRITE_FACTOR)
        .tcp_settings(TcpSettings::default().set_nodelay(true));
    if let Some(certificates) = certificates {
        builder = builder.certs(certificates);
    }
    Ok(Connector::Cluster(Box::new(builder.build()?)))
}

/// A failure in a few words, without what was sent.
pub fn describe(error: &::redis::RedisError) -> String {
    crate::features::value::shorten(&error.to_string(), 200)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str) -> Result<Address, String> {
        Address::new(&StoreConfig {
            url: Some(url.into()),
            ..StoreConfig::default()
        })
    }

    #[test]
    fn every_kind_of_url_is_read_and_named_without_its_password() {
        for (url, name) in [
            ("redis://localhost", "redis://localhost/"),
            (
                "redis://user:hunter2@localhost:7000/3",
                "redis://localhost:7000/3",
            ),
            ("rediss://:hunter2@redis.example", "rediss://redis.example/"),
            ("redis+cluster://u:hunter2@a:1,b:2", "redis://a:1,b:2/"),
            ("redis://u:p%40ss@[::1]:6379/0", "redis://[::1]:6379/0"),
        ] {
            assert_eq!(address(url).unwrap().name(), name);
        }
    }

    #[test]
    fn a_wrong_url_is_refused_without_repeating_it() {
        for url in [
            "hunter2",
            "http://u:hunter2@localhost",
            "redis://u:hunter2@localhost:port",
            "redis://u:hunter2@localhost/db",
            "redis://u:hunter2@a,b",
            "redis+cluster://u:hunter2@a/1",
            "redis://u:hunter2@localhost#insecure",
        ] {
            let problem = address(url).err().unwrap();
            assert!(problem.starts_with("store.url: "), "{problem}");
            assert!(!problem.contains("hunter2"), "{problem}");
            assert!(problem.contains("expected redis://"), "{problem}");
        }
    }
}
