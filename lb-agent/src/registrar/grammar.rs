//! From a container to what is registered for it: Registrator's grammar, with what it lacked.
//!
//! Pure. Where it differs from Registrator, `docs/docker.md` says so.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use super::{
    address::{self, Nowhere, Place, UNKNOWN_HOST},
    checks::{self, Target, checks},
    meta::{self, Misfits},
    registration::{Reading, Registration},
    settings::{Addressing, Settings},
    words::{PortWords, Words, list},
};
use crate::{
    catalog::Problem,
    docker::{Container, Containers, Port, Protocol},
    options::cut,
};

/// What `container` asks to be registered as. `all` are the containers of its engine, by full id: it may share the
/// network of another one. Whether it runs is not looked at.
pub fn registrations(container: &Container, all: &Containers, settings: &Settings) -> Reading {
    let words = Words::of(container);
    let mut reader = Reader {
        container,
        settings,
        reading: Reading::default(),
        misfits: Misfits::default(),
    };
    let ports = candidates(container, &words);
    if ports.is_empty() {
        reader.leave_out(
            "no port is exposed; EXPOSE one in its image, or write SERVICE_<port>_NAME".to_owned(),
        );
    }
    reader.ports(&ports, &address::place(container, all), &words);
    for message in [words.explain(), reader.misfits.explain()] {
        message.into_iter().for_each(|it| reader.problem(it));
    }
    reader.reading
}

/// The ports that are exposed or published.
fn listed(container: &Container) -> BTreeSet<Port> {
    let published = container.published.iter().map(|it| it.port);
    container.exposed.iter().copied().chain(published).collect()
}

/// Those, and the ports that have a name.
fn candidates(container: &Container, words: &Words) -> BTreeSet<Port> {
    let mut ports = listed(container);
    for number in words.named_ports() {
        if ports.iter().all(|port| port.number != number) {
            let protocol = Protocol::Tcp;
            ports.insert(Port { number, protocol });
        }
    }
    ports
}

struct Reader<'r> {
    container: &'r Container,
    settings: &'r Settings,
    reading: Reading,
    misfits: Misfits,
}

