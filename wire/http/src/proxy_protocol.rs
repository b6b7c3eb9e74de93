//! The PROXY protocol (HAProxy's specification of 2020/03/05), versions 1 and 2: who is at the other end of a connection that somebody passes on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// First bytes of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// A line of version 1 at most, its end included.
const LINE_BYTES: usize = 107;
/// What a header of version 2 may hold: addresses, and what else senders add (TLVs).
const MOST_BYTES: usize = 1_024;

/// Both ends of the connection as it was at its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Who opened it.
    pub source: SocketAddr,
    /// To where.
    pub destination: SocketAddr,
}

/// A header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its length: what follows is the connection's.
    pub length: usize,
    /// Its ends. None: the sender speaks for itself (a health check), or of no addresses that we know.
    pub ends: Option<Ends>,
}

/// What cannot be a header. The sender's fault: it does not speak the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Neither version.
    #[error("no PROXY header")]
    NoHeader,
    /// A line that is none of version 1.
    #[error("a bad PROXY line")]
    BadLine,
    /// A header that is none of version 2.
    #[error("a bad PROXY header of version 2")]
    BadHeader,
}

/// Versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Reads the header with which a connection begins. None: there is more to come.
///
/// # Errors
/// See [`Error`].
pub fn decode(bytes: &[u8]) -> Result<Option<Header>, Error> {
    let seen = bytes.len().min(SIGNATURE.len());
    if bytes[..seen] == SIGNATURE[..seen] {
        return if seen < SIGNATURE.len() { Ok(None) } else { binary(bytes) };
    }
    const WORD: &[u8] = b"PROXY ";
    let seen = bytes.len().min(WORD.len());
    if bytes[..seen] != WORD[..seen] {
        return Err(Error::NoHeader);
    }
    let within = &bytes[..bytes.len().min(LINE_BYTES)];
    match within.windows(2).position(|pair| pair == b"\r\n") {
        Some(end) => line(&within[WORD.len().min(end)..end]).map(|ends| Some(Header { length: end + 2, ends })),
        None if bytes.len() >= LINE_BYTES => Err(Error::BadLine),
        None => Ok(None),
    }
}

fn line(rest: &[u8]) -> Result<Option<Ends>, Error> {
    let text = std::str::from_utf8(rest).map_err(|_| Error::BadLine)?;
    let mut words = text.split(' ');
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Ok(None);
    }
    let mut address = || words.next().and_then(|word| word.parse::<IpAddr>().ok()).ok_or(Error::BadLine);
    let (source, destination) = (address()?, address()?);
    let fits = match family {
        Some("TCP4") => source.is_ipv4() && destination.is_ipv4(),
        Some("TCP6") => source.is_ipv6() && destination.is_ipv6(),
        _ => false,
    };
    let mut port = || {
        let word = words.next().filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
        word.and_then(|word| word.parse::<u16>().ok()).ok_or(Error::BadLine)
    };
    let (from, to) = (port()?, port()?);
    if !fits || words.next().is_some() {
        return Err(Error::BadLine);
    }
    Ok(Some(Ends { source: SocketAddr::new(source, from), destination: SocketAddr::new(destination, to) }))
}

fn binary(bytes: &[u8]) -> Result<Option<Header>, Error> {
    let Some([command, family, high, low]) = bytes.get(12..16) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if command >> 4 != 2 || length > MOST_BYTES {
        return Err(Error::BadHeader);
    }
    let Some(body) = bytes.get(16..16 + length) else { return Ok(None) };
    let ends = match (command & 0xf, family) {
        (0, _) => None,
        (1, 0x11) => Some(pair::<4>(body)?),
        (1, 0x21) => Some(pair::<16>(body)?),
        // Datagrams and sockets of the host: connections all the same, of nobody that we know.
        (1, _) => None,
        _ => return Err(Error::BadHeader),
    };
    Ok(Some(Header { length: 16 + length, ends }))
}

fn pair<const N: usize>(body: &[u8]) -> Result<Ends, Error>
where
    IpAddr: From<[u8; N]>,
{
    let address = |at: usize| body.get(at..at + N).and_then(|bytes| <[u8; N]>::try_from(bytes).ok()).map(IpAddr::from);
    let port = |at: usize| body.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    let end = |of: usize, at: usize| Some(SocketAddr::new(address(of)?, port(at)?));
    let ends = end(0, 2 * N).zip(end(N, 2 * N + 2));
    let (source, destination) = ends.ok_or(Error::BadHeader)?;
    Ok(Ends { source, destination })
}

