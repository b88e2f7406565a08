//! What an agent says of itself, and which scopes its version understands. Pure.
//!
//! A version that does not know a parameter ignores it and answers about something else, so a scope is only
//! asked of those that know it.

use serde::Deserialize;

/// What an agent says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AgentInfo {
    pub(crate) version: Version,
    /// The node's name; what is registered with this agent belongs to it.
    pub(crate) node: String,
    pub(crate) datacenter: String,
}

/// A version of Consul.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) patch: u32,
    /// Whether it is Consul Enterprise.
    pub(crate) enterprise: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Body {
    config: Config,
    #[serde(default)]
    member: Option<Member>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    version: String,
    #[serde(default)]
    version_metadata: Option<String>,
    node_name: String,
    datacenter: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Member {
    #[serde(default)]
    tags: Option<Tags>,
}

#[derive(Deserialize)]
struct Tags {
    #[serde(default)]
    build: Option<String>,
}

impl AgentInfo {
    /// Reads the body of `/v1/agent/self`.
    pub(super) fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        let Body { config, member } = serde_json::from_slice(body)?;
        let build = member.and_then(|it| it.tags).and_then(|it| it.build);
        let marks = [config.version_metadata, build, Some(config.version.clone())];
        // Written with a plus in a version and in a build, alone as metadata.
        let is_mark = |mark: &String| mark.split(['+', ':', '.', '-']).any(|part| part == "ent");
        let mut version = Version::parse(&config.version);
        version.enterprise = marks.iter().flatten().any(is_mark);
        Ok(Self {
            version,
            node: config.node_name,
            datacenter: config.datacenter,
        })
    }
}

impl Version {
    /// Of `1.8.7` and of `1.16.0-dev+ent` the numbers; what is missing is zero, so that no feature is expected of
    /// what cannot be read.
    fn parse(text: &str) -> Self {
        let mut numbers = text
            .trim_start_matches('v')
            .split(['.', '-', '+'])
            .map_while(|part| part.parse().ok());
        let mut next = || numbers.next().unwrap_or(0);
        Self {
            major: next(),
            minor: next(),
            patch: next(),
            enterprise: false,
        }
    }

    /// Whether it is this one or later.
    pub(crate) fn is_at_least(self, major: u32, minor: u32, patch: u32) -> bool {
        (self.major, self.minor, self.patch) >= (major, minor, patch)
    }

    /// Why a namespace or a partition cannot be asked of it, and what to do.
    pub(super) fn refusal(self, namespace: bool, partition: bool) -> Option<String> {
        let Self {
            major,
            minor,
            patch,
            enterprise,
        } = self;
        let edition = if enterprise { " Enterprise" } else { "" };
        let is = format!("is version {major}.{minor}.{patch}{edition}");
        let unknown = |key: &str, from: &str| {
            Some(format!(
                "{is} and knows no {key}s, which Consul Enterprise {from} does; remove \
                 `{key}` from [sources.consul]"
            ))
        };
        if partition && !(enterprise && self.is_at_least(1, 11, 0)) {
            unknown("partition", "1.11")
        } else if namespace && !(enterprise && self.is_at_least(1, 7, 0)) {
            unknown("namespace", "1.7")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(version: &str, metadata: &str, build: &str) -> AgentInfo {
        let body = serde_json::json!({
            "Config": {"Version": version, "VersionMetadata": metadata, "NodeName": "n", "Datacenter": "d",
                       "Server": true},
            "Member": {"Name": "n", "Tags": {"build": build}}
        });
        AgentInfo::parse(body.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn an_agent_tells_its_node_its_datacenter_and_its_version() {
        let info = info("1.8.7", "", "1.8.7:12345678");
        assert_eq!((info.node.as_str(), info.datacenter.as_str()), ("n", "d"));
        let version = info.version;
        assert_eq!((version.major, version.minor, version.patch), (1, 8, 7));
        assert!(!version.enterprise);
        assert!(version.is_at_least(1, 8, 7) && !version.is_at_least(1, 10, 0));
    }

    #[test]
    fn enterprise_is_told_in_one_of_three_places() {
        for (version, metadata, build, enterprise) in [
            ("1.8.7+ent", "", "", true),
            ("1.16.0", "ent", "", true),
            ("1.11.0", "", "1.11.0+ent:abcdef", true),
            ("1.16.0", "", "1.16.0:agent", false),
            ("1.16.0-dev", "dev", "different", false),
        ] {
            let info = info(version, metadata, build);
            assert_eq!(info.version.enterprise, enterprise, "{version}");
        }
    }

    #[test]
    fn a_version_that_cannot_be_read_is_an_old_one() {
        for text in ["", "x", "v", "latest"] {
            assert!(!Version::parse(text).is_at_least(0, 0, 1), "{text}");
        }
        assert!(Version::parse("v1.22.1").is_at_least(1, 22, 1));
        assert!(Version::parse("1.22").is_at_least(1, 22, 0));
    }

    #[test]
    fn a_scope_is_only_asked_of_a_version_that_knows_it() {
        for (version, namespace, partition, knows) in [
            ("1.8.7", false, false, true),
            ("1.8.7", true, false, false),
            ("1.22.0", true, true, false),
            ("1.6.0+ent", true, false, false),
            ("1.8.7+ent", true, false, true),
            ("1.8.7+ent", true, true, false),
            ("1.11.0+ent", true, true, true),
        ] {
            let refusal = info(version, "", "").version.refusal(namespace, partition);
            assert_eq!(refusal.is_none(), knows, "{version}: {refusal:?}");
        }
        let refusal = info("1.8.7", "", "").version.refusal(true, false).unwrap();
        assert!(
            refusal.starts_with("is version 1.8.7 and knows no namespaces"),
            "{refusal}"
        );
        assert!(
            refusal.ends_with("remove `namespace` from [sources.consul]"),
            "{refusal}"
        );
    }
}
