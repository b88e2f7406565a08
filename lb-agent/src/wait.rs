//! What stages wait for beside channels and signals.

use std::future::pending;

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// Waits until `moment`, or for ever.
pub(crate) async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}

/// Waits until one of `receivers` has a value that was not seen. One whose sender is gone keeps its last value
/// and wakes nobody.
pub(crate) async fn any_changed<'r, T: Send + Sync + 'r>(
    receivers: impl IntoIterator<Item = &'r mut watch::Receiver<T>>,
) {
    let changes = receivers.into_iter().map(|receiver| async {
        if receiver.changed().await.is_err() {
            pending::<()>().await;
        }
    });
    let mut changes: FuturesUnordered<_> = changes.collect();
    if changes.next().await.is_none() {
        pending::<()>().await;
    }
}
