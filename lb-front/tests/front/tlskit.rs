//! A client that speaks TLS, and the authority that it trusts.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    sync::{Arc, OnceLock},
};

use lb_front::tls::Certificate;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    version::{TLS12, TLS13},
};

use crate::kit::{Client, PATIENCE};

pub(crate) type Stream = StreamOwned<ClientConnection, TcpStream>;

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate: CertificateDer<'static>,
}

/// One for all tests: what matters is that clients really look.
pub(crate) fn authority() -> &'static Authority {
    static ONE: OnceLock<Authority> = OnceLock::new();
    ONE.get_or_init(|| {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Authority {
            certificate: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        }
    })
}

pub(crate) fn certificate(names: &[&str]) -> Certificate {
    certificate_with(names, &PKCS_ECDSA_P256_SHA256)
}

pub(crate) fn certificate_with(
    names: &[&str],
    algorithm: &'static rcgen::SignatureAlgorithm,
) -> Certificate {
    let names: Vec<_> = names.iter().map(|&it| it.to_owned()).collect();
    let key = KeyPair::generate_for(algorithm).unwrap();
    let params = CertificateParams::new(names).unwrap();
    let signed = params.signed_by(&key, &authority().issuer).unwrap();
    Certificate {
        chain: signed.pem(),
        key: key.serialize_pem(),
    }
}

pub(crate) fn builder(versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(authority().certificate.clone()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

pub(crate) fn config() -> Arc<ClientConfig> {
    Arc::new(builder(&[&TLS13, &TLS12]))
}

pub(crate) fn over(
    socket: TcpStream,
    config: &Arc<ClientConfig>,
    name: &str,
) -> io::Result<Client<Stream>> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connection = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(Client::within(stream))
}

pub(crate) fn try_connect(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    name: &str,
) -> io::Result<Client<Stream>> {
    over(TcpStream::connect(address)?, config, name)
}

/// The certificate that a client got.
pub(crate) fn shown(client: &Client<Stream>) -> CertificateDer<'static> {
    client.stream.conn.peer_certificates().unwrap()[0]
        .clone()
        .into_owned()
}

pub(crate) fn leaf(certificate: &Certificate) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(certificate.chain.as_bytes()).unwrap()
}

/// A client that takes whatever it is shown.
pub(crate) fn anybody() -> ClientConfig {
    let mut config = builder(&[&TLS13]);
    config
        .dangerous()
        .set_certificate_verifier(Arc::new(Anything));
    config
}

/// Whoever shows whatever.
#[derive(Debug)]
struct Anything;

impl rustls::client::danger::ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        let provider = ring::default_provider();
        provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
