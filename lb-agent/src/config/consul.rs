//! How Consul is reached: `[sources.consul]`, `--consul` and the variables that every Consul tool reads.

use std::path::{Path, PathBuf};

use super::{
    Consul, ConsulToken, Given, Origin, RawConfig, Secret,
    resolve::{Judge, label, pause},
};
use tokio::sync::watch;

use crate::discover::consul::{Address, BasicAuth, Config as Defaults, FORMS, Tls, Token, Warning};

/// What `raw` says of Consul.
pub(super) fn resolve(raw: &RawConfig, judge: &mut Judge<'_>) -> Consul {
    let addresses = addresses(raw, judge);
    let tls = tls(raw, judge);
    let max_watches = judge.number(&raw.consul_max_watches, Defaults::MAX_WATCHES, 1..=10_000);
    Consul {
        addresses,
        tls,
        token: token(raw, judge),
        auth: raw
            .consul_auth
            .as_ref()
            .map(|it| Secret::new(it.value.trim())),
        datacenter: name(&raw.consul_datacenter, judge),
        namespace: name(&raw.consul_namespace, judge),
        partition: name(&raw.consul_partition, judge),
        wait: judge.text(&raw.consul_wait, Defaults::WAIT, wait),
        max_stale: judge.text(&raw.consul_max_stale, Defaults::MAX_STALE, pause),
        max_watches,
        warning: judge.text(&raw.consul_warning, Warning::default(), warning),
    }
}

fn warning(text: &str) -> Result<Warning, String> {
    match text {
        "exclude" => Ok(Warning::Exclude),
        "include" => Ok(Warning::Include),
        _ => Err("write exclude or include".to_owned()),
    }
}

fn addresses(raw: &RawConfig, judge: &mut Judge<'_>) -> Vec<Address> {
    let foreign = match &raw.consul_address {
        None => true,
        Some(given) => matches!(given.origin, Origin::Variable(_)),
    };
    // It speaks of the variable's address, not of one that was written here.
    let over_tls = foreign && truth(&raw.consul_ssl, judge) == Some(true);
    let read = if over_tls { address_over_tls } else { address };
    if let Some(given) = raw.consul_address.as_ref().filter(|it| it.value.is_empty()) {
        judge.wrong(given, &format!("the list is empty; write {FORMS}"));
    }
    let built_in = read(DEFAULT_ADDRESS).into_iter().collect();
    judge.list(&raw.consul_address, built_in, read)
}

fn tls(raw: &RawConfig, judge: &mut Judge<'_>) -> Tls {
    let mut file = |given: &Option<Given<String>>| given.as_ref().map(|_| judge.path(given, ""));
    let mut tls = Tls {
        ca_file: file(&raw.consul_ca_file),
        ca_path: file(&raw.consul_ca_path),
        cert_file: file(&raw.consul_cert_file),
        key_file: file(&raw.consul_key_file),
        server_name: raw
            .consul_tls_server_name
            .as_ref()
            .map(|it| it.value.clone()),
        trust_anybody: false,
    };
    match (&raw.consul_cert_file, &raw.consul_key_file) {
        (Some(given), None) => {
            judge.wrong(given, "a certificate needs its key; give key_file, too");
        }
        (None, Some(given)) => {
            judge.wrong(given, "a key needs its certificate; give cert_file, too");
        }
        _ => {}
    }
    let verify = raw.consul_tls_verify.as_ref().map(|it| it.value);
    let foreign = truth(&raw.consul_ssl_verify, judge);
    tls.trust_anybody = verify.or(foreign) == Some(false);
    tls
}

fn token(raw: &RawConfig, judge: &mut Judge<'_>) -> Option<ConsulToken> {
    let file = raw.consul_token_file.as_ref();
    // The file of our own configuration ranks above any variable.
    let own = file.is_some_and(|it| matches!(it.origin, Origin::File(..)));
    if let Some(token) = raw.consul_token.as_ref().filter(|_| !own) {
        return Some(ConsulToken::Value(Secret::new(token.value.trim())));
    }
    let file = file?;
    match (judge.outside.read)(Path::new(&file.value)) {
        Ok(text) if text.trim().is_empty() => {
            judge.wrong(file, "the file is empty; put Consul's token into it");
        }
        Ok(_) => {}
        Err(error) => judge.wrong(
            file,
            &format!("the token cannot be read: {error}; correct the path or the permissions"),
        ),
    }
    Some(ConsulToken::File(PathBuf::from(&file.value)))
}

fn name(given: &Option<Given<String>>, judge: &mut Judge<'_>) -> Option<String> {
    let name = given
        .as_ref()
        .map(|_| judge.text(given, String::new(), label));
    name.filter(|name| !name.is_empty())
}

