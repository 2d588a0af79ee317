//! TLS for HTTP and gRPC, by rustls.
//!
//! Certificate and key are read from files (PEM) and read again when these change, without a
//! connection lost: those that are open go on with what they began with. A pair that does not fit
//! leaves the one before. TLS 1.2 and 1.3 with the suites rustls holds safe; nothing of that is to be
//! set. With `client_ca_file` every client has to show a certificate of one of its authorities, beside
//! an API key: the certificate says that a machine may connect, the key what it may do.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::config::TlsConfig;

/// What is negotiated, so that a client of the one does not begin to talk to the other.
const HTTP: &[u8] = b"http/1.1";
const GRPC: &[u8] = b"h2";

/// The largest file of certificates or keys, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Certificate and key in force.
pub struct Tls {
    certificate_file: PathBuf,
    key_file: PathBuf,
    client_ca_file: Option<PathBuf>,
    configs: ArcSwap<Configs>,
    /// Of the files that were looked at last, taken or not.
    seen: Mutex<Fingerprint>,
}

struct Configs {
    http: Arc<ServerConfig>,
    grpc: Arc<ServerConfig>,
}

type Fingerprint = [u8; 32];

/// What is in the files.
struct Content {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Tls {
    /// Reads the files; `None` when TLS is off.
    ///
    /// # Errors
    /// The setting or the file that is wrong.
    pub fn open(config: &TlsConfig) -> Result<Option<Tls>, String> {
        let Some((certificate_file, key_file)) = config.pair()? else {
            return Ok(None);
        };
        let client_ca_file = config.client_ca_file.as_deref();
        let content = Content::read(certificate_file, key_file, client_ca_file)?;
        let configs = content.configs(certificate_file, key_file, client_ca_file)?;
        Ok(Some(Tls {
            certificate_file: certificate_file.to_owned(),
            key_file: key_file.to_owned(),
            client_ca_file: client_ca_file.map(Path::to_owned),
            configs: ArcSwap::from_pointee(configs),
            seen: Mutex::new(content.fingerprint()),
        }))
    }

    /// For a new connection that is to speak HTTP.
    pub fn http(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.configs.load().http))
    }

    /// For a new connection that is to speak gRPC.
    pub fn grpc(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.configs.load().grpc))
    }

    /// Reads the files again and puts them in force if they have changed; whether they have.
    ///
    /// # Errors
    /// What is wrong with them; what was in force still is. The same files are not tried again.
    pub fn reload(&self) -> Result<bool, String> {
        let client_ca_file = self.client_ca_file.as_deref();
        let content = Content::read(&self.certificate_file, &self.key_file, client_ca_file)?;
        let fingerprint = content.fingerprint();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == fingerprint {
            return Ok(false);
        }
        *seen = fingerprint;
        let configs = content.configs(&self.certificate_file, &self.key_file, client_ca_file)?;
        self.configs.store(Arc::new(configs));
        Ok(true)
    }
}

impl Content {
    fn read(
        certificate_file: &Path,
        key_file: &Path,
        client_ca_file: Option<&Path>,
    ) -> Result<Content, String> {
        let read = |setting: &str, file: &Path| -> Result<Vec<u8>, String> {
            let failed = |problem: String| format!("tls.{setting} {}: {problem}", file.display());
            let size = std::fs::metadata(file).map_err(|error| failed(error.to_string()))?;
            if size.len() > MAX_FILE_BYTES {
                return Err(failed(format!(
                    "expected at most {MAX_FILE_BYTES} bytes, found {}",
                    size.len()
                )));
            }
            std::fs::read(file).map_err(|error| failed(error.to_string()))
        };
        Ok(Content {
            certificate: read("cert_file", certificate_file)?,
            key: read("key_file", key_file)?,
            client_ca: client_ca_file
                .map(|file| read("client_ca_file", file))
                .transpose()?,
        })
    }

    /// The private key itself need not be remembered to see that it is the same.
    fn fingerprint(&self) -> Fingerprint {
        let mut hash = Sha256::new();
        for part in [&self.certificate, &self.key] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update(self.client_ca.as_deref().unwrap_or_default());
        hash.finalize().into()
    }

    fn configs(
        &self,
        certificate_file: &Path,
        key_file: &Path,
        client_ca_file: Option<&Path>,
    ) -> Result<Configs, String> {
        let provider = Arc::new(ring::default_provider());
        let in_file = |setting: &str, file: &Path, problem: String| {
            format!("tls.{setting} {}: {problem}", file.display())
        };
        let chain = certificates(&self.certificate)
            .map_err(|problem| in_file("cert_file", certificate_file, problem))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| {
            let problem = format!("expected a private key in PEM (not encrypted): {error}");
            in_file("key_file", key_file, problem)
        })?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match (&self.client_ca, client_ca_file) {
            (Some(authorities), Some(file)) => {
                let verifier = clients_of(authorities, provider);
                let verifier =
                    verifier.map_err(|problem| in_file("client_ca_file", file, problem))?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut http = builder.with_single_cert(chain, key).map_err(|error| {
            let problem = format!(
                "cannot be used with the key in {}: {error}",
                key_file.display()
            );
            in_file("cert_file", certificate_file, problem)
        })?;
        let mut grpc = http.clone();
        http.alpn_protocols = vec![HTTP.to_vec()];
        grpc.alpn_protocols = vec![GRPC.to_vec()];
        Ok(Configs {
            http: Arc::new(http),
            grpc: Arc::new(grpc),
        })
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let read = read.map_err(|error| format!("cannot be read as PEM: {error}"))?;
    match read.is_empty() {
        true => Err("expected certificates in PEM, found none".to_owned()),
        false => Ok(read),
    }
}

/// Lets clients of these authorities in.
fn clients_of(
    authorities: &[u8],
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn tokio_rustls::rustls::server::danger::ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authorities)? {
        roots
            .add(certificate)
            .map_err(|error| format!("a certificate cannot be an authority: {error}"))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    verifier
        .build()
        .map(|verifier| verifier as _)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_hold_something_else_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("empty.pem"), "").unwrap();
        let opened = |certificate: &str, key: &str| {
            Tls::open(&TlsConfig {
                cert_file: Some(path(certificate)),
                key_file: Some(path(key)),
                client_ca_file: None,
            })
        };
        let said = opened("none.pem", "empty.pem").err().unwrap();
        assert!(
            said.contains("tls.cert_file") && said.contains("none.pem"),
            "{said}"
        );
        let said = opened("empty.pem", "none.pem").err().unwrap();
        assert!(
            said.contains("tls.key_file") && said.contains("none.pem"),
            "{said}"
        );
        let said = opened("empty.pem", "empty.pem").err().unwrap();
        assert!(said.contains("expected certificates in PEM"), "{said}");
        assert!(Tls::open(&TlsConfig::default()).unwrap().is_none());
    }
}
