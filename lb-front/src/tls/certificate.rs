//! A certificate with its key: how it is handed over, and whether it can be used. The agent reads the files and judges them by
//! the very function that the front uses them with.

use std::{fmt, sync::Arc};

use rustls::{
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use serde::{Deserialize, Serialize};
use webpki::EndEntityCert;

/// A certificate, those that lead to its authority, and its key; as PEM. What is printed of it is nothing.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The certificate first.
    pub chain: String,
    /// One private key.
    pub key: String,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificate")
    }
}

/// Why a certificate cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Nothing in the text is one.
    #[error("there is no certificate in it; it must be PEM (`-----BEGIN CERTIFICATE-----`)")]
    NoCertificate,
    /// Nothing in the text is a key.
    #[error("there is no private key in it; it must be PEM (`-----BEGIN PRIVATE KEY-----`)")]
    NoKey,
    /// It cannot be read without its passphrase.
    #[error("the private key is encrypted; write it without a passphrase")]
    EncryptedKey,
    /// They do not belong together.
    #[error(
        "the private key is not that of the first certificate; give the key that belongs to it, and put it before those of its authorities"
    )]
    OtherKey,
    /// Of a kind that is not known, or broken.
    #[error("it cannot be used: {0}")]
    Unusable(String),
}

/// A certificate that can be used.
#[derive(Clone, Debug)]
pub struct Usable {
    /// As rustls wants it.
    pub(super) certified: Arc<CertifiedKey>,
    /// The DNS names it is for, in lower case; `*.` before some.
    pub names: Vec<String>,
}

impl Usable {
    /// The certificate itself, as DER.
    pub fn leaf(&self) -> &[u8] {
        self.certified.cert.first().map_or(&[], |leaf| leaf)
    }
}

impl Certificate {
    /// Judges it.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn read(&self) -> Result<Usable, CertificateError> {
        let provider = ring::default_provider();
        self.read_with(&provider)
    }

    pub(super) fn read_with(&self, provider: &CryptoProvider) -> Result<Usable, CertificateError> {
        let unusable = |error: String| CertificateError::Unusable(error);
        let (chain, key) = self.der()?;
        let leaf = chain.first().ok_or(CertificateError::NoCertificate)?;
        let names = EndEntityCert::try_from(leaf)
            .map_err(|error| unusable(error.to_string()))?
            .valid_dns_names()
            .map(str::to_ascii_lowercase)
            .collect();
        let certified =
            CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => CertificateError::OtherKey,
                error => unusable(error.to_string()),
            })?;
        Ok(Usable {
            certified: Arc::new(certified),
            names,
        })
    }

    /// A proof (RFC 8737): webpki knows nothing of its critical extension, and would not read it.
    pub(super) fn prove_with(
        &self,
        provider: &CryptoProvider,
    ) -> Result<CertifiedKey, CertificateError> {
        let (chain, key) = self.der()?;
        let key = provider.key_provider.load_private_key(key);
        let key = key.map_err(|error| CertificateError::Unusable(error.to_string()))?;
        Ok(CertifiedKey::new(chain, key))
    }

    fn der(
        &self,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), CertificateError> {
        let chain = CertificateDer::pem_slice_iter(self.chain.as_bytes());
        let chain: Vec<_> = chain
            .collect::<Result<_, _>>()
            .map_err(|error| CertificateError::Unusable(error.to_string()))?;
        if chain.is_empty() {
            return Err(CertificateError::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes());
        let key = key.map_err(|_| match self.key.contains("ENCRYPTED") {
            true => CertificateError::EncryptedKey,
            false => CertificateError::NoKey,
        })?;
        Ok((chain, key))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};

    use super::*;

    fn made(names: &[&str]) -> Certificate {
        let names: Vec<_> = names.iter().map(|&it| it.to_owned()).collect();
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
        Certificate {
            chain: cert.pem(),
            key: signing_key.serialize_pem(),
        }
    }

    #[test]
    fn a_certificate_says_its_names() {
        let usable = made(&["A.example", "*.b.example"]).read().unwrap();
        assert_eq!(usable.names, ["a.example", "*.b.example"]);
        assert_eq!(usable.leaf()[0], 0x30);
    }

    #[test]
    fn what_cannot_be_used_is_told_apart() {
        let (one, other) = (made(&["a.example"]), made(&["a.example"]));
        let wrong = |chain: &str, key: &str| {
            let (chain, key) = (chain.to_owned(), key.to_owned());
            Certificate { chain, key }.read().unwrap_err()
        };
        assert_eq!(wrong("", &one.key), CertificateError::NoCertificate);
        assert_eq!(wrong(&one.chain, ""), CertificateError::NoKey);
        assert_eq!(wrong(&one.chain, &one.chain), CertificateError::NoKey);
        assert_eq!(wrong(&one.chain, &other.key), CertificateError::OtherKey);
        let locked = one.key.replace("PRIVATE", "ENCRYPTED PRIVATE");
        assert_eq!(wrong(&one.chain, &locked), CertificateError::EncryptedKey);
        let broken = one.chain.replacen("MII", "MIK", 1);
        assert!(matches!(
            wrong(&broken, &one.key),
            CertificateError::Unusable(_)
        ));
    }

    #[test]
    fn nothing_of_it_is_printed() {
        let made = made(&["a.example"]);
        assert_eq!(format!("{made:?}"), "Certificate");
    }
}
