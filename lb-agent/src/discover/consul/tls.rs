//! What protects the way to Consul: whom we trust, and who we say that we are. The files are read by
//! [`Tls::load`], again whenever somebody asks for it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use reqwest::Url;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};

use super::address::Address;

/// The files and settings of TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// A PEM file of certificate authorities; without one and without `ca_path` the system's are trusted.
    pub ca_file: Option<PathBuf>,
    /// A directory of such files.
    pub ca_path: Option<PathBuf>,
    /// A PEM file of our certificate and what leads from it to its authority.
    pub cert_file: Option<PathBuf>,
    /// A PEM file of the key of our certificate.
    pub key_file: Option<PathBuf>,
    /// The name that Consul is asked for and that its certificate must hold, where that is not the host of the address.
    pub server_name: Option<String>,
    /// Whether anybody's certificate will do. Then whoever is on the way can read the token.
    pub trust_anybody: bool,
}

/// Why the settings of TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file or directory cannot be read.
    #[error("{} cannot be read: {source}; correct the path or the permissions", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds no certificate, or no key.
    #[error("{} holds no {wanted} in PEM form: {reason}; give another file", path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A certificate without a key, or the other way round.
    #[error(
        "a client certificate and its key need each other; give cert_file and key_file, or none"
    )]
    Half,
    /// Nobody is trusted.
    #[error(
        "no certificate authority is known to this system; name one with ca_file, or give a container the host's /etc/ssl/certs"
    )]
    NobodyTrusted,
    /// The name is none.
    #[error("`{0}` is no name that a certificate can hold; correct tls_server_name")]
    ServerName(String),
    /// The pieces do not fit.
    #[error(
        "the certificates cannot be used: {0}; see that cert_file and key_file belong together"
    )]
    Unfit(String),
}

impl Tls {
    /// Reads the files if one of `addresses` needs them. The others get a configuration that is never used, which
    /// the HTTP library wants all the same.
    pub(super) fn load_for(&self, addresses: &[Address]) -> Result<ClientConfig, TlsError> {
        if addresses.iter().any(Address::is_tls) {
            return self.load();
        }
        let unused = Self {
            trust_anybody: true,
            ..Self::default()
        };
        unused.load()
    }

    /// Reads the files.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(&self) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let unfit = |error: &dyn std::error::Error| TlsError::Unfit(error.to_string());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| unfit(&error))?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier(provider)?);
        let mut config = match (&self.cert_file, &self.key_file) {
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), Some(key)) => builder
                .with_client_auth_cert(certificates(cert)?, private_key(key)?)
                .map_err(|error| unfit(&error))?,
            _ => return Err(TlsError::Half),
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // The greeting carries names only; that of the address would contradict an IP address that is wanted.
        config.enable_sni = !matches!(self.name()?, Some(ServerName::IpAddress(_)));
        Ok(config)
    }

    fn name(&self) -> Result<Option<ServerName<'static>>, TlsError> {
        let parse = |name: &String| {
            ServerName::try_from(name.clone()).map_err(|_| TlsError::ServerName(name.clone()))
        };
        self.server_name.as_ref().map(parse).transpose()
    }

    /// `url` with the name that Consul is asked for as its host. Of an IP address nobody can be asked, but it can be
    /// wanted in the certificate, as any name is.
    pub(super) fn named(&self, url: &Url) -> Result<Url, TlsError> {
        let mut url = url.clone();
        if url.scheme() == "https"
            && let Some(ServerName::DnsName(name)) = self.name()?
        {
            let name = name.as_ref();
            url.set_host(Some(name))
                .map_err(|_| TlsError::ServerName(name.to_owned()))?;
        }
        Ok(url)
    }

    fn verifier(
        &self,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
        if self.trust_anybody {
            return Ok(Arc::new(Anybody(provider)));
        }
        let roots = self.roots()?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| TlsError::Unfit(error.to_string()))?;
        Ok(match self.name()? {
            Some(name) => Arc::new(Named { verifier, name }),
            None => verifier,
        })
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        let mut files: Vec<PathBuf> = self.ca_file.iter().cloned().collect();
        if let Some(directory) = &self.ca_path {
            files.extend(pem_files(directory)?);
        }
        for file in &files {
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| TlsError::Pem {
                    path: file.clone(),
                    wanted: "certificate of an authority",
                    reason: error.to_string(),
                })?;
            }
        }
        if files.is_empty() {
            // The system's own list may hold what rustls cannot read; the rest of it counts.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        if roots.is_empty() {
            return Err(TlsError::NobodyTrusted);
        }
        Ok(roots)
    }
}

/// The files of a directory that may hold certificates, in the order of their names.
fn pem_files(directory: &Path) -> Result<Vec<PathBuf>, TlsError> {
    let unread = |source| TlsError::Read {
        path: directory.to_owned(),
        source,
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unread)? {
        let path = entry.map_err(unread)?.path();
        let kind = path.extension().and_then(|it| it.to_str());
        if matches!(kind, Some("pem" | "crt" | "cer")) {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(TlsError::Pem {
            path: directory.to_owned(),
            wanted: "certificate",
            reason: "no file in it ends in .pem, .crt or .cer".to_owned(),
        });
    }
    files.sort();
    Ok(files)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let wrong = |reason: String| TlsError::Pem {
        path: path.to_owned(),
        wanted: "certificate",
        reason,
    };
    match found {
        Ok(found) if found.is_empty() => Err(wrong("there is none in it".to_owned())),
        Ok(found) => Ok(found),
        Err(error) => Err(wrong(error.to_string())),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| TlsError::Pem {
        path: path.to_owned(),
        wanted: "private key without a passphrase",
        reason: error.to_string(),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}

/// Wants a certificate for `name`, whatever host the address names.
#[derive(Debug)]
struct Named {
    verifier: Arc<WebPkiServerVerifier>,
    name: ServerName<'static>,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _host: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verifier
            .verify_server_cert(end_entity, intermediates, &self.name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier
            .verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier
            .verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// Takes any certificate, but still wants the peer to have its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _host: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