impl Reader<'_> {
    fn ports(&mut self, ports: &BTreeSet<Port>, place: &Result<Place<'_>, String>, words: &Words) {
        let counts = |port: &Port| match (self.settings.addressing, place) {
            (Addressing::Published, Ok(place)) => address::is_published(*place, *port),
            _ => true,
        };
        // Counted before anything is ignored, as Registrator does: names must not depend on that. Nor on a port that
        // is only named, which needs no ending.
        let listed = listed(self.container);
        let group = listed.iter().filter(|port| counts(port)).count() > 1;
        let mut said = BTreeSet::new();
        for &port in ports {
            let twin = Port {
                protocol: Protocol::Tcp,
                ..port
            };
            let twin = (port.protocol == Protocol::Udp && ports.contains(&twin)).then_some(twin);
            let named = Named { port, twin, group };
            match self.port(named, place, &words.at(port.number)) {
                Ok(registration) => self.register(registration),
                Err(Nowhere::Fine(reason)) => {
                    self.leave_out(format!("{}: {reason}", shown(port)));
                }
                Err(Nowhere::Wrong(message)) => self.wrong(port, &message, &mut said),
                Err(Nowhere::UnknownHost) => {
                    self.reading.lacks_host = true;
                    self.wrong(port, UNKNOWN_HOST, &mut said);
                }
            }
        }
    }

    /// Of two ports on an ambiguous network one complaint is enough.
    fn wrong(&mut self, port: Port, message: &str, said: &mut BTreeSet<String>) {
        if said.insert(message.to_owned()) {
            self.problem(format!("{} is not registered: {message}", shown(port)));
        }
    }

    fn port(
        &mut self,
        Named { port, twin, group }: Named,
        place: &Result<Place<'_>, String>,
        words: &PortWords,
    ) -> Result<Registration, Nowhere> {
        let fine = |reason: &str| Err(Nowhere::Fine(reason.to_owned()));
        if words.text("ignore").is_some() {
            return fine("SERVICE_IGNORE is set");
        }
        if port.protocol == Protocol::Sctp {
            return fine("SCTP is not balanced");
        }
        let name = match words.text("name") {
            Some(name) => name,
            None if self.settings.explicit => {
                return fine("it has no SERVICE_NAME, and only named ports are registered");
            }
            None => default_name(&self.container.image),
        };
        if name.is_empty() {
            return Err(Nowhere::Wrong(
                "its image has no name; write SERVICE_NAME".to_owned(),
            ));
        }
        let name = match group && !words.is_own("name") {
            true => format!("{name}-{}", port.number),
            false => name.to_owned(),
        };
        if !stands_in_a_path(&name) {
            return Err(Nowhere::Wrong(
                "Consul could not be asked for its name; write a SERVICE_NAME of plain letters, digits and `-`"
                    .to_owned(),
            ));
        }
        let place = place
            .as_ref()
            .map_err(|message| Nowhere::Wrong(message.clone()))?;
        let (place, own) = (*place, self.own_address(words));
        let choose = |port| address::choose(place, port, words.text("network"), own, self.settings);
        let address = choose(port)?;
        // HTTP and the like are asked by TCP, and a host may publish that on another port.
        let probed = twin.and_then(|twin| choose(twin).ok()).unwrap_or(address);
        let udp = port.protocol == Protocol::Udp;
        let id = self.id(port, twin.is_some(), words)?;
        let target = Target {
            id: &id,
            name: &name,
            host: &self.settings.host,
            address,
            probed,
            container: &self.container.id,
            port: port.number,
        };
        let (mut checks, wrong) = checks(words, target);
        for message in wrong {
            self.problem(message);
        }
        if self.container.health.is_some() {
            checks.push(checks::docker(target));
        }
        if let Some(ttl) = self.settings.ttl {
            checks.push(checks::heartbeat(target, ttl));
        }
        let reach = address::reach(place, port, self.settings);
        let mark = Registration::checks_mark(&checks);
        let meta = meta::meta(
            words,
            &self.container.id,
            &reach,
            &mark,
            self.settings,
            &mut self.misfits,
        );
        Ok(Registration {
            tags: self.tags(words, udp),
            meta,
            weight: self.weight(words),
            checks,
            container: self.container.id.clone(),
            tagged: address::tagged(place, port, self.settings),
            port,
            reach,
            address,
            name,
            id,
        })
    }

    /// The address that the container itself names.
    fn own_address(&mut self, words: &PortWords) -> Option<IpAddr> {
        let label = self.settings.address_label.as_deref();
        let labelled = label.and_then(|label| {
            let text = self.container.labels.get(label)?;
            (!text.is_empty()).then_some((label, text.as_str()))
        });
        let (key, text) = words
            .text("ip")
            .map(|text| ("SERVICE_IP", text))
            .or(labelled)?;
        // `10.0.0.1/24`, as some network drivers write it.
        let bare = text.split_once('/').map_or(text, |(ip, _)| ip).trim();
        match bare.parse::<IpAddr>() {
            Ok(ip) if is_host(ip) => Some(ip),
            _ => {
                let text = cut(text);
                self.problem(format!("{key}=`{text}` has no effect; write an IP address"));
                None
            }
        }
    }

    /// `is_twin` says that the TCP port of the same number has the same words.
    fn id(&self, port: Port, is_twin: bool, words: &PortWords) -> Result<String, Nowhere> {
        let Some(id) = words.text("id") else {
            let (host, name) = (&self.settings.host, &self.container.name);
            let udp = if port.protocol == Protocol::Udp {
                ":udp"
            } else {
                ""
            };
            let id = format!("{host}:{name}:{}{udp}", port.number);
            return match stands_in_a_path(&id) {
                true => Ok(id),
                false => Err(Nowhere::Wrong(
                    "its container's name makes an id that Consul could not remove; write a SERVICE_ID"
                        .to_owned(),
                )),
            };
        };
        let id = format!("{id}{}", if is_twin { ":udp" } else { "" });
        if stands_in_a_path(&id) {
            Ok(id)
        } else {
            Err(Nowhere::Wrong(
                "Consul could not remove its SERVICE_ID; write one of plain letters, digits and `-`"
                    .to_owned(),
            ))
        }
    }

    fn tags(&self, words: &PortWords, udp: bool) -> Vec<String> {
        let mut tags = list(words.text("tags").unwrap_or_default());
        let forced = self.settings.tags.iter();
        tags.extend(forced.map(|template| template.fill(self.container)));
        if udp {
            tags.push("udp".to_owned());
        }
        let mut known = BTreeSet::new();
        tags.retain(|tag| !tag.is_empty() && known.insert(tag.clone()));
        tags
    }

    fn weight(&mut self, words: &PortWords) -> Option<u16> {
        let text = words.text("weight")?;
        let weight = text.trim().parse().ok().filter(|&weight| weight > 0);
        if weight.is_none() {
            let text = cut(text);
            self.problem(format!(
                "SERVICE_WEIGHT=`{text}` has no effect; write a number from 1 to 65535, or \
                 SERVICE_LB_WEIGHT=0 for an instance that takes no new flow"
            ));
        }
        weight
    }

    fn register(&mut self, registration: Registration) {
        let mut known = self.reading.registrations.iter();
        if known.any(|other| other.id == registration.id) {
            self.problem(format!(
                "{} is not registered: another port of it has the id {}; write SERVICE_{}_ID",
                shown(registration.port),
                registration.id,
                registration.port.number
            ));
        } else {
            self.reading.registrations.push(registration);
        }
    }

    fn leave_out(&mut self, reason: String) {
        self.reading.left_out.push(reason);
    }

    fn problem(&mut self, message: String) {
        let problem = Problem::new(format!("container {}", self.container.name), message);
        // Ports share words, and their mistakes.
        if !self.reading.problems.contains(&problem) {
            self.reading.problems.push(problem);
        }
    }
}

/// Whether `ip` can be that of one host.
fn is_host(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && ip != IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// One port, and how it is named.
#[derive(Clone, Copy)]
struct Named {
    port: Port,
    /// The TCP port of the same number, beside a UDP port.
    twin: Option<Port>,
    /// Whether the name ends in the port.
    group: bool,
}

/// Whether Consul can be asked about `text`, which is part of a path then: it cleans paths.
fn stands_in_a_path(text: &str) -> bool {
    let whole = |part: &str| !matches!(part, "" | "." | "..");
    text.len() <= PATH_LIMIT && text.split('/').all(whole) && !text.contains(char::is_control)
}

/// The last element of an image's path, without its tag and digest. An image that is given by its digest has no name.
fn default_name(image: &str) -> &str {
    let last = image.rsplit('/').next().unwrap_or_default();
    let digest = image.strip_prefix("sha256:").unwrap_or_default();
    if !digest.is_empty() && digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return "";
    }
    last.split([':', '@']).next().unwrap_or_default()
}

fn shown(port: Port) -> String {
    let protocol = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    };
    format!("port {}/{protocol}", port.number)
}

/// Bytes of an id or a name: a path of Consul's API holds it.
const PATH_LIMIT: usize = 512;

#[cfg(test)]
mod tests;
