//! Which certificate a client gets: by the name that it asks for, else the first.

use std::{collections::HashMap, sync::Arc};

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{ACME, certificate::Usable};

/// All certificates.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// For whoever asks for no name, or for one that none is for.
    first: Vec<Arc<CertifiedKey>>,
    /// A wildcard is found under its name from the first dot on.
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// What proves to an authority that a name is ours, by that name (RFC 8737).
    proofs: HashMap<String, Arc<CertifiedKey>>,
}

impl Choice {
    /// Where several are for one name, the first is taken that the client can read.
    pub(super) fn new(usable: &[Usable], proofs: HashMap<String, Arc<CertifiedKey>>) -> Self {
        let mut choice = Self {
            proofs,
            ..Self::default()
        };
        choice
            .first
            .extend(usable.iter().map(|it| it.certified.clone()));
        for usable in usable {
            for name in &usable.names {
                let name = name.strip_prefix('*').unwrap_or(name);
                let named = choice.by_name.entry(name.to_owned()).or_default();
                named.push(usable.certified.clone());
            }
        }
        choice
    }

    fn named(&self, name: &str) -> Option<&[Arc<CertifiedKey>]> {
        let wildcard = || self.by_name.get(&name[name.find('.')?..]);
        self.by_name.get(name).or_else(wildcard).map(Vec::as_slice)
    }
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let name = name.as_deref();
        // A client that offers this offers nothing else.
        if hello
            .alpn()
            .is_some_and(|mut offered| offered.any(|it| it == ACME))
        {
            return self.proofs.get(name?).cloned();
        }
        let named = name.and_then(|name| self.named(name));
        let certificates = named.unwrap_or(&self.first);
        let schemes = hello.signature_schemes();
        let fits = |it: &&Arc<CertifiedKey>| it.key.choose_scheme(schemes).is_some();
        certificates
            .iter()
            .find(fits)
            .or(certificates.first())
            .cloned()
    }
}