/// Yes or no as Consul's own tools read it.
fn truth(given: &Option<Given<String>>, judge: &mut Judge<'_>) -> Option<bool> {
    given.as_ref().map(|_| judge.text(given, false, boolean))
}

fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("write true or false".to_owned()),
    }
}

fn address(text: &str) -> Result<Address, String> {
    text.parse().map_err(|_| format!("write {FORMS}"))
}

fn address_over_tls(text: &str) -> Result<Address, String> {
    Address::with_tls(text).ok_or_else(|| format!("write {FORMS}"))
}

fn wait(text: &str) -> Result<std::time::Duration, String> {
    // Consul holds a query for ten minutes at most.
    let bounds = 1..=600;
    pause(text)
        .ok()
        .filter(|wait| bounds.contains(&wait.as_secs()))
        .ok_or_else(|| "write a time from 1s to 10m, such as 55s".to_owned())
}

impl Consul {
    /// How its client is to ask it, which reads its files again with each change of `reload`. `None` without an address.
    pub fn client(&self, reload: watch::Receiver<()>) -> Option<Defaults> {
        let mut addresses = self.addresses.iter().cloned();
        let mut config = Defaults::new(addresses.next()?);
        config.addresses.extend(addresses);
        config.tls.clone_from(&self.tls);
        config.token = self.token.as_ref().map(|token| match token {
            ConsulToken::Value(token) => Token::Value(token.reveal().to_owned()),
            ConsulToken::File(path) => Token::File(path.clone()),
        });
        let auth = self.auth.as_ref();
        config.basic_auth = auth.map(|auth| BasicAuth::from_pair(auth.reveal()));
        config.datacenter.clone_from(&self.datacenter);
        config.warning = self.warning;
        config.namespace.clone_from(&self.namespace);
        config.partition.clone_from(&self.partition);
        config.wait = self.wait;
        config.max_stale = self.max_stale;
        config.max_watches = self.max_watches.into();
        config.reload = reload;
        Some(config)
    }
}

