//! A body as large and as slow as its reader asks, made of the instance's id, line by line: the reader can see
//! that all of it came from one instance.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, channel::Channel};
use hyper::{
    Response,
    header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue},
};
use tokio::time::{MissedTickBehavior, interval};

use crate::answers::{Body, TEXT};

/// What to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    bytes: u64,
    /// Bytes per second; `None` is as fast as the reader reads.
    rate: Option<u64>,
}

impl Order {
    /// Reads the query of `/download?bytes=N&rate=BYTES_PER_SECOND`.
    pub(crate) fn parse(query: &str) -> Result<Self, String> {
        let usage = |why: String| {
            format!("{why}; the form is /download?bytes=N, or with &rate=BYTES_PER_SECOND")
        };
        let (mut bytes, mut rate) = (None, None);
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let number: u64 = value
                .parse()
                .map_err(|_| usage(format!("{key} is not a number")))?;
            match key {
                "bytes" => bytes = Some(number),
                "rate" if number > 0 => rate = Some(number),
                "rate" => return Err(usage("rate is zero".into())),
                _ => return Err(usage(format!("{key} is unknown"))),
            }
        }
        let bytes = bytes.ok_or_else(|| usage("bytes is missing".into()))?;
        Ok(Self { bytes, rate })
    }

    /// The most to send before the next tick.
    fn portion(self, hurry: bool) -> u64 {
        match self.rate {
            Some(rate) if !hurry => (rate / u64::from(TICKS_PER_SECOND)).max(1),
            _ => u64::MAX,
        }
    }
}

/// The answer to `order`, sent by a task that ends with its reader.
pub(crate) fn start(order: Order, id: &str, hurry: Arc<AtomicBool>) -> Response<Body> {
    let (mut sender, body) = Channel::new(1);
    let line = format!("{id}\n");
    // A whole number of lines, so that blocks follow each other without a seam.
    let block = Bytes::from(line.repeat(BLOCK_BYTES.div_ceil(line.len())));
    tokio::spawn(async move {
        let mut tick = interval(Duration::from_secs(1) / TICKS_PER_SECOND);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut sent, length) = (0, block.len() as u64);
        while sent < order.bytes {
            let hurry = hurry.load(Ordering::Relaxed);
            if order.rate.is_some() && !hurry {
                tick.tick().await;
            }
            let mut portion = order.portion(hurry).min(order.bytes - sent);
            // A tick is never unbounded: a reader in a hurry may come at any block.
            portion = portion.min(length * 16);
            while portion > 0 {
                let from = sent % length;
                let size = portion.min(length - from);
                let piece = block.slice(index(from)..index(from + size));
                if sender.send_data(piece).await.is_err() {
                    return; // The reader left.
                }
                sent += size;
                portion -= size;
            }
        }
    });
    let mut answer = Response::new(body.boxed_unsync());
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(TEXT));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(order.bytes));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "an offset within a block, whose length is a usize"
)]
fn index(offset: u64) -> usize {
    offset as usize
}

/// About the size of one write.
const BLOCK_BYTES: usize = 64 * 1024;

/// A slow download still moves this often.
const TICKS_PER_SECOND: u32 = 20;
