//! What is shown of announcing VIPs: a line of `status`, and figures.

use std::sync::Arc;

use lb_agent::{
    admin::{self, Component, Figure, Figures, Mark, Sample},
    announce::{Announcing, Metrics, Status},
};
use tokio::sync::watch;

use super::figures::value;

pub(crate) fn announce_line(
    announcing: watch::Receiver<Announcing>,
    status: watch::Receiver<Status>,
) -> admin::ComponentLine {
    Box::new(move || line(&announcing.borrow(), &status.borrow()))
}

fn line(announcing: &Announcing, status: &Status) -> Component {
    let addresses = match status.addresses {
        1 => "1 address".to_owned(),
        many => format!("{many} addresses"),
    };
    let troubled = status.devices.iter().filter(|it| it.1.is_some());
    let troubled: Vec<_> = troubled.map(|(name, _)| name.as_str()).collect();
    let without = match troubled.is_empty() {
        true => String::new(),
        false => format!("; not on {}", troubled.join(", ")),
    };
    let is_well = troubled.is_empty()
        && [&status.election, &status.groups, &status.hook]
            .iter()
            .all(|it| it.is_none());
    let (mark, detail) = match (&announcing.owner, announcing.mine, &status.election) {
        (_, true, None) => (
            Mark::Ok,
            format!("this host answers for {addresses}{without}"),
        ),
        (_, true, Some(trouble)) => {
            let detail =
                format!("this host answers for {addresses}{without}, not for long: {trouble}");
            (Mark::Error, detail)
        }
        (Some(owner), false, _) => (Mark::Ok, format!("{owner} answers for the VIPs{without}")),
        (None, false, Some(trouble)) => {
            (Mark::Error, format!("nobody is known to answer: {trouble}"))
        }
        (None, false, None) => (
            Mark::Warning,
            format!("nobody answers for the VIPs{without}"),
        ),
    };
    let mark = match (mark, is_well) {
        (Mark::Ok, false) => Mark::Warning,
        (mark, _) => mark,
    };
    Component::new("announce", mark, detail)
}

pub(crate) fn announce_figures(
    announcing: watch::Receiver<Announcing>,
    key: String,
    metrics: Arc<Metrics>,
) -> Figures<impl Fn() -> Vec<Figure> + Send + Sync + 'static> {
    Figures::new(move || {
        let mine = announcing.borrow().mine;
        let frames = [
            ("arp", "answer", &metrics.arp_answers),
            ("ndp", "answer", &metrics.ndp_answers),
            ("arp", "announcement", &metrics.arp_announcements),
            ("ndp", "announcement", &metrics.ndp_announcements),
        ];
        let frames = frames.map(|(protocol, kind, count)| {
            Sample::labelled([("protocol", protocol), ("kind", kind)], value(count))
        });
        vec![
            Figure::gauge(
                "announce_owner",
                "Whether this host answers for the VIPs on its networks.",
                vec![Sample::labelled(
                    [("key", &*key)],
                    f64::from(u8::from(mine)),
                )],
            ),
            Figure::counter(
                "announce_takeovers",
                "Times that this host began to answer for the VIPs.",
                vec![Sample::plain(value(&metrics.takeovers))],
            ),
            Figure::counter(
                "announce_frames",
                "Frames for VIPs that were sent to neighbours.",
                frames.into(),
            ),
            Figure::counter(
                "announce_unsent",
                "Frames for VIPs that the kernel did not take.",
                vec![Sample::plain(value(&metrics.unsent))],
            ),
            Figure::counter(
                "announce_conflicts",
                "Announcements of other hosts for VIPs that this host answers for.",
                vec![Sample::plain(value(&metrics.conflicts))],
            ),
            Figure::counter(
                "announce_hooks",
                "Runs of the operator's program by result.",
                vec![
                    Sample::labelled([("result", "ok")], value(&metrics.hooks)),
                    Sample::labelled([("result", "failed")], value(&metrics.failed_hooks)),
                ],
            ),
        ]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(owner: Option<&str>, mine: bool, change: impl FnOnce(&mut Status)) -> (Mark, String) {
        let announcing = Announcing {
            owner: owner.map(str::to_owned),
            mine,
            ..Announcing::default()
        };
        let mut status = Status {
            devices: [("eth0".to_owned(), None)].into(),
            addresses: 4,
            ..Status::default()
        };
        change(&mut status);
        let line = line(&announcing, &status);
        (line.mark, line.detail)
    }

    #[test]
    fn the_line_says_who_answers_and_what_keeps_it_from_that() {
        let no_link = |status: &mut Status| {
            status
                .devices
                .insert("eth0".to_owned(), Some("x".to_owned()));
        };
        let silent = |status: &mut Status| status.election = Some("cannot reach Consul".to_owned());
        let nothing = |_: &mut Status| {};
        let of = |mark, detail: &str| (mark, detail.to_owned());
        assert_eq!(
            told(Some("a"), true, nothing),
            of(Mark::Ok, "this host answers for 4 addresses")
        );
        assert_eq!(
            told(Some("b (10.0.0.2)"), false, nothing),
            of(Mark::Ok, "b (10.0.0.2) answers for the VIPs")
        );
        assert_eq!(
            told(None, false, no_link),
            of(Mark::Warning, "nobody answers for the VIPs; not on eth0")
        );
        assert_eq!(
            told(Some("b"), false, no_link),
            of(Mark::Warning, "b answers for the VIPs; not on eth0")
        );
        assert_eq!(
            told(Some("a"), true, silent),
            of(
                Mark::Error,
                "this host answers for 4 addresses, not for long: cannot reach Consul"
            )
        );
        assert_eq!(
            told(None, false, silent),
            of(
                Mark::Error,
                "nobody is known to answer: cannot reach Consul"
            )
        );
    }
}
