//! Who says that the conditions of readiness are met. Each is waited for by itself: none hides that another one is met.

use futures_util::future::join_all;
use lb_agent::admin::Readiness;
use tokio_util::sync::CancellationToken;

use super::assembly::Reached;

/// Sets the `conditions` as they come true, until `stop`.
pub(super) async fn report(
    conditions: Vec<Reached>,
    readiness: Readiness,
    stop: CancellationToken,
) {
    let readiness = &readiness;
    let each = conditions
        .into_iter()
        .map(|(condition, mut reached)| async move {
            // An error means that the stage ended, which is told elsewhere.
            if reached.wait_for(Option::is_some).await.is_ok() {
                readiness.set(condition);
            }
        });
    tokio::select! {
        _ = join_all(each) => stop.cancelled().await,
        () = stop.cancelled() => {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{sync::watch, time::timeout};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_condition_that_is_met_is_told_whatever_the_others_wait_for() {
        let (_maps_in, maps) = watch::channel(None);
        let (gone, of_gone) = watch::channel(None);
        let (front_in, front) = watch::channel(None);
        drop(gone);
        let names = ["maps", "gone", "front"];
        let readiness = Readiness::new(names);
        let conditions = names.into_iter().zip([maps, of_gone, front]).collect();
        let stop = CancellationToken::new();
        let reporting = tokio::spawn(report(conditions, readiness.clone(), stop.clone()));
        front_in.send_replace(Some(1));
        let told = async {
            while readiness.reasons() != ["waiting for gone", "waiting for maps"] {
                tokio::task::yield_now().await;
            }
        };
        let told = timeout(LIMIT, told).await;
        assert!(told.is_ok(), "{:?}", readiness.reasons());
        // A stage ends when it is told to, and not before.
        assert!(!reporting.is_finished());
        stop.cancel();
        timeout(LIMIT, reporting).await.unwrap().unwrap();
    }
}
