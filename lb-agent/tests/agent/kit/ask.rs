//! Ways to ask: the admin's JSON, HTTP byte by byte, the resolver, a line on a plain flow.

use std::{
    collections::BTreeSet,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    str::FromStr as _,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use lb_testkit::Netns;
use serde_json::Value;

use super::LIMIT;

/// What the agent knows: the JSON of its API.
#[derive(Debug)]
pub(crate) struct Report(pub(crate) Value);

impl Report {
    /// The service or part `name`; `None` also while no service is known.
    pub(crate) fn service(&self, name: &str) -> Option<&Value> {
        let services = self.0["services"].as_array()?;
        services.iter().find(|service| service["name"] == name)
    }

    pub(crate) fn vip(&self, name: &str) -> Option<Ipv4Addr> {
        self.service(name)?["vip"].as_str()?.parse().ok()
    }

    /// The ids of the instances of `service` that are in `state`.
    pub(crate) fn instances(&self, service: &str, state: &str) -> BTreeSet<String> {
        let backends = self.service(service).map(|service| &service["backends"]);
        let backends = backends.and_then(Value::as_array).into_iter().flatten();
        backends
            .filter(|backend| backend["state"] == state)
            .filter_map(|backend| Some(backend["id"].as_str()?.to_owned()))
            .collect()
    }

    /// All complaints, one a line.
    pub(crate) fn problems(&self) -> String {
        let problems = self.0["problems"].as_array().into_iter().flatten();
        problems
            .map(|it| format!("{}: {}\n", it["subject"], it["message"]))
            .collect()
    }
}

/// An HTTP response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// Connects as a client on this host does.
pub(crate) fn connect(netns: &Netns, address: Ipv4Addr, port: u16) -> io::Result<TcpStream> {
    let address = SocketAddr::from((address, port));
    let connect = || TcpStream::connect_timeout(&address, LIMIT);
    netns.enter(connect).unwrap()
}

/// Gets `path` of `host` from `address`, on a connection of its own.
pub(crate) fn http(
    netns: &Netns,
    address: SocketAddr,
    host: &str,
    path: &str,
) -> io::Result<Answer> {
    let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n");
    exchange(netns, address, &head, "")
}

/// Sends one request, whose head lacks only what ends it, on a connection of its own.
pub(crate) fn exchange(
    netns: &Netns,
    address: SocketAddr,
    head: &str,
    body: &str,
) -> io::Result<Answer> {
    let mut stream = netns
        .enter(|| TcpStream::connect_timeout(&address, LIMIT))
        .unwrap()?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "{head}Connection: close\r\n\r\n{body}")?;
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let mut body = Vec::new();
    match content_length(&head) {
        Some(length) => drop(stream.take(length).read_to_end(&mut body)?),
        None => drop(stream.read_to_end(&mut body)?),
    }
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(Answer {
        status: status.ok_or_else(|| io::Error::other(head.clone()))?,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

fn content_length(head: &str) -> Option<u64> {
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let found = name.eq_ignore_ascii_case("content-length");
        found.then(|| value.trim().parse().ok())?
    })
}

/// The IPv4 addresses of `name`, by one question to the resolver over UDP.
pub(crate) fn dns(
    netns: &Netns,
    resolver: Ipv4Addr,
    name: &str,
) -> io::Result<(ResponseCode, Vec<Ipv4Addr>)> {
    let answer = dns_message(netns, resolver, name, RecordType::A)?;
    let addresses = answer
        .answers
        .iter()
        .filter_map(|record| match record.data {
            RData::A(address) => Some(address.0),
            _ => None,
        });
    Ok((answer.metadata.response_code, addresses.collect()))
}

/// The whole answer to one question for records of `kind`.
pub(crate) fn dns_message(
    netns: &Netns,
    resolver: impl Into<IpAddr>,
    name: &str,
    kind: RecordType,
) -> io::Result<Message> {
    let mut question = Message::new(7, MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    let name = Name::from_str(name).unwrap();
    question.add_query(Query::query(name, kind));
    let resolver = resolver.into();
    let any: IpAddr = match resolver {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = netns.enter(|| UdpSocket::bind((any, 0))).unwrap()?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.send_to(&question.to_vec().unwrap(), (resolver, 53))?;
    let mut room = [0; 4096];
    let (length, _) = socket.recv_from(&mut room)?;
    Message::from_vec(&room[..length]).map_err(io::Error::other)
}

/// Says a line on a plain flow, and returns the id of the instance that answers.
pub(crate) fn greeting(mut stream: &TcpStream) -> io::Result<String> {
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"who\n")?;
    let mut line = String::new();
    // One line is answered to one line, so nothing is read ahead and lost.
    if BufReader::new(stream).read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}
