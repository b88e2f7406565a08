//! Certificates from an authority by ACME (RFC 8555). The agent asks for them and keeps them; that a name is ours the front
//! proves, by a handshake of its own (TLS-ALPN-01, RFC 8737), so that no request is ever looked at for it.
//!
//! Each name has a certificate of its own: one that cannot be proven keeps no other from being renewed.

mod client;
mod interface;

use std::{
    collections::BTreeMap,
    io,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Identifier, NewAccount,
    NewOrder, OrderStatus, RetryPolicy,
};
use lb_front::tls::Certificate;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::certificates::validity::validity;
use crate::catalog::Problem;

pub use interface::{Acme, AcmeChannels, AcmeError, Issued};

/// Tells at once what there is from before, and gives the stage that sees to it that each name has a certificate that is good
/// for a while.
pub fn acme(
    config: Acme,
    channels: AcmeChannels,
    stop: CancellationToken,
) -> impl Future<Output = ()> {
    let mut stage = Stage {
        kept: BTreeMap::new(),
        channels,
        config,
    };
    stage.load();
    async move {
        tokio::select! {
            () = stage.run() => {}
            () = stop.cancelled() => {}
        }
    }
}

struct Stage {
    config: Acme,
    channels: AcmeChannels,
    kept: BTreeMap<String, Kept>,
}

/// One name.
#[derive(Default)]
struct Kept {
    certificate: Option<Certificate>,
    /// From when another one is asked for, by the time of day, which may be set meanwhile.
    renewal: Option<SystemTime>,
    /// Whether it is nowhere but here.
    is_unsaved: bool,
    /// When to try again what failed.
    again: Option<Instant>,
    /// How often that failed in a row, and why it did last.
    failed: u32,
    why: Option<String>,
}

impl Kept {
    /// Until another one is asked for, or it is written down.
    fn wait(&self) -> Duration {
        let again = self
            .again
            .map(|it| it.saturating_duration_since(Instant::now()));
        if self.is_unsaved {
            return again.unwrap_or_default();
        }
        let since = SystemTime::now();
        let renewal = self
            .renewal
            .map(|it| it.duration_since(since).unwrap_or_default());
        renewal.max(again).unwrap_or_default()
    }
}

impl Stage {
    /// What an agent before us got.
    fn load(&mut self) {
        for name in self.config.names.clone() {
            let path = self.file(&name);
            let mut kept = Kept::default();
            if let Ok(text) = std::fs::read_to_string(path) {
                let certificate = Certificate {
                    chain: text.clone(),
                    key: text,
                };
                if let Ok(renewal) = renewal(&certificate) {
                    (kept.certificate, kept.renewal) = (Some(certificate), Some(renewal));
                }
            }
            self.kept.insert(name, kept);
        }
        self.publish(Vec::new());
    }

    async fn run(&mut self) {
        loop {
            for name in self.config.names.clone() {
                let Some(kept) = self.kept.get(&name).filter(|it| it.wait().is_zero()) else {
                    continue;
                };
                if kept.is_unsaved {
                    self.save(&name);
                    self.tell();
                } else {
                    let order = timeout(LONGEST_ORDER, self.order(&name)).await;
                    let order = order.unwrap_or(Err(AcmeError::Late));
                    self.note(&name, order);
                }
            }
            let next = self.kept.values().map(Kept::wait).min();
            let next = next.unwrap_or(LONGEST_PAUSE);
            sleep(next.clamp(SHORTEST_PAUSE, LONGEST_PAUSE)).await;
        }
    }

