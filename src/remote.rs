//! A running server as commands talk to it: its URL, an API key, TLS.
//!
//! Every command that talks to a server does so through [`Remote`], so that keys, certificates and the
//! words of an error are the same everywhere. It waits as long as the server takes unless told
//! otherwise, and sends nothing twice: trying again is for those who know that it is safe.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use serde_json::Value as Json;
use ureq::http::StatusCode;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Error, SendBody};

use crate::features::value::shorten;

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest answer that is read, in bytes.
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;

/// How much of an answer that is no JSON an error repeats, in characters.
const MAX_QUOTED_CHARS: usize = 500;

/// What a caller shows and what it trusts.
#[derive(Default)]
pub struct Credentials<'a> {
    /// An API key, `bw_…`.
    pub key: Option<&'a str>,
    /// Certificates (PEM) that the server's is checked against, instead of the public authorities.
    pub ca_file: Option<&'a Path>,
    /// Files (PEM) with a certificate of the caller's own and its private key.
    pub client: Option<(&'a Path, &'a Path)>,
}

/// A running server.
pub struct Remote {
    agent: Agent,
    /// Without a slash at the end.
    url: String,
    /// The value of the header `Authorization`.
    authorization: Option<String>,
    /// How long an answer may take.
    within: Option<Duration>,
}

/// What the server answered, whatever its status.
pub struct Reply {
    pub status: StatusCode,
    pub text: String,
    /// The URL that was asked, for messages.
    url: String,
    /// Whether a key was shown.
    had_key: bool,
}

