//! What is to be done with a packet, decided as far as the agent's own names go. Pure.

use hickory_proto::{
    op::ResponseCode,
    rr::{Name, RecordType},
};

use super::{
    message::{Packet, Reply, Request},
    names::{Found, Names, Pointer},
    reverse,
};

/// What is to be done with a packet.
#[derive(Debug)]
pub(super) enum Decision {
    /// Nothing: it is no request.
    Ignore,
    /// It is answered here and now.
    Answer(Reply),
    /// It has to be asked elsewhere.
    Forward(Request, Via),
}

/// Who is asked about a name that is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Via {
    /// The resolvers that the host would use without us.
    Upstreams,
    /// Consul's own DNS.
    Consul,
}

/// Decides `packet` from an asker who may ask (`allowed`) or not.
pub(super) fn decide(packet: &[u8], allowed: bool, names: &Names, consul: bool) -> Decision {
    let request = match Packet::read(packet) {
        Packet::Request(request) => request,
        Packet::Unusable(reply) => return Decision::Answer(reply),
        Packet::Noise => return Decision::Ignore,
    };
    let refuse = |code| Decision::Answer(request.reply(code));
    if !allowed {
        return refuse(ResponseCode::Refused);
    }
    if request.edns_version() > 0 {
        return refuse(ResponseCode::BADVERS);
    }
    match request.query.query_type() {
        RecordType::AXFR | RecordType::IXFR => return refuse(ResponseCode::Refused),
        RecordType::OPT | RecordType::ZERO => return refuse(ResponseCode::FormErr),
        _ => {}
    }
    // A name with bytes that no service can have is none of ours.
    let name = plain(request.query.name());
    let address = name.as_deref().and_then(reverse::address);
    if let Some((address, pointer)) = address.and_then(|it| Some((it, names.pointer(it)?))) {
        return Decision::Answer(match pointer {
            Pointer::Service(name) => request.pointer(name),
            Pointer::Nobody => request.absent(reverse::zone_labels(names.pools(), address)),
            Pointer::NotYet => request.reply(ResponseCode::ServFail),
        });
    }
    if request.query.query_type() == RecordType::SRV
        && let Some(ports) = name.as_deref().and_then(|name| names.ports(name))
    {
        return Decision::Answer(request.ports(&ports));
    }
    let found = name.map_or(Found::Elsewhere, |name| names.lookup(&name));
    match found {
        Found::Addresses { v4, v6 } => Decision::Answer(request.addresses(v4, v6)),
        Found::WithoutVip | Found::NotYet => refuse(ResponseCode::ServFail),
        // No root server knows `consul.`: there is nobody to ask, and nobody else needs to learn of it.
        Found::Consul if !consul && names.answered() => Decision::Answer(request.absent(1)),
        Found::Consul if !consul => refuse(ResponseCode::ServFail),
        // The asker wants to know what we know ourselves, and that is nothing.
        Found::Consul | Found::Elsewhere if !request.recursion_desired() => {
            refuse(ResponseCode::Refused)
        }
        Found::Consul => Decision::Forward(request, Via::Consul),
        Found::Elsewhere => Decision::Forward(request, Via::Upstreams),
    }
}

/// A name as the table has it: lower case, labels joined by dots, none at the end.
fn plain(name: &Name) -> Option<String> {
    let mut text = String::with_capacity(name.len());
    for (i, label) in name.iter().enumerate() {
        if i > 0 {
            text.push('.');
        }
        // A dot within a label would look like two labels.
        let label = std::str::from_utf8(label)
            .ok()
            .filter(|label| !label.contains('.'))?;
        text.push_str(label);
    }
    text.make_ascii_lowercase();
    Some(text)
}

#[cfg(test)]
mod tests;
