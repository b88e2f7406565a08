//! A client of HTTP/2 (RFC 9113): one connection, and on it always as many requests as a proxy takes. As little of the
//! protocol as that needs, so that the client is never what is measured.

use std::{
    collections::HashMap,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{SocketAddrV4, TcpStream},
    time::{Duration, Instant},
};

use super::{
    load::{PATIENCE, Slice},
    workload::{HOST, SMALL},
};

/// How many requests are under way.
const STREAMS: usize = 100;

/// The client of one proxy.
pub(super) struct Client {
    proxy: SocketAddrV4,
    connection: Connection,
}

struct Connection {
    stream: TcpStream,
    /// What has come and is not a whole frame yet.
    come: Vec<u8>,
    /// What is to be sent.
    out: Vec<u8>,
    /// The next request's.
    next: u32,
    under_way: HashMap<u32, Asked>,
    /// Whether the proxy takes no more requests here.
    leaving: bool,
}

struct Asked {
    at: Instant,
    /// Whether the head was good.
    good: bool,
    /// Bytes of the body that have come.
    body: usize,
}

impl Client {
    /// Connects, and is answered once.
    ///
    /// # Errors
    /// When the proxy does not answer as it should.
    pub(super) fn open(proxy: SocketAddrV4) -> io::Result<Self> {
        let mut client = Self {
            proxy,
            connection: Connection::open(proxy)?,
        };
        client.run(Duration::ZERO)?;
        Ok(client)
    }

    /// Asks until `limit` is over, and waits for all answers.
    ///
    /// # Errors
    /// When an answer is not what it should be, or does not come.
    pub(super) fn run(&mut self, limit: Duration) -> io::Result<Slice> {
        let mut latencies = Vec::with_capacity(32 << 10);
        let began = Instant::now();
        let mut now = began;
        let mut asked = 0;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let connection = &mut self.connection;
            // Each has its turn at least once.
            while (asked < STREAMS || now - began < limit)
                && connection.under_way.len() < STREAMS
                && !connection.leaving
            {
                connection.ask();
                asked += 1;
            }
            if connection.under_way.is_empty() {
                if asked >= STREAMS && now - began >= limit {
                    break;
                }
                // Proxies end a connection after a number of requests.
                self.connection = Connection::open(self.proxy)?;
                continue;
            }
            connection.send()?;
            let read = connection.stream.read(&mut buffer)?;
            if read == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            connection.come.extend_from_slice(&buffer[..read]);
            now = Instant::now();
            connection.take(now, &mut latencies)?;
        }
        self.connection.send()?;
        Ok(Slice {
            elapsed: now - began,
            latencies,
        })
    }
}

impl Connection {
    fn open(proxy: SocketAddrV4) -> io::Result<Self> {
        let stream = TcpStream::connect(proxy)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        frame(&mut out, SETTINGS, 0, 0, &[]);
        // No answer ever waits for room.
        frame(
            &mut out,
            WINDOW_UPDATE,
            0,
            0,
            &(0x7fff_ffff_u32 - 65_535).to_be_bytes(),
        );
        Ok(Self {
            stream,
            come: Vec::new(),
            out,
            next: 1,
            under_way: HashMap::with_capacity(STREAMS),
            leaving: false,
        })
    }

    fn ask(&mut self) {
        frame(
            &mut self.out,
            HEADERS,
            END_STREAM | END_HEADERS,
            self.next,
            &request(),
        );
        let asked = Asked {
            at: Instant::now(),
            good: false,
            body: 0,
        };
        self.under_way.insert(self.next, asked);
        self.next += 2;
    }

    fn send(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// Takes every frame that is whole, at the time `now`.
    fn take(&mut self, now: Instant, latencies: &mut Vec<u32>) -> io::Result<()> {
        let come = std::mem::take(&mut self.come);
        let mut rest = &come[..];
        while let Some((head, behind)) = rest.split_first_chunk::<9>() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let Some((payload, behind)) = behind.split_at_checked(length) else {
                break;
            };
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
            if self.frame(head[3], head[4], stream, payload)? {
                let asked = self.under_way.remove(&stream);
                let asked = asked.filter(|asked| asked.good && asked.body == SMALL);
                let asked = asked.ok_or_else(|| io::Error::other("an answer is not whole"))?;
                let latency = (now - asked.at).as_nanos();
                latencies.push(u32::try_from(latency).unwrap_or(u32::MAX));
            }
            rest = behind;
        }
        self.come = rest.to_vec();
        Ok(())
    }

