//! A stage and its fronts without processes, for tests.

use std::{path::Path, sync::Arc};

use lb_front::{
    control::{self, FRONT, FRONT_TLS, Hello, Order, VERSION},
    handover,
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::watch,
};

use super::{
    End, Outputs, Stage, Supervisor,
    listen::Group,
    living::{Living, greet},
};

/// A front that has said hello, and its end of the connection.
pub(super) async fn front(directory: &Path, name: &str) -> (Living, UnixStream) {
    let path = directory.join(name);
    let listener = UnixListener::bind(&path).unwrap();
    let hello = async {
        let (mut front, _) = listener.accept().await.unwrap();
        let hello = Hello {
            version: VERSION,
            pid: 0,
            listeners: Vec::new(),
            tls: Vec::new(),
            has_routes: true,
            kind: String::new(),
        };
        handover::send(&front, &hello, &[]).await.unwrap();
        let _: Option<Order> = control::receive(&mut front).await.unwrap();
        front
    };
    let (living, front) = tokio::join!(greet(&path), hello);
    (living.unwrap(), front)
}

/// What has no front yet.
pub(super) fn stage(directory: &Path) -> Stage {
    Stage {
        config: Supervisor::new(directory.join("front.sock"), Vec::new()),
        plain: Group::new(FRONT, &[], Vec::new()),
        tls: Group::new(FRONT_TLS, &[], Vec::new()),
        child: None,
        former: None,
        retired: None,
        snapshots: watch::channel(None).1,
        outputs: Outputs {
            stats: watch::Sender::default(),
            problems: watch::Sender::default(),
            routed: watch::Sender::default(),
            metrics: Arc::default(),
        },
        trouble: None,
        end: End::default(),
    }
}
