//! The certificates that the front shows: their files, read again whenever they change.
//!
//! The front's process may read no file, so what is in them is sent to it. What cannot be used is a problem, and what was
//! there before stays in use. Nothing here prints a key.

pub(crate) mod validity;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use lb_front::tls::{Certificate, CertificateError, Tls};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::Issued;
use crate::{
    catalog::Problem,
    discover::file::watch_file::{Stamp, stamp},
};

/// Where the certificates are, and how they are used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// The first is for clients that ask for no name that we have.
    pub pairs: Vec<Pair>,
    /// A folder with more.
    pub folder: Option<PathBuf>,
    /// Whether TLS 1.2 is too old.
    pub only_1_3: bool,
}

/// A certificate and its key; both may be in one file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// The certificate and those that lead to its authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// A certificate that is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InUse {
    /// The first name that it is for, or its file.
    pub name: String,
    /// Until when it is good.
    pub until: SystemTime,
}

/// What the stage tells.
#[derive(Clone, Debug, Default)]
pub struct CertificateOutputs {
    /// What the front is to show.
    pub tls: watch::Sender<Arc<Tls>>,
    /// The same for people.
    pub in_use: watch::Sender<Vec<InUse>>,
    /// What cannot be used, or not for long.
    pub problems: watch::Sender<Vec<Problem>>,
}

/// Reads the files at once, and gives the stage that goes on with that: it ends when it is told to. `reload` is a wish that
/// everything be read again;
/// what an authority has `issued` stands behind what is in files.
pub fn certificates(
    files: Files,
    outputs: CertificateOutputs,
    mut issued: watch::Receiver<Issued>,
    mut reload: watch::Receiver<()>,
    stop: CancellationToken,
) -> impl Future<Output = ()> {
    let mut shelf = Shelf::new(files);
    shelf.issued = issued.borrow_and_update().clone();
    shelf.look(SystemTime::now());
    shelf.tell(&outputs);
    async move {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut reloads, mut issues) = (true, true);
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                told = reload.changed(), if reloads => {
                    reloads = told.is_ok();
                    shelf.forget_stamps();
                }
                told = issued.changed(), if issues => {
                    issues = told.is_ok();
                    shelf.issued = issued.borrow_and_update().clone();
                }
                () = stop.cancelled() => return,
            }
            let look = spawn_blocking(move || {
                shelf.look(SystemTime::now());
                shelf
            });
            let Ok(looked) = look.await else {
                return; // A panic, which was told.
            };
            shelf = looked;
            shelf.tell(&outputs);
        }
    }
}

/// All files, as they were read last.
struct Shelf {
    files: Files,
    /// What the folder held when it could be read last.
    listed: Vec<Pair>,
    unlisted: Option<String>,
    entries: BTreeMap<Pair, Entry>,
    issued: Issued,
    now: SystemTime,
}

/// One pair.
#[derive(Default)]
struct Entry {
    /// What tells that it is as it was when it was read.
    stamp: Option<[Stamp; 2]>,
    good: Option<Good>,
    fault: Option<String>,
    /// Whether the fault was there a look ago, too: in between, somebody may be replacing one file after the other.
    settled: bool,
}

struct Good {
    certificate: Certificate,
    in_use: InUse,
    /// When it began to be good.
    from: SystemTime,
}

impl Shelf {
    fn new(files: Files) -> Self {
        Self {
            files,
            listed: Vec::new(),
            unlisted: None,
            entries: BTreeMap::new(),
            issued: Issued::default(),
            now: SystemTime::UNIX_EPOCH,
        }
    }

    fn forget_stamps(&mut self) {
        for entry in self.entries.values_mut() {
            entry.stamp = None;
        }
    }

    /// All pairs in their order.
    fn pairs(&self) -> impl Iterator<Item = &Pair> {
        self.files.pairs.iter().chain(&self.listed)
    }

    fn look(&mut self, now: SystemTime) {
        self.now = now;
        if let Some(folder) = &self.files.folder {
            match list(folder) {
                Ok(listed) => (self.listed, self.unlisted) = (listed, None),
                Err(error) => {
                    let why = format!("cannot be read: {error}; {UNREADABLE}; what it held stays");
                    self.unlisted = Some(why);
                }
            }
        }
        let mut before = std::mem::take(&mut self.entries);
        for pair in self.pairs().cloned().collect::<Vec<_>>() {
            let mut entry = before.remove(&pair).unwrap_or_default();
            entry.look(&pair);
            self.entries.insert(pair, entry);
        }
    }

    fn tell(&self, outputs: &CertificateOutputs) {
        let good = self
            .pairs()
            .filter_map(|pair| self.entries.get(pair)?.good.as_ref());
        let issued = self.issued.certificates.iter();
        let issued = issued.filter_map(|it| {
            // It was judged when it came.
            good_of(it.clone(), Path::new("an authority")).ok()
        });
        let issued: Vec<_> = issued.collect();
        let good: Vec<_> = good.chain(&issued).collect();
        let tls = Tls {
            certificates: good.iter().map(|good| good.certificate.clone()).collect(),
            proofs: self.issued.proofs.clone(),
            number: self.issued.number,
            only_1_3: self.files.only_1_3,
        };
        outputs.tls.send_if_modified(|known| {
            let new = **known != tls;
            *known = Arc::new(tls);
            new
        });
        let in_use: Vec<_> = good.iter().map(|good| good.in_use.clone()).collect();
        outputs.in_use.send_if_modified(|known| {
            let new = *known != in_use;
            *known = in_use;
            new
        });
        let problems = self.problems();
        outputs.problems.send_if_modified(|known| {
            let new = *known != problems;
            *known = problems;
            new
        });
    }