/// Writes a header. Ends of different families are both told as IPv6.
pub fn encode(version: Version, ends: Ends) -> Vec<u8> {
    let (source, destination) = (ends.source.ip().to_canonical(), ends.destination.ip().to_canonical());
    let (from, to) = (ends.source.port(), ends.destination.port());
    let v4 = |address: IpAddr| match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    };
    let v6 = |address: IpAddr| match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    match (version, v4(source).zip(v4(destination))) {
        (Version::V1, Some((source, destination))) => {
            format!("PROXY TCP4 {source} {destination} {from} {to}\r\n").into_bytes()
        }
        (Version::V1, None) => format!("PROXY TCP6 {} {} {from} {to}\r\n", v6(source), v6(destination)).into_bytes(),
        (Version::V2, Some((source, destination))) => {
            framed(0x11, &[source, destination].map(|it: Ipv4Addr| it.octets()), from, to)
        }
        (Version::V2, None) => framed(0x21, &[v6(source), v6(destination)].map(|it: Ipv6Addr| it.octets()), from, to),
    }
}

fn framed<const N: usize>(family: u8, addresses: &[[u8; N]; 2], from: u16, to: u16) -> Vec<u8> {
    let mut out = SIGNATURE.to_vec();
    out.extend([0x21, family]);
    out.extend((2 * N as u16 + 4).to_be_bytes());
    out.extend(addresses.as_flattened());
    out.extend(from.to_be_bytes());
    out.extend(to.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(source: &str, destination: &str) -> Ends {
        Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    #[test]
    fn what_is_written_is_read() {
        for (version, ends) in [Version::V1, Version::V2].into_iter().flat_map(|version| {
            [ends("192.0.2.1:65535", "10.0.0.1:80"), ends("[2001:db8::1]:1", "[::1]:443")].map(|ends| (version, ends))
        }) {
            let mut bytes = encode(version, ends);
            let length = bytes.len();
            for cut in 0..length {
                assert_eq!(decode(&bytes[..cut]), Ok(None), "{version:?} {cut}");
            }
            bytes.extend(b"GET / HTTP/1.1\r\n");
            assert_eq!(decode(&bytes), Ok(Some(Header { length, ends: Some(ends) })), "{version:?}");
        }
        let mixed = encode(Version::V1, ends("192.0.2.1:1", "[::1]:2"));
        assert_eq!(mixed, b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n");
        let mapped = encode(Version::V1, ends("[::ffff:192.0.2.1]:1", "10.0.0.1:2"));
        assert_eq!(mapped, b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2\r\n");
    }

    #[test]
    fn lines() {
        let read = |text: &str| decode(text.as_bytes());
        assert_eq!(read("PROXY UNKNOWN\r\nx"), Ok(Some(Header { length: 15, ends: None })));
        assert_eq!(read("PROXY UNKNOWN ffff::1 a b c\r\n").map(|it| it.is_some()), Ok(true));
        for bad in [
            "GET / HTTP/1.1\r\n",
            "PROXYTCP4",
            "proxy TCP4",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
            "PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY \r\n",
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
        assert_eq!(decode(&[b"PROXY ", &[b'x'; 120][..]].concat()), Err(Error::BadLine), "a line without end");
    }

    #[test]
    fn binary_headers() {
        let header = |command: u8, family: u8, body: &[u8]| {
            let mut bytes = SIGNATURE.to_vec();
            bytes.extend([command, family]);
            bytes.extend((body.len() as u16).to_be_bytes());
            bytes.extend(body);
            bytes
        };
        assert_eq!(decode(&header(0x20, 0, &[])), Ok(Some(Header { length: 16, ends: None })), "LOCAL");
        let with_tlv = header(0x21, 0x11, &[1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 0, 80, 4, 0, 1, 7]);
        let expect = Header { length: 32, ends: Some(ends("1.2.3.4:9", "5.6.7.8:80")) };
        assert_eq!(decode(&with_tlv), Ok(Some(expect)));
        assert_eq!(
            decode(&header(0x21, 0x31, &[0; 216])),
            Ok(Some(Header { length: 232, ends: None })),
            "a socket's path"
        );
        for bad in [header(0x11, 0x11, &[0; 12]), header(0x22, 0x11, &[0; 12]), header(0x21, 0x11, &[0; 11])] {
            assert_eq!(decode(&bad), Err(Error::BadHeader));
        }
        assert_eq!(decode(&header(0x21, 0x11, &[0; 1_025])), Err(Error::BadHeader), "too long");
    }
}