    /// Keeps what an order brought, and tells of it.
    fn note(&mut self, name: &str, order: Result<Certificate, AcmeError>) {
        let kept = self.kept.entry(name.to_owned()).or_default();
        let order = order.and_then(|certificate| Ok((renewal(&certificate)?, certificate)));
        match order {
            Ok((renewal, certificate)) => {
                tracing::info!(name, "the authority issued a certificate");
                *kept = Kept {
                    certificate: Some(certificate),
                    renewal: Some(renewal),
                    ..Kept::default()
                };
                self.save(name);
            }
            Err(error) => {
                // Authorities count failures, and refuse whoever has many.
                let pause = FIRST_PAUSE * 2_u32.saturating_pow(kept.failed.min(12));
                kept.again = Some(Instant::now() + pause.min(LONGEST_PAUSE));
                kept.failed += 1;
                tracing::warn!(name, %error, "no certificate from the authority");
                kept.why = Some(format!(
                    "no new one from the authority, which is asked again: {error}"
                ));
            }
        }
        self.publish(Vec::new());
        self.tell();
    }

    /// Writes down what was issued for `name`. Where that fails the certificate is used all the same: an authority issues only a few
    /// for one name.
    fn save(&mut self, name: &str) {
        let path = self.file(name);
        let certificate = self.kept.get(name).and_then(|it| it.certificate.as_ref());
        let Some(Certificate { chain, key }) = certificate else {
            return;
        };
        let saved = self.write(&path, &format!("{chain}\n{key}"));
        let kept = self.kept.entry(name.to_owned()).or_default();
        kept.is_unsaved = saved.is_err();
        (kept.again, kept.why) = (None, None);
        if let Err(error) = saved {
            tracing::warn!(name, %error, "the certificate is used, and cannot be kept");
            kept.again = Some(Instant::now() + SAVE_PAUSE);
            kept.why = Some(format!(
                "it is used, and could not be kept for the next agent: {error}"
            ));
        }
    }

    /// Says what is wrong.
    fn tell(&self) {
        let problems = self.kept.iter().filter_map(|(name, kept)| {
            let why = kept.why.clone()?;
            Some(Problem::new(format!("certificate of {name}"), why))
        });
        let problems: Vec<_> = problems.collect();
        self.channels.problems.send_if_modified(|known| {
            let new = *known != problems;
            *known = problems;
            new
        });
    }

    /// Has the front show everything that there is, and `proofs`. Gives the number of that.
    fn publish(&self, proofs: Vec<(String, Certificate)>) -> u64 {
        let names = self.config.names.iter();
        let certificates = names.filter_map(|name| self.kept.get(name)?.certificate.clone());
        let certificates: Vec<_> = certificates.collect();
        let mut number = 0;
        self.channels.issued.send_modify(|issued| {
            number = issued.number + 1;
            *issued = Issued {
                certificates,
                proofs,
                number,
            };
        });
        number
    }