    fn problems(&self) -> Vec<Problem> {
        let folder = self.files.folder.as_ref().zip(self.unlisted.as_ref());
        let folder = folder
            .map(|(folder, why)| Problem::new(format!("folder {}", folder.display()), why.clone()));
        let entries = self.entries.iter();
        let of_entries = entries.filter_map(|(pair, entry)| {
            let subject = format!("certificate {}", pair.certificate.display());
            Some(Problem::new(subject, entry.problem(self.now)?))
        });
        folder.into_iter().chain(of_entries).collect()
    }
}

impl Entry {
    fn look(&mut self, pair: &Pair) {
        let stamp = [stamp(&pair.certificate), stamp(&pair.key)];
        self.settled = self.stamp == Some(stamp);
        // What is wrong may go without any change of the files.
        if self.settled && self.fault.is_none() {
            return;
        }
        self.stamp = Some(stamp);
        let file = pair.certificate.display();
        match read(pair) {
            Ok(good) => {
                if self
                    .good
                    .as_ref()
                    .is_none_or(|it| it.certificate != good.certificate)
                {
                    tracing::info!(%file, name = good.in_use.name, "certificate in use");
                }
                (self.good, self.fault) = (Some(good), None);
            }
            Err(fault) => {
                if self.fault.as_ref() != Some(&fault) {
                    tracing::warn!(%file, fault, "certificate not usable");
                }
                self.fault = Some(fault);
            }
        }
    }

    fn problem(&self, now: SystemTime) -> Option<String> {
        match (&self.fault, &self.good) {
            (Some(fault), None) => return Some(fault.clone()),
            (Some(fault), Some(_)) if self.settled => {
                return Some(format!("{fault}; the one before stays in use"));
            }
            _ => {}
        }
        let good = self.good.as_ref()?;
        let until = good.in_use.until;
        let left = until.duration_since(now).unwrap_or_default();
        let whole = until.duration_since(good.from).unwrap_or_default();
        if left.is_zero() {
            Some("it has expired: clients refuse it; renew it".to_owned())
        } else if good.from > now {
            Some("it is not valid yet: clients refuse it; compare the clocks".to_owned())
        } else if left < LATE.min(whole / 5) {
            let days = LATE.as_secs() / 86_400;
            Some(format!(
                "it expires soon, in less than {days} days; renew it"
            ))
        } else {
            None
        }
    }
}

/// What a folder holds: files with a certificate, whose key is in the file of the same name that ends in `.key`, or with them;
/// and folders as certbot makes them.
fn list(folder: &Path) -> io::Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let certbot = path.join("fullchain.pem");
        let kind = path.extension().and_then(|it| it.to_str());
        if certbot.is_file() {
            pairs.push(Pair {
                certificate: certbot,
                key: path.join("privkey.pem"),
            });
        } else if matches!(kind, Some("pem" | "crt" | "cer")) {
            let beside = path.with_extension("key");
            pairs.push(Pair {
                key: if beside.is_file() {
                    beside
                } else {
                    path.clone()
                },
                certificate: path,
            });
        }
    }
    pairs.sort();
    Ok(pairs)
}

fn read(pair: &Pair) -> Result<Good, String> {
    let text = |path: &Path| {
        fs::read_to_string(path)
            .map_err(|error| format!("{} cannot be read: {error}; {UNREADABLE}", path.display()))
    };
    let certificate = Certificate {
        chain: text(&pair.certificate)?,
        key: text(&pair.key)?,
    };
    good_of(certificate, &pair.certificate).map_err(|error| match error {
        CertificateError::NoKey | CertificateError::EncryptedKey
            if pair.key != pair.certificate =>
        {
            format!("{}: {error}", pair.key.display())
        }
        error => error.to_string(),
    })
}

fn good_of(certificate: Certificate, file: &Path) -> Result<Good, CertificateError> {
    let usable = certificate.read()?;
    let validity = validity::validity(usable.leaf());
    let (from, until) = validity.ok_or_else(|| {
        CertificateError::Unusable("it does not say until when it is valid".to_owned())
    })?;
    let name = usable.names.into_iter().next();
    let name = name.unwrap_or_else(|| file.display().to_string());
    Ok(Good {
        certificate,
        in_use: InUse { name, until },
        from,
    })
}

const UNREADABLE: &str = "correct the path or the permissions";

/// As often as other files are looked at that nobody tells us of.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Who renews by a machine does so long before this.
const LATE: Duration = Duration::from_secs(14 * 86_400);

#[cfg(test)]
mod tests;
