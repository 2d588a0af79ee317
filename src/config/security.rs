//! Sections `[security]` and `[tls]`: who may use the server, and how connections are protected.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Who may use the server, `[security]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecurityConfig {
    /// The API keys, as `bellwether keys` writes them; `<data_dir>/keys.toml` when left out.
    pub keys_file: Option<PathBuf>,
}

impl SecurityConfig {
    /// Where the API keys are.
    pub fn keys_file(&self, data_dir: &Path) -> PathBuf {
        let file = self.keys_file.clone();
        file.unwrap_or_else(|| data_dir.join("keys.toml"))
    }
}

/// TLS for HTTP and gRPC, `[tls]`; without files both are plain.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// The server's certificate (PEM), followed by the intermediate ones up to the authority.
    pub cert_file: Option<PathBuf>,
    /// The private key (PEM) of that certificate.
    pub key_file: Option<PathBuf>,
    /// Certificates (PEM) of the authorities whose clients are let in: every client has to show a
    /// certificate then.
    pub client_ca_file: Option<PathBuf>,
}

impl TlsConfig {
    /// The files of certificate and key when TLS is on.
    ///
    /// # Errors
    /// Which setting is missing beside one that is there.
    pub fn pair(&self) -> Result<Option<(&Path, &Path)>, String> {
        match (&self.cert_file, &self.key_file) {
            (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
            (Some(_), None) => Err(
                "tls.key_file: expected the private key of tls.cert_file, found none".to_owned(),
            ),
            (None, Some(_)) => Err(
                "tls.cert_file: expected the certificate of tls.key_file, found none".to_owned(),
            ),
            (None, None) if self.client_ca_file.is_some() => Err(
                "tls.client_ca_file: clients show certificates over TLS only; set tls.cert_file and \
                 tls.key_file as well"
                    .to_owned(),
            ),
            (None, None) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_tls_settings_is_refused() {
        let with = |cert: bool, key: bool, clients: bool| TlsConfig {
            cert_file: cert.then(|| "c.pem".into()),
            key_file: key.then(|| "k.pem".into()),
            client_ca_file: clients.then(|| "a.pem".into()),
        };
        assert_eq!(with(false, false, false).pair(), Ok(None));
        assert!(
            with(true, true, true)
                .pair()
                .is_ok_and(|pair| pair.is_some())
        );
        for half in [
            (true, false, false),
            (false, true, true),
            (false, false, true),
        ] {
            assert!(with(half.0, half.1, half.2).pair().is_err(), "{half:?}");
        }
    }

    #[test]
    fn keys_are_in_the_data_directory_unless_said_otherwise() {
        let mut config = SecurityConfig::default();
        let data_dir = Path::new("data");
        assert_eq!(config.keys_file(data_dir), Path::new("data/keys.toml"));
        config.keys_file = Some("/etc/keys.toml".into());
        assert_eq!(config.keys_file(data_dir), Path::new("/etc/keys.toml"));
    }
}
