//! What neighbours send to a host that announces VIPs.

use crate::announce::fuzz::{MAC, arp, ndp};

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
