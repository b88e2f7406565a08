//! An authority, and a Consul and clients with certificates of it.

use std::path::PathBuf;

use lb_agent::discover::consul::{Config, Tls};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use serde_json::json;

use crate::{
    kit::config,
    support::{Consul, Ports},
};

/// The name in the servers' certificates, as Consul's own tools make them.
pub(super) const NAME: &str = "server.dc1.consul";

/// An authority, and a folder for what it signs.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pub(super) folder: tempfile::TempDir,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = Self {
            issuer: CertifiedIssuer::self_signed(params, key).unwrap(),
            folder: tempfile::tempdir().unwrap(),
        };
        std::fs::write(authority.file("ca.pem"), authority.issuer.pem()).unwrap();
        authority
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Signs a certificate for both ends; `holder`.pem and `holder`.key in the folder.
    pub(super) fn sign(&self, holder: &str) {
        let mut params = CertificateParams::new([NAME.to_owned()]).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.file(&format!("{holder}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.file(&format!("{holder}.key")), key.serialize_pem()).unwrap();
    }

    /// A Consul that wants a certificate of everybody.
    pub(super) async fn consul(&self) -> Consul {
        self.sign("server");
        let extra = |ports: &Ports| {
            json!({"ports": {"https": ports.https}, "verify_incoming_https": true,
                   "ca_file": self.file("ca.pem"), "cert_file": self.file("server.pem"),
                   "key_file": self.file("server.key")})
        };
        Consul::start_with(extra).await
    }

    /// What reaches it.
    pub(super) fn config(&self, consul: &Consul) -> Config {
        self.sign("client");
        Config {
            tls: Tls {
                ca_file: Some(self.file("ca.pem")),
                cert_file: Some(self.file("client.pem")),
                key_file: Some(self.file("client.key")),
                server_name: Some(NAME.to_owned()),
                ..Tls::default()
            },
            ..config(&format!("https://127.0.0.1:{}", consul.ports().https))
        }
    }
}
