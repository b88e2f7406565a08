//! The header of the PROXY protocol.

use crate::proxy_header::{Header, MOST, parse};

/// The bytes of a connection. What is said of fewer of them holds for all.
pub fn front_proxy_header(data: &[u8]) {
    let whole = parse(data);
    if let Ok(Header::Whole { length, .. }) = whole {
        assert!(length <= data.len() && length <= MOST);
        assert_eq!(parse(&data[..length]), whole);
    }
    assert!(whole != Ok(Header::Part) || data.len() < MOST);
    for end in 0..data.len().min(MOST + 1) {
        match parse(&data[..end]) {
            Ok(Header::Part) => {}
            said => {
                assert_eq!(said, whole, "after {end} bytes");
                return;
            }
        }
    }
}