impl Remote {
    /// The server at `url`, for example `http://127.0.0.1:8080`. It is not asked anything yet.
    ///
    /// # Errors
    /// When that is no URL, or the key or a file cannot be what it is said to be.
    pub fn new(url: &str, credentials: &Credentials<'_>) -> Result<Remote, String> {
        let is_http = url.starts_with("http://") || url.starts_with("https://");
        if !is_http || url.contains(char::is_whitespace) {
            return Err(format!(
                "--server: expected a URL like http://127.0.0.1:8080, found {url:?}"
            ));
        }
        let authorization = credentials.key.map(bearer).transpose()?;
        let mut tls = TlsConfig::builder();
        if let Some(file) = credentials.ca_file {
            let certificates = read_certificates("--ca-file", file)?;
            tls = tls.root_certs(RootCerts::new_with_certs(&certificates));
        }
        if let Some((certificate_file, key_file)) = credentials.client {
            let chain = read_certificates("--client-cert", certificate_file)?;
            let key = read_private_key("--client-key", key_file)?;
            tls = tls.client_cert(Some(ClientCert::new_with_certs(&chain, key)));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .tls_config(tls.build())
            .build();
        Ok(Remote {
            agent: Agent::new_with_config(config),
            url: url.trim_end_matches('/').to_owned(),
            authorization,
            within: None,
        })
    }

    /// The same, but every request has to be answered within this time.
    pub fn within(mut self, time: Duration) -> Remote {
        self.within = Some(time);
        self
    }

    /// The URL of the server, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Asks for `path`, which begins with a slash.
    ///
    /// # Errors
    /// When no answer came. A refusal is an answer; see [`Reply::json`].
    pub fn get(&self, path: &str) -> Result<Reply, String> {
        let url = self.url_of(path);
        let mut request = self.agent.get(&url);
        if let Some(value) = &self.authorization {
            request = request.header("authorization", value);
        }
        let request = request.config().timeout_global(self.within).build();
        self.reply(&url, request.call())
    }

    /// Asks for `path` in the form `accept`: the bytes of the answer, or the refusal.
    ///
    /// # Errors
    /// As [`get`](Remote::get).
    pub fn get_bytes(&self, path: &str, accept: &str) -> Result<Result<Vec<u8>, Reply>, String> {
        let url = self.url_of(path);
        let mut request = self.agent.get(&url).header("accept", accept);
        if let Some(value) = &self.authorization {
            request = request.header("authorization", value);
        }
        let request = request.config().timeout_global(self.within).build();
        let mut response = request
            .call()
            .map_err(|error| self.unreachable(&url, &error))?;
        if !response.status().is_success() {
            return self.reply(&url, Ok(response)).map(Err);
        }
        let limited = response.body_mut().with_config().limit(MAX_ANSWER_BYTES);
        let bytes = limited.read_to_vec();
        bytes
            .map(Ok)
            .map_err(|error| self.unreachable(&url, &error))
    }

    /// Posts a body of the given type to `path`.
    ///
    /// # Errors
    /// As [`get`](Remote::get).
    pub fn post(&self, path: &str, content_type: &str, body: &[u8]) -> Result<Reply, String> {
        let url = self.url_of(path);
        let request = self.posting(&url).header("content-type", content_type);
        self.reply(&url, request.send(body))
    }

    /// Posts JSON to `path`.
    ///
    /// # Errors
    /// As [`get`](Remote::get).
    pub fn post_json(&self, path: &str, body: &Json) -> Result<Reply, String> {
        self.post(path, "application/json", body.to_string().as_bytes())
    }

    /// Posts nothing to `path`.
    ///
    /// # Errors
    /// As [`get`](Remote::get).
    pub fn post_empty(&self, path: &str) -> Result<Reply, String> {
        let url = self.url_of(path);
        let request = self.posting(&url);
        self.reply(&url, request.send_empty())
    }

    /// Posts what `body` reads, which is `bytes` long. It is sent once the server has seen the head and
    /// wants the rest, so that a refusal is heard.
    ///
    /// # Errors
    /// As [`get`](Remote::get).
    pub fn upload(
        &self,
        path: &str,
        content_type: &str,
        bytes: u64,
        body: &mut dyn Read,
    ) -> Result<Reply, String> {
        let url = self.url_of(path);
        let request = self
            .posting(&url)
            .header("content-type", content_type)
            .header("content-length", bytes)
            .header("expect", "100-continue");
        self.reply(&url, request.send(SendBody::from_reader(body)))
    }

    fn url_of(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    fn posting(&self, url: &str) -> ureq::RequestBuilder<ureq::typestate::WithBody> {
        let mut request = self.agent.post(url);
        if let Some(value) = &self.authorization {
            request = request.header("authorization", value);
        }
        request.config().timeout_global(self.within).build()
    }

    fn reply(
        &self,
        url: &str,
        answered: Result<ureq::http::Response<ureq::Body>, Error>,
    ) -> Result<Reply, String> {
        let mut response = answered.map_err(|error| self.unreachable(url, &error))?;
        let limited = response.body_mut().with_config().limit(MAX_ANSWER_BYTES);
        let text = limited.read_to_string();
        Ok(Reply {
            status: response.status(),
            text: text.map_err(|error| self.unreachable(url, &error))?,
            url: url.to_owned(),
            had_key: self.authorization.is_some(),
        })
    }

    fn unreachable(&self, url: &str, error: &Error) -> String {
        let problem = error.to_string();
        let is_refused = matches!(error, Error::Io(io)
            if io.kind() == std::io::ErrorKind::ConnectionRefused);
        let hint = if is_refused {
            "; is the server running there?"
        } else if problem.contains("certificate") {
            "; --ca-file names the certificates of the authority that signed the server's"
        } else if url.starts_with("https://") && problem.contains("InvalidContentType") {
            "; what answers there speaks no TLS: is it http:// ?"
        } else if url.starts_with("http://") && problem.contains("http parse fail") {
            "; what answers there speaks no HTTP: is it https:// ?"
        } else {
            ""
        };
        format!("{url}: {problem}{hint}")
    }
}

impl Reply {
    /// The JSON of an answer that says yes.
    ///
    /// # Errors
    /// What the server says instead, with its status and its URL.
    pub fn json(&self) -> Result<Json, String> {
        if !self.status.is_success() {
            return Err(self.refusal());
        }
        serde_json::from_str(&self.text).map_err(|error| {
            let found = shorten(&self.text, 100);
            format!("{}: expected JSON, found {found:?}: {error}", self.url)
        })
    }

    /// What a refusal says.
    pub fn refusal(&self) -> String {
        let body: Json = serde_json::from_str(&self.text).unwrap_or_default();
        let said = match body["error"].as_str() {
            Some(error) => error.to_owned(),
            None if self.text.trim().is_empty() => "no reason was given".to_owned(),
            None => shorten(self.text.trim(), MAX_QUOTED_CHARS),
        };
        let hint = match self.status {
            StatusCode::UNAUTHORIZED if !self.had_key => {
                "; give a key in BELLWETHER_API_KEY or with --key"
            }
            _ => "",
        };
        format!("{}: {}: {said}{hint}", self.url, self.status)
    }
}

/// The header that shows a key.
fn bearer(key: &str) -> Result<String, String> {
    // Not repeated: what is wrong may still be a secret.
    let key = key.trim();
    let is_token = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic());
    match is_token {
        true => Ok(format!("Bearer {key}")),
        false => Err(
            "--key (BELLWETHER_API_KEY): expected a key as `bellwether keys create` prints it"
                .to_owned(),
        ),
    }
}

fn read_certificates(flag: &str, file: &Path) -> Result<Vec<Certificate<'static>>, String> {
    let mut certificates = Vec::new();
    for item in read_pem(flag, file)? {
        if let PemItem::Certificate(certificate) = item {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        let file = file.display();
        return Err(format!(
            "{flag} {file}: expected certificates in PEM, found none"
        ));
    }
    Ok(certificates)
}

fn read_private_key(flag: &str, file: &Path) -> Result<PrivateKey<'static>, String> {
    let items = read_pem(flag, file)?.into_iter();
    let mut keys = items.filter_map(|item| match item {
        PemItem::PrivateKey(key) => Some(key),
        _ => None,
    });
    let file = file.display();
    keys.next()
        .ok_or_else(|| format!("{flag} {file}: expected a private key in PEM, found none"))
}

