//! The frames of HTTP/2.

use crate::h2::frames::Frames;

/// The first byte says into what pieces the rest is cut.
pub fn front_frames(data: &[u8]) {
    let Some((&size, stream)) = data.split_first() else {
        return;
    };
    let mut frames = Frames::new();
    let pieces = stream.chunks(usize::from(size).max(1));
    let idle: u32 = pieces.map(|piece| frames.scan(piece)).sum();
    assert_eq!(idle, plainly(stream), "in pieces of {size}");
}

/// The frames that ask for nothing, in the plainest way.
fn plainly(stream: &[u8]) -> u32 {
    let mut idle = 0;
    let mut rest = stream.get(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len()..);
    while let Some([a, b, c, kind, _, _, _, _, _, payload @ ..]) = rest {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        // DATA, HEADERS and CONTINUATION, with something in them.
        idle += u32::from(!matches!(kind, 0 | 1 | 9) || length == 0);
        rest = payload.get(length..);
    }
    idle
}