    /// Takes a frame; whether it is the last one of an answer.
    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<bool> {
        match kind {
            HEADERS if flags & END_HEADERS != 0 => {
                let asked = self.asked(stream)?;
                asked.good = says_ok(payload);
                return Ok(flags & END_STREAM != 0);
            }
            DATA => {
                self.asked(stream)?.body += payload.len();
                return Ok(flags & END_STREAM != 0);
            }
            SETTINGS if flags & ACK == 0 => frame(&mut self.out, SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => frame(&mut self.out, PING, ACK, 0, payload),
            GOAWAY => {
                self.leaving = true;
                // What came later than the last one it took, it never looked at.
                let last = payload.first_chunk::<4>().copied().unwrap_or_default();
                let last = u32::from_be_bytes(last) & 0x7fff_ffff;
                self.under_way.retain(|&stream, _| stream <= last);
            }
            SETTINGS | PING | WINDOW_UPDATE => {}
            _ => {
                return Err(io::Error::other(format!(
                    "an unexpected frame of type {kind}"
                )));
            }
        }
        Ok(false)
    }

    fn asked(&mut self, stream: u32) -> io::Result<&mut Asked> {
        let asked = self.under_way.get_mut(&stream);
        asked.ok_or_else(|| io::Error::other("an answer to nothing"))
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    // All of ours are short.
    let [_, length @ ..] = u32::try_from(payload.len())
        .unwrap_or_default()
        .to_be_bytes();
    out.extend_from_slice(&length);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// GET of the small answer, in HPACK (RFC 7541): indexed where the static table has it, and literals without Huffman.
fn request() -> Vec<u8> {
    let mut block = vec![GET, HTTP];
    for (name, value) in [(PATH, "/small"), (AUTHORITY, HOST)] {
        let length = u8::try_from(value.len()).unwrap_or_default();
        block.extend_from_slice(&[name, length]);
        block.extend_from_slice(value.as_bytes());
    }
    block
}

/// Whether a block of fields begins with the status 200, behind changes of the table's size if need be.
fn says_ok(block: &[u8]) -> bool {
    let mut fields = block.iter().skip_while(|&&byte| byte & 0xe0 == 0x20);
    fields.next() == Some(&OK)
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// Of the static table.
const GET: u8 = 0x80 | 2;
const HTTP: u8 = 0x80 | 6;
const OK: u8 = 0x80 | 8;
/// Names of it, with a literal value that is not kept.
const AUTHORITY: u8 = 1;
const PATH: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else {
            panic!("an IPv4 address");
        };
        Connection::open(address).unwrap()
    }

    #[test]
    fn an_answer_is_whole_with_its_last_frame_however_it_is_cut() {
        let mut bytes = Vec::new();
        frame(&mut bytes, SETTINGS, 0, 0, &[]);
        frame(&mut bytes, HEADERS, END_HEADERS, 1, &[0x20, OK, 0x40]);
        frame(&mut bytes, DATA, 0, 1, &[0; SMALL - 1]);
        frame(&mut bytes, DATA, END_STREAM, 1, &[0]);
        for cut in 0..bytes.len() {
            let mut connection = connection();
            connection.ask();
            let mut latencies = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                assert!(latencies.is_empty());
                connection.come.extend_from_slice(part);
                connection.take(Instant::now(), &mut latencies).unwrap();
            }
            assert_eq!(latencies.len(), 1, "{cut}");
        }
    }

    #[test]
    fn what_is_no_whole_good_answer_is_refused() {
        let answer = |status: u8, body: usize| {
            let mut bytes = Vec::new();
            frame(&mut bytes, HEADERS, END_HEADERS, 1, &[status]);
            frame(&mut bytes, DATA, END_STREAM, 1, &vec![0; body]);
            bytes
        };
        let mut reset = Vec::new();
        frame(&mut reset, 3, 0, 1, &[0; 4]);
        for bad in [answer(OK, SMALL - 1), answer(0x80 | 14, SMALL), reset] {
            let mut connection = connection();
            connection.ask();
            connection.come = bad;
            assert!(connection.take(Instant::now(), &mut Vec::new()).is_err());
        }
    }
}
