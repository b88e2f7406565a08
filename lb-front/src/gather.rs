//! Writing several pieces at once.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::AsyncWrite;

/// Writes `slices` as far as `stream` takes them. Few bytes are copied together first: for the kernel, `send` of one piece
/// is less work than `writev`, even of one.
pub(crate) fn poll_write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let stream = Pin::new(stream);
    if let [whole] = slices {
        return stream.poll_write(cx, whole);
    }
    let length: usize = slices.iter().map(|slice| slice.len()).sum();
    let mut bytes = [0; LITTLE];
    let Some(bytes) = bytes.get_mut(..length) else {
        return stream.poll_write_vectored(cx, slices);
    };
    let mut rest = &mut *bytes;
    for slice in slices {
        let (piece, behind) = rest.split_at_mut(slice.len());
        piece.copy_from_slice(slice);
        rest = behind;
    }
    stream.poll_write(cx, bytes)
}

/// Most heads, and with them bodies of a line or two.
const LITTLE: usize = 1024;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use proptest::prelude::*;

    use super::*;

    /// Takes so many bytes at a time.
    struct Narrow(usize, Vec<u8>);

    impl AsyncWrite for Narrow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let taken = bytes.len().min(self.0);
            self.1.extend_from_slice(&bytes[..taken]);
            Poll::Ready(Ok(taken))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = slices.iter().flat_map(|it| it.to_vec()).collect();
            self.poll_write(cx, &all)
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_is_the_beginning_of_all_pieces(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..900), 0..4),
            width in 1..3000_usize,
        ) {
            let all = pieces.concat();
            let slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
            let mut stream = Narrow(width, Vec::new());
            let write = poll_fn(|cx| poll_write(&mut stream, cx, &slices));
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let taken = runtime.block_on(write).unwrap();
            prop_assert_eq!(taken, all.len().min(width));
            prop_assert_eq!(&stream.1, &all[..taken]);
        }
    }
}