const DEFAULT_ADDRESS: &str = "127.0.0.1:8500";

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, time::Duration};

    use super::super::{Consul, ConsulToken, Secret, resolve::tests::World};

    fn world() -> World {
        World::new().flag("--consul=c:1")
    }

    #[track_caller]
    fn consul(world: &World) -> Consul {
        world.config().sources.consul.unwrap()
    }

    fn addresses(world: &World) -> Vec<String> {
        let addresses = consul(world).addresses;
        addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_token_comes_from_the_variable_or_the_file() {
        let token = |world: World| consul(&world).token;
        assert!(token(world()).is_none());
        let direct = world().variable("CONSUL_HTTP_TOKEN", "s3cret");
        assert!(!format!("{:?}", direct.config()).contains("s3cret"));
        let value = ConsulToken::Value(Secret::new("s3cret"));
        assert_eq!(token(direct), Some(value));
        let file = world()
            .variable("CONSUL_HTTP_TOKEN_FILE", "/t")
            .file("/t", " b\n");
        assert_eq!(token(file), Some(ConsulToken::File(PathBuf::from("/t"))));
        let missing = world().variable("CONSUL_HTTP_TOKEN_FILE", "/t");
        missing.wrong(&[("CONSUL_HTTP_TOKEN_FILE", "cannot be read")]);
        let empty = world()
            .variable("CONSUL_HTTP_TOKEN_FILE", "/t")
            .file("/t", "\n");
        empty.wrong(&[("CONSUL_HTTP_TOKEN_FILE", "the file is empty")]);
    }

    #[test]
    fn the_token_file_of_our_own_configuration_ranks_above_any_variable() {
        let world = World::new()
            .toml("[sources.consul]\ntoken_file = \"/own\"\n")
            .file("/own", "a")
            .variable("CONSUL_HTTP_TOKEN", "b")
            .variable("CONSUL_HTTP_TOKEN_FILE", "/other");
        let own = Some(ConsulToken::File(PathBuf::from("/own")));
        assert_eq!(consul(&world).token, own);
    }

    #[test]
    fn there_may_be_several_addresses() {
        let all = ["http://a:1", "https://b:2", "unix:///c"];
        let flags = World::new()
            .flag("--consul=a:1,https://b:2")
            .flag("--consul=unix:///c");
        assert_eq!(addresses(&flags), all);
        let variable = World::new().variable("CONSUL_HTTP_ADDR", "a:1, https://b:2,unix:///c");
        assert_eq!(addresses(&variable), all);
        let key = "address = [\"a:1\", \"https://b:2\", \"unix:///c\"]";
        let file = World::new().toml(&format!("[sources.consul]\n{key}\n"));
        assert_eq!(addresses(&file), all);
        let empty = World::new().toml("[sources.consul]\naddress = []\n");
        empty.wrong(&[("/etc/lb/lb.toml:2", "the list is empty")]);
        let number = World::new().toml("[sources.consul]\naddress = 8500\n");
        number.wrong(&[("/etc/lb/lb.toml:2", "a string or a list of strings")]);
    }

    #[test]
    fn every_key_of_the_file_is_heard() {
        let world = World::new().toml(
            r#"
            [sources.consul]
            address = "https://c:8501"
            ca_file = "/ca"
            ca_path = "/cas"
            cert_file = "/cert"
            key_file = "/key"
            tls_server_name = "server.dc1.consul"
            tls_verify = false
            namespace = "team"
            partition = "part"
            wait = "2m"
            max_stale = "5s"
            max_watches = 100
            "#,
        );
        let Consul {
            tls,
            namespace,
            partition,
            wait,
            max_stale,
            max_watches,
            ..
        } = consul(&world);
        assert_eq!(tls.ca_file, Some("/ca".into()));
        assert_eq!(tls.ca_path, Some("/cas".into()));
        assert_eq!(tls.cert_file, Some("/cert".into()));
        assert_eq!(tls.key_file, Some("/key".into()));
        assert_eq!(tls.server_name.as_deref(), Some("server.dc1.consul"));
        assert!(tls.trust_anybody);
        assert_eq!(namespace.as_deref(), Some("team"));
        assert_eq!(partition.as_deref(), Some("part"));
        assert_eq!(
            (wait, max_stale),
            (Duration::from_secs(120), Duration::from_secs(5))
        );
        assert_eq!(max_watches, 100);
    }

    #[test]
    fn every_variable_of_consuls_tools_is_heard_below_the_file() {
        let world = || {
            World::new()
                .variable("CONSUL_HTTP_ADDR", "c:8501")
                .variable("CONSUL_HTTP_SSL", "true")
                .variable("CONSUL_HTTP_SSL_VERIFY", "0")
                .variable("CONSUL_CACERT", "/ca")
                .variable("CONSUL_CAPATH", "/cas")
                .variable("CONSUL_CLIENT_CERT", "/cert")
                .variable("CONSUL_CLIENT_KEY", "/key")
                .variable("CONSUL_TLS_SERVER_NAME", "name")
                .variable("CONSUL_HTTP_AUTH", "user:s3cret")
                .variable("CONSUL_NAMESPACE", "team")
                .variable("CONSUL_PARTITION", "part")
        };
        assert_eq!(addresses(&world()), ["https://c:8501"]);
        let heard = consul(&world());
        assert_eq!(heard.tls.ca_file, Some("/ca".into()));
        assert_eq!(heard.tls.ca_path, Some("/cas".into()));
        assert_eq!(heard.tls.cert_file, Some("/cert".into()));
        assert_eq!(heard.tls.key_file, Some("/key".into()));
        assert_eq!(heard.tls.server_name.as_deref(), Some("name"));
        assert!(heard.tls.trust_anybody);
        assert_eq!(heard.auth, Some(Secret::new("user:s3cret")));
        assert!(!format!("{heard:?}").contains("s3cret"));
        assert_eq!(heard.namespace.as_deref(), Some("team"));
        assert_eq!(heard.partition.as_deref(), Some("part"));

        let file =
            "[sources.consul]\naddress = \"own:8500\"\nca_file = \"/own\"\ntls_verify = true\n";
        let own = world().toml(file);
        // The variable about TLS is about the variable's address.
        assert_eq!(addresses(&own), ["http://own:8500"]);
        let heard = consul(&own);
        assert_eq!(heard.tls.ca_file, Some("/own".into()));
        assert!(!heard.tls.trust_anybody);
    }

    #[test]
    fn what_cannot_be_meant_is_told_with_its_origin() {
        let with = |name, value| world().variable(name, value);
        with("CONSUL_HTTP_SSL_VERIFY", "maybe")
            .wrong(&[("CONSUL_HTTP_SSL_VERIFY", "write true or false")]);
        with("CONSUL_CLIENT_CERT", "/c").wrong(&[("CONSUL_CLIENT_CERT", "needs its key")]);
        with("CONSUL_CLIENT_KEY", "/k").wrong(&[("CONSUL_CLIENT_KEY", "needs its certificate")]);
        with("CONSUL_NAMESPACE", "a b").wrong(&[("CONSUL_NAMESPACE", "letters, digits")]);
        let key = |line: &str| world().toml(&format!("[sources.consul]\n{line}\n"));
        let at = "/etc/lb/lb.toml:2";
        key("wait = \"11m\"").wrong(&[(at, "from 1s to 10m")]);
        key("wait = \"100ms\"").wrong(&[(at, "from 1s to 10m")]);
        key("max_watches = 0").wrong(&[(at, "from 1 to")]);
        key("tls_verify = \"no\"").wrong(&[(at, "true or false")]);
    }
}
