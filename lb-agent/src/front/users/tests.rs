use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use caps::{CapSet, Capability};
use tokio::{runtime::Builder, time::timeout};

use super::*;

const HASH: &str = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC";

#[tokio::test]
async fn lists_are_sent_when_all_are_known_and_when_one_changes() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let files = [("ops", path("ops")), ("staff", path("staff"))];
    let files: BTreeMap<_, _> = files.map(|(name, path)| (name.to_owned(), path)).into();
    fs::write(path("staff"), format!("ann:{HASH}\nbob:plain\n")).unwrap();
    let (out, mut lists) = watch::channel(None);
    let stop = CancellationToken::new();
    let stage = tokio::spawn(run(files, out, stop.clone()));
    let mut until = async |wanted: &dyn Fn(&Lists) -> bool| {
        let waiting = lists.wait_for(|lists| lists.as_deref().is_some_and(wanted));
        let lists = timeout(Duration::from_secs(10), waiting).await.unwrap();
        lists.unwrap().clone().unwrap()
    };
    let count = |lists: &Lists, name: &str| lists.users[name].as_ref().map(|users| users.count());
    let first = until(&|_| true).await;
    assert_eq!(
        (count(&first, "ops"), count(&first, "staff")),
        (None, Some(1))
    );
    let problems: Vec<_> = first.problems().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(
        problems[0].contains("`lb_auth=ops` are closed"),
        "{problems:?}"
    );
    assert!(
        problems[1].contains("`bob` of line 2 cannot log in"),
        "{problems:?}"
    );
    // A file that comes, and one that is replaced.
    fs::write(path("ops"), format!("eve:{HASH}\n")).unwrap();
    until(&|lists| count(lists, "ops") == Some(1)).await;
    fs::write(path("new"), format!("ann:{HASH}\nbob:{HASH}\n")).unwrap();
    fs::rename(path("new"), path("staff")).unwrap();
    let good = until(&|lists| count(lists, "staff") == Some(2)).await;
    assert_eq!(good.problems().count(), 0);
    // One that goes takes its users along.
    fs::remove_file(path("ops")).unwrap();
    let gone = until(&|lists| count(lists, "ops").is_none()).await;
    assert_eq!(gone.problems().count(), 1);
    stop.cancel();
    stage.await.unwrap().unwrap();
}

#[test]
fn many_wrong_lines_are_one_problem() {
    let mut lists = Lists::default();
    let text = "x\n".repeat(100);
    lists.read("staff", Path::new("/f"), Ok(text.into_bytes()));
    let problems: Vec<_> = lists.problems().map(ToString::to_string).collect();
    let [problem] = &problems[..] else {
        panic!("{problems:?}");
    };
    assert!(problem.ends_with("and 97 more lines"), "{problem}");
    assert!(problem.len() < 500);
}

#[test]
fn a_list_that_may_not_be_read_any_more_is_none_until_it_may() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("staff");
    let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    fs::write(&path, format!("ann:{HASH}\n")).unwrap();
    let files = [("staff".to_owned(), path.clone())].into();
    let (out, mut lists) = watch::channel(None);
    let stop = CancellationToken::new();
    let stage = run(files, out, stop.clone());
    // Capabilities belong to a thread; those that it starts have the same.
    let stage = std::thread::spawn(move || {
        for capability in [
            Capability::CAP_DAC_OVERRIDE,
            Capability::CAP_DAC_READ_SEARCH,
        ] {
            caps::drop(None, CapSet::Effective, capability).unwrap();
        }
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(stage).unwrap();
    });
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let mut until = |there: bool| {
        let wanted = |lists: &Option<Arc<Lists>>| {
            let lists = lists.as_deref();
            lists.is_some_and(|lists| lists.users["staff"].is_some() == there)
        };
        let waiting = async {
            timeout(Duration::from_secs(10), lists.wait_for(wanted))
                .await
                .unwrap()
                .unwrap();
        };
        runtime.block_on(waiting);
    };
    until(true);
    mode(0o000);
    until(false);
    mode(0o600);
    until(true);
    stop.cancel();
    stage.join().unwrap();
}
