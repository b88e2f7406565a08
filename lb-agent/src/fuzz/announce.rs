//! What neighbours send to a host that announces VIPs, and what other hosts wrote.

use crate::{
    announce::fuzz::{MAC, arp, ndp, owner},
    discover::consul,
};

/// A frame.
pub fn neighbours(data: &[u8]) {
    let kinds = [arp(data).is_some(), ndp(data).is_some()];
    assert_ne!(kinds, [true; 2], "two questions in one");
    if let Some((target, answer)) = arp(data) {
        assert_eq!(answer[0] & 1, 0, "an answer is for one");
        assert_eq!(answer[6..12], MAC);
        assert_eq!(answer[28..32], target.octets());
        assert!(arp(&answer).is_none(), "an answer is no question");
    }
    if let Some((target, answer)) = ndp(data) {
        assert!(!target.is_multicast());
        // One who has no address yet is told with everybody.
        assert!(answer[0] & 1 == 0 || answer[..6] == [0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(answer[6..12], MAC);
        assert_eq!(answer[62..78], target.octets());
        assert!(ndp(&answer).is_none(), "an answer is no question");
    }
}

/// An answer about the lock of who announces.
pub fn consul_lock(data: &[u8]) {
    let Some((session, value)) = consul::fuzz::lock(data) else {
        return;
    };
    let body = data.trim_ascii_end();
    assert!(consul::fuzz::lock(&body[..body.len() - 1]).is_none());
    assert_ne!(session.as_deref(), Some(""), "nobody holds it");
    // What stands in fields that nobody reads need be no text.
    let text = String::from_utf8_lossy(&value);
    let named = serde_json::from_str::<serde_json::Value>(&text).ok();
    let node = named.as_ref().and_then(|it| it["node"].as_str());
    let owner = owner(&value);
    // Whoever cannot be read is somebody all the same.
    assert!(
        owner == "a host that cannot be read" || node.is_some_and(|node| owner.starts_with(node))
    );
}
