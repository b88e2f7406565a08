//! A request's body on its way to a backend over HTTP/2.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use hyper::{HeaderMap, body::Body as _, body::Frame};

use crate::body::Upload;

/// Sends it piece by piece, each once the backend's window opens for it: no more of it is asked for before.
pub(super) struct Uploading {
    stream: SendStream<Bytes>,
    upload: Upload,
    /// A piece that waits for the window.
    held: Option<Bytes>,
    /// What was taken of it so far, as long as it is little; `None` once it is not.
    kept: Option<Vec<Frame<Bytes>>>,
    kept_bytes: usize,
    over: bool,
}

impl Uploading {
    /// Of a request that is `over` with its head there is nothing to send.
    pub(super) fn new(stream: SendStream<Bytes>, upload: Upload, over: bool) -> Self {
        Self {
            stream,
            upload,
            held: None,
            kept: Some(Vec::new()),
            kept_bytes: 0,
            over,
        }
    }

    /// Whether there is nothing more to do.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// The whole body again, if what was taken of it is still there.
    pub(super) fn again(self) -> Option<Upload> {
        let mut upload = self.upload;
        upload.repeat(self.kept?);
        Some(upload)
    }

    /// There is an answer: the body will not be wanted again. The client is in no hurry if it talks with the backend.
    pub(super) fn begin_talk(&mut self, idle: std::time::Duration) {
        self.kept = None;
        self.upload.relax(idle);
    }

    /// To its end, which is the backend's if it wants no more of it.
    pub(super) async fn run(mut self) {
        // The answer has its own word for that.
        let _ = poll_fn(|cx| self.poll(cx)).await;
    }

    /// Sends what there is. Ready at the end; an error is the client's.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.over {
            return Poll::Ready(Ok(()));
        }
        let end = ready!(self.advance(cx));
        self.over = true;
        if end.is_err() {
            self.stream.send_reset(Reason::CANCEL);
        }
        Poll::Ready(end)
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            // The backend may have had enough of it, with or without an answer.
            if self.stream.poll_reset(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            if self.held.is_some() {
                while self.stream.capacity() == 0 {
                    match ready!(self.stream.poll_capacity(cx)) {
                        Some(Ok(_)) => {}
                        Some(Err(_)) | None => return Poll::Ready(Ok(())),
                    }
                }
                let piece = self.held.take().unwrap_or_default();
                let last = self.upload.is_end_stream();
                if self.stream.send_data(piece, last).is_err() || last {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            let Some(frame) = ready!(Pin::new(&mut self.upload).poll_frame(cx)) else {
                let _ = self.stream.send_data(Bytes::new(), true);
                return Poll::Ready(Ok(()));
            };
            let frame = frame?;
            self.keep(&frame);
            match frame.into_data() {
                Ok(piece) => {
                    if piece.is_empty() {
                        continue; // If it is the last one, the end is told next.
                    }
                    // Asked for only now: a claim on the connection's window without anything to send would keep it from others.
                    self.stream.reserve_capacity(1);
                    self.held = Some(piece);
                }
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_else(|_| HeaderMap::new());
                    self.stream.reserve_capacity(0);
                    if trailers.is_empty() || self.stream.send_trailers(trailers).is_err() {
                        let _ = self.stream.send_data(Bytes::new(), true);
                    }
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        let Some(kept) = &mut self.kept else {
            return;
        };
        let copy = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(piece), _) => Frame::data(piece.clone()),
            (None, Some(trailers)) => Frame::trailers(trailers.clone()),
            (None, None) => return,
        };
        self.kept_bytes += frame.data_ref().map_or(0, Bytes::len);
        kept.push(copy);
        if self.kept_bytes > KEPT || kept.len() > KEPT_PIECES {
            self.kept = None;
        }
    }
}

/// Of a request that may have to be sent again: most calls of gRPC are shorter.
const KEPT: usize = 64 * 1024;
const KEPT_PIECES: usize = 64;
