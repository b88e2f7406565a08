//! Sends one request over HTTP/2.
//!
//! A backend says which requests it has not looked at: those behind the last one of a GOAWAY, and those that it refused.
//! They may be sent again whatever they are, and so may one of which nothing went out.

use std::{
    future::{Future as _, poll_fn},
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use h2::Reason as Code;
use hyper::{
    HeaderMap, Request, Response,
    body::Body as _,
    header::{self, HeaderValue},
};
use tokio::task::spawn_local;

use super::{
    super::{
        arriving::Arriving,
        lease::Task,
        loan::Loan,
        send::{Unsent, in_time},
    },
    body::Body,
    drive::Mark,
    seat::Ride,
    upload::Uploading,
};
use crate::{answer::Reason, body::Upload, proxy::Outgoing, request::is_grpc, worker::Worker};

pub(in super::super) async fn send_on(
    worker: &Worker,
    outgoing: &Outgoing,
    mut ride: Ride,
    upload: Upload,
    patience: Duration,
    repeatable: bool,
) -> Result<(Response<Arriving>, Loan), Unsent> {
    let Some(head) = outgoing.head_of_2(&upload) else {
        return Err(Unsent::lost(Reason::BadRequest));
    };
    let progress = upload.progress();
    let bare = upload.is_end_stream();
    let mark = ride.on.line.pulse.mark();
    let mut sender = ride.on.line.sender.borrow().clone();
    let begun = sender.send_request(Request::from_parts(head, ()), bare);
    // It would keep the connection open.
    drop(sender);
    let (mut answer, stream) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            tracing::debug!(%error, "a backend's connection takes no request");
            return Err(Unsent {
                upload: Some(upload),
                reason: Reason::BackendReset,
                stale: ride.reused,
            });
        }
    };
    let mut uploading = Uploading::new(stream, upload, bare);
    let answered = poll_fn(|cx| {
        if let Poll::Ready(Err(_)) = uploading.poll(cx) {
            return Poll::Ready(None);
        }
        Pin::new(&mut answer).poll(cx).map(Some)
    });
    let error = match in_time(pin!(answered), &mut ride.timer, patience, &progress).await {
        Some(Some(Ok(response))) => {
            return Ok(begin(response, ride, uploading, outgoing.talk_idle(worker)));
        }
        Some(Some(Err(error))) => error,
        // The client's fault.
        Some(None) => return Err(Unsent::lost(Reason::BackendReset)),
        None => {
            ride.on.line.doubt(mark);
            return Err(Unsent::lost(Reason::ResponseTimeout));
        }
    };
    tracing::debug!(%error, "no answer from a backend");
    let reason = match error.is_library() {
        true => Reason::ResponseInvalid,
        false => Reason::BackendReset,
    };
    let died = repeatable && !ride.on.line.pulse.heard_since(mark) && !error.is_reset();
    let harmless = died || is_unseen(&error, &ride, mark);
    Err(Unsent {
        upload: uploading.again().filter(|_| harmless),
        reason,
        // Whoever resets it has something against it, whichever connection it is on.
        stale: ride.reused && !error.is_reset(),
    })
}

/// Whether the backend cannot have looked at the request.
fn is_unseen(error: &h2::Error, ride: &Ride, mark: Mark) -> bool {
    if error.is_remote() && error.is_go_away() {
        // Others learn of a GOAWAY by the connection's end alone.
        return true;
    }
    if error.is_remote() && error.is_reset() {
        return error.reason() == Some(Code::REFUSED_STREAM);
    }
    !ride.on.line.pulse.wrote_since(mark)
}

/// The answer's head is there; what is left of the request goes on beside the answer, and ends with it.
fn begin(
    response: Response<h2::RecvStream>,
    mut ride: Ride,
    mut uploading: Uploading,
    talk_idle: Duration,
) -> (Response<Arriving>, Loan) {
    let pulse = &ride.on.line.pulse;
    pulse.said_something();
    let (head, stream) = response.into_parts();
    let body = Body::new(stream, pulse.clone(), length(&head.headers));
    ride.patient = is_grpc(&head.headers) || !uploading.is_over();
    if !uploading.is_over() {
        uploading.begin_talk(talk_idle);
        ride.upload = Some(Task::new(&spawn_local(uploading.run())));
    }
    let response = Response::from_parts(head, Arriving::Two(body));
    (response, Loan::Share(ride))
}

/// What an answer says of its length; h2 sees to it that it is true.
fn length(headers: &HeaderMap) -> Option<u64> {
    let value: &HeaderValue = headers.get(header::CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
}
