//! Metrics of the packet path. Pure.

use super::{number, truth};
use crate::{
    admin::{
        figures::{Figure, Sample},
        report::{PacketPath, Report, Service},
    },
    packet::{Strays, Traffic},
};

/// Nothing where there is no packet path, and what is not known has no sample.
pub(super) fn figures(report: &Report) -> Vec<Figure> {
    let Some(path) = &report.packet else {
        return Vec::new();
    };
    let services: Vec<_> = report.services.iter().flatten().collect();
    let counter = |name, help, count: fn(Traffic) -> u64| {
        let sample = |service: &&Service| {
            let label = [("service", service.label.as_str())];
            Some(Sample::labelled(label, number(count(service.packets?))))
        };
        Figure::counter(name, help, services.iter().filter_map(sample).collect())
    };
    let mut figures = vec![
        counter(
            "lb_packet_packets",
            "Packets that the packet path sent to backends of a service.",
            |it| it.packets,
        ),
        counter(
            "lb_packet_bytes",
            "Their bytes, without the link's head.",
            |it| it.bytes,
        ),
        counter(
            "lb_packet_flows",
            "Flows that the packet path gave a backend.",
            |it| it.flows,
        ),
        counter(
            "lb_packet_dropped",
            "Packets for a service that the packet path dropped.",
            |it| it.dropped,
        ),
    ];
    figures.extend(about_the_path(path));
    figures
}