fn read_pem(flag: &str, file: &Path) -> Result<Vec<PemItem<'static>>, String> {
    let failed = |problem: String| format!("{flag} {}: {problem}", file.display());
    let text = std::fs::read(file).map_err(|error| failed(error.to_string()))?;
    let items: Result<Vec<PemItem<'static>>, Error> = parse_pem(&text).collect();
    items.map_err(|error| failed(format!("cannot be read as PEM: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_no_url_is_refused() {
        for url in ["127.0.0.1:8080", "", "ftp://x", "http://a b"] {
            assert!(Remote::new(url, &Credentials::default()).is_err(), "{url}");
        }
    }

    #[test]
    fn a_key_that_is_none_is_refused_and_not_repeated() {
        for key in ["", "hunter 2", "hunter\n2", "hünter2"] {
            let credentials = Credentials {
                key: Some(key),
                ..Credentials::default()
            };
            let refused = Remote::new("http://127.0.0.1:1", &credentials).err();
            let refused = refused.unwrap();
            assert!(refused.contains("--key") && !refused.contains("nter"));
        }
    }

    #[test]
    fn a_refusal_says_what_the_server_said() {
        let reply = |status, text: &str| Reply {
            status,
            text: text.to_owned(),
            url: "http://x/v1/y".to_owned(),
            had_key: false,
        };
        assert_eq!(
            reply(StatusCode::CONFLICT, r#"{"error":"not now"}"#).json(),
            Err("http://x/v1/y: 409 Conflict: not now".to_owned())
        );
        assert_eq!(
            reply(StatusCode::BAD_GATEWAY, "").refusal(),
            "http://x/v1/y: 502 Bad Gateway: no reason was given"
        );
        let refused = reply(StatusCode::UNAUTHORIZED, r#"{"error":"who?"}"#).refusal();
        assert!(refused.contains("who?") && refused.contains("BELLWETHER_API_KEY"));
        assert!(reply(StatusCode::OK, "<html>").json().is_err());
    }
}