    /// Gets a certificate for `name`.
    async fn order(&mut self, name: &str) -> Result<Certificate, AcmeError> {
        let account = self.account().await?;
        let identifiers = [Identifier::Dns(name.to_owned())];
        let order = account.new_order(&NewOrder::new(&identifiers)).await;
        let mut order = order.inspect_err(|error| self.forget_account(error))?;
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let challenge = authorization.challenge(ChallengeType::TlsAlpn01);
            let mut challenge = challenge.ok_or(AcmeError::NoChallenge)?;
            let digest = challenge.key_authorization().digest().as_ref().to_vec();
            let number = self.publish(vec![(name.to_owned(), proof(name, &digest)?)]);
            let mut shown = self.channels.shown.subscribe();
            let shown = shown.wait_for(|shown| *shown >= number);
            let shown = timeout(SHOWN, shown).await;
            if !shown.is_ok_and(|shown| shown.is_ok()) {
                return Err(AcmeError::NotShown);
            }
            challenge.set_ready().await?;
        }
        let retries = RetryPolicy::new()
            .initial_delay(POLL)
            .timeout(LONGEST_ORDER);
        let status = order.poll_ready(&retries).await?;
        if !matches!(status, OrderStatus::Ready | OrderStatus::Valid) {
            return Err(AcmeError::Unproven(refusal(&mut order).await));
        }
        let key = order.finalize().await?;
        let chain = order.poll_certificate(&retries).await?;
        let certificate = Certificate { chain, key };
        certificate
            .read()
            .map_err(|error| AcmeError::Certificate(error.to_string()))?;
        Ok(certificate)
    }

    /// The next order gets a new account if the authority does not know ours any more.
    fn forget_account(&self, error: &instant_acme::Error) {
        let instant_acme::Error::Api(problem) = error else {
            return;
        };
        let kind = problem.r#type.as_deref().unwrap_or_default();
        if kind.ends_with(":accountDoesNotExist") || kind.ends_with(":unauthorized") {
            // If that fails, the same problem comes again.
            let _ = std::fs::remove_file(self.config.folder.join(ACCOUNT));
        }
    }

    /// The account that is on disk, or a new one.
    async fn account(&self) -> Result<Account, AcmeError> {
        let http = client::client(self.config.ca_file.as_deref()).map_err(AcmeError::Client)?;
        let builder = Account::builder_with_http(http);
        let path = self.config.folder.join(ACCOUNT);
        if let Ok(text) = std::fs::read_to_string(&path)
            && let Ok(credentials) = serde_json::from_str::<AccountCredentials>(&text)
        {
            return Ok(builder.from_credentials(credentials).await?);
        }
        let contact: Vec<_> = self.config.contact.iter().map(String::as_str).collect();
        let new = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let directory = self.config.directory.clone();
        let (account, credentials) = builder.create(&new, directory, None).await?;
        let text = serde_json::to_string(&credentials);
        let text = text.map_err(|error| AcmeError::Client(error.to_string()))?;
        self.write(&path, &text)?;
        Ok(account)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.config.folder.join(format!("{name}.pem"))
    }

    /// Nobody else may read it, and it is there whole or not at all.
    fn write(&self, path: &Path, text: &str) -> Result<(), AcmeError> {
        let written = || {
            let folder = &self.config.folder;
            std::fs::create_dir_all(folder)?;
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))?;
            let new = path.with_extension("new");
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            let mut file = options.open(&new)?;
            io::Write::write_all(&mut file, text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(new, path)
        };
        written().map_err(|source| AcmeError::Folder {
            path: path.to_owned(),
            source,
        })
    }
}

/// Why the authority did not accept a proof, in its words.
async fn refusal(order: &mut instant_acme::Order) -> String {
    let mut authorizations = order.authorizations();
    while let Some(Ok(authorization)) = authorizations.next().await {
        let mut challenges = authorization.challenges.iter();
        if let Some(error) = challenges.find_map(|challenge| challenge.error.as_ref()) {
            return error.to_string();
        }
    }
    "it does not say why".to_owned()
}

/// What the front shows an authority (RFC 8737 section 3).
fn proof(name: &str, digest: &[u8]) -> Result<Certificate, AcmeError> {
    let made = || {
        let mut params = CertificateParams::new([name.to_owned()])?;
        let identifier = CustomExtension::new_acme_identifier(digest);
        params.custom_extensions = vec![identifier];
        let key = KeyPair::generate()?;
        Ok(Certificate {
            chain: params.self_signed(&key)?.pem(),
            key: key.serialize_pem(),
        })
    };
    made().map_err(|error: rcgen::Error| AcmeError::Certificate(error.to_string()))
}

/// When another certificate is asked for: a third of its time before its end.
fn renewal(certificate: &Certificate) -> Result<SystemTime, AcmeError> {
    let broken = |error: String| AcmeError::Certificate(error);
    let usable = certificate
        .read()
        .map_err(|error| broken(error.to_string()))?;
    let validity = validity(usable.leaf());
    let (from, until) = validity.ok_or_else(|| broken("it has no end".to_owned()))?;
    let whole = until.duration_since(from).unwrap_or_default();
    Ok(until - whole / 3)
}

const ACCOUNT: &str = "account.json";
const SHOWN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(500);
const LONGEST_ORDER: Duration = Duration::from_secs(120);
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const SAVE_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 3600);