fn about_the_path(path: &PacketPath) -> Vec<Figure> {
    let fates = path.fates.iter().flatten();
    let fates = fates.map(|(fate, count)| Sample::labelled([("fate", fate)], number(*count)));
    let of_maps = |value: fn(&super::super::report::MapFill) -> u64| {
        let maps = path.maps.iter();
        maps.map(|(map, fill)| Sample::labelled([("map", map)], number(value(fill))))
            .collect()
    };
    // Devices of clients come and go; how many there are is bounded by this host.
    let attached = path.devices.iter().flat_map(|device| {
        let (name, role) = (device.name.as_str(), device.role.as_str());
        let missing = device.hooks.is_empty().then(|| {
            let labels = [
                ("device", name),
                ("role", role),
                ("program", ""),
                ("how", ""),
            ];
            Sample::labelled(labels, truth(false))
        });
        let hooks = device.hooks.iter().map(move |hook| {
            let labels = [
                ("device", name),
                ("role", role),
                ("program", hook.program.as_str()),
                ("how", hook.how.as_str()),
            ];
            Sample::labelled(labels, truth(hook.in_place != Some(false)))
        });
        missing.into_iter().chain(hooks).collect::<Vec<_>>()
    });
    let strays = |value: fn(&Strays) -> u64| {
        let services = path.strays.iter();
        services
            .map(|(service, it)| Sample::labelled([("service", service)], number(value(it))))
            .collect()
    };
    let ended = match path.error {
        None => vec![Sample::plain(number(path.ended_flows))],
        Some(_) => Vec::new(),
    };
    vec![
        Figure::gauge(
            "lb_packet_elsewhere_flows",
            "Open flows of the packet path that stay with a backend that the table gives them no more.",
            strays(|it| it.elsewhere),
        ),
        Figure::gauge(
            "lb_packet_adopted_flows",
            "Open TCP flows of the packet path whose beginning was not seen by this host.",
            strays(|it| it.adopted),
        ),
        Figure::counter(
            "lb_packet_ended_flows",
            "Flows of the packet path that ended since their backend was gone.",
            ended,
        ),
        Figure::counter(
            "lb_packet_fates",
            "Packets that concern VIPs, by what became of them.",
            fates.collect(),
        ),
        Figure::gauge(
            "lb_packet_map_entries",
            "Entries in use in a map of the packet path.",
            of_maps(|it| it.entries),
        ),
        Figure::gauge(
            "lb_packet_map_capacity",
            "Entries a map of the packet path has room for.",
            of_maps(|it| it.capacity),
        ),
        Figure::gauge(
            "lb_packet_program_attached",
            "1 while the program is attached to the device, else 0.",
            attached.collect(),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::{compose::compose, sample},
        packet::{Device, Hook, Seen},
        snapshot::ServiceName,
    };

    fn report(seen: Option<&Seen>) -> Report {
        let snapshot = sample::snapshot();
        let mut material = sample::material(Some(&snapshot), None);
        material.packet = seen;
        compose(material)
    }

    #[test]
    fn without_a_packet_path_there_is_no_metric_of_it() {
        assert_eq!(figures(&report(None)), []);
    }

    #[test]
    fn what_is_known_of_services_backends_and_devices_is_told() {
        let traffic = Traffic {
            packets: 7,
            bytes: 700,
            flows: 2,
            dropped: 1,
        };
        let strays = Strays {
            elsewhere: 6,
            adopted: 8,
        };
        let hook = |program: &str, in_place| Hook {
            program: program.to_owned(),
            how: "tcx".to_owned(),
            in_place,
        };
        let device = |name: &str, hooks| Device {
            name: name.to_owned(),
            role: "card".to_owned(),
            hooks,
            fallback: None,
            error: None,
        };
        let seen = Seen {
            devices: vec![
                device(
                    "eth0",
                    vec![
                        hook("a", Some(true)),
                        hook("b", Some(false)),
                        hook("c", None),
                    ],
                ),
                device("eth1", Vec::new()),
            ],
            fates: Some([("full", 5)].into()),
            services: [(ServiceName::whole("www_hello"), traffic)].into(),
            backends: [("10.0.0.1:80".parse().unwrap(), traffic)].into(),
            maps: [("FLOWS4", (3, 9))].into(),
            strays: [(ServiceName::whole("www_hello"), strays)].into(),
            ended_flows: 4,
            ..Seen::default()
        };
        let report = report(Some(&seen));
        let backends = report.services.iter().flatten().flat_map(|it| &it.backends);
        let sent: Vec<_> = backends.filter_map(|it| it.packets).collect();
        assert_eq!(sent, [traffic]);
        let figures = figures(&report);
        let values = |name: &str| -> Vec<(String, f64)> {
            let figure = figures.iter().find(|it| it.name == name).unwrap();
            let samples = figure.samples.iter();
            let label = |it: &Sample| it.labels.iter().map(|it| it.1.clone()).collect::<Vec<_>>();
            samples.map(|it| (label(it).join(" "), it.value)).collect()
        };
        let one = |label: &str, value| vec![(label.to_owned(), value)];
        assert_eq!(values("lb_packet_packets"), one("www_hello", 7.0));
        assert_eq!(values("lb_packet_bytes"), one("www_hello", 700.0));
        assert_eq!(values("lb_packet_flows"), one("www_hello", 2.0));
        assert_eq!(values("lb_packet_dropped"), one("www_hello", 1.0));
        assert_eq!(values("lb_packet_elsewhere_flows"), one("www_hello", 6.0));
        assert_eq!(values("lb_packet_adopted_flows"), one("www_hello", 8.0));
        assert_eq!(values("lb_packet_ended_flows"), one("", 4.0));
        assert_eq!(values("lb_packet_fates"), one("full", 5.0));
        assert_eq!(values("lb_packet_map_entries"), one("FLOWS4", 3.0));
        assert_eq!(values("lb_packet_map_capacity"), one("FLOWS4", 9.0));
        let attached = [
            ("eth0 card a tcx", 1.0),
            ("eth0 card b tcx", 0.0),
            ("eth0 card c tcx", 1.0),
            ("eth1 card  ", 0.0),
        ];
        let attached = attached.map(|(label, value)| (label.to_owned(), value));
        assert_eq!(values("lb_packet_program_attached"), attached);
    }
}
