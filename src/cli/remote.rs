//! What the commands that talk to a running server have in common: its URL, an API key, TLS.
//!
//! A command that always asks a server flattens [`ServerArgs`]. One that can do its work without a
//! server has a `--server` of its own and flattens [`CredentialArgs`]: its URL is never taken from the
//! environment, because a variable that is left over must not decide where data goes.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::remote::{Credentials, Remote};

/// How often a sign of life is drawn.
const TICK: Duration = Duration::from_millis(120);

/// The server that a command talks to.
#[derive(Clone, Args)]
pub struct ServerArgs {
    /// The running server
    #[arg(
        long,
        value_name = "URL",
        env = "BELLWETHER_SERVER",
        default_value = "http://127.0.0.1:8080"
    )]
    server: String,
    #[command(flatten)]
    credentials: CredentialArgs,
}

/// What a command shows to the server, and what it trusts.
#[derive(Clone, Default, Args)]
pub struct CredentialArgs {
    /// API key for the server; other users of this machine see it here, so better in the environment
    #[arg(
        long,
        value_name = "KEY",
        env = "BELLWETHER_API_KEY",
        hide_env_values = true
    )]
    key: Option<String>,
    /// Certificates (PEM) that the server's is checked against, instead of the public authorities
    #[arg(long, value_name = "FILE", env = "BELLWETHER_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// Certificate (PEM) of this client, for a server that asks for one
    #[arg(
        long,
        value_name = "FILE",
        env = "BELLWETHER_CLIENT_CERT",
        requires = "client_key"
    )]
    client_cert: Option<PathBuf>,
    /// Private key (PEM) of that certificate
    #[arg(
        long,
        value_name = "FILE",
        env = "BELLWETHER_CLIENT_KEY",
        requires = "client_cert"
    )]
    client_key: Option<PathBuf>,
}

impl ServerArgs {
    /// The server, which is not asked anything yet.
    ///
    /// # Errors
    /// The flag that is wrong.
    pub fn connect(&self) -> Result<Remote, String> {
        self.credentials.connect(&self.server)
    }
}

impl CredentialArgs {
    /// The server at `url`.
    ///
    /// # Errors
    /// The flag that is wrong.
    pub fn connect(&self, url: &str) -> Result<Remote, String> {
        let client = self.client_cert.as_deref().zip(self.client_key.as_deref());
        let credentials = Credentials {
            key: self.key.as_deref(),
            ca_file: self.ca_file.as_deref(),
            client,
        };
        Remote::new(url, &credentials)
    }
}

/// Does what takes a while, with a sign of life on standard error where that is a terminal.
pub fn while_waiting<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let bar = ProgressBar::no_length();
    bar.set_draw_target(ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}");
    let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(TICK);
    let done = work();
    bar.finish_and_clear();
    done
}
