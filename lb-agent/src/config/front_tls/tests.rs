use super::*;
use crate::config::resolve::tests::World;

fn tls(text: &str) -> FrontTls {
    let world = World::new().toml(&format!("[front.tls]\n{text}"));
    world.config().front.tls.unwrap()
}

const PAIR: &str = "certificates = [{ certificate = \"/a.pem\", key = \"/a.key\" }]\n";

#[track_caller]
fn wrong(text: &str, expect: &[(&str, &str)]) {
    World::new().toml(text).wrong(expect);
}

#[test]
fn without_the_table_there_is_no_tls() {
    assert_eq!(World::new().config().front.tls, None);
}

#[test]
fn certificates_are_enough() {
    let tls = tls(PAIR);
    assert_eq!(tls.listen, ["0.0.0.0:443".parse().unwrap()]);
    let pair = Pair {
        certificate: "/a.pem".into(),
        key: "/a.key".into(),
    };
    assert_eq!(tls.files.pairs, [pair]);
    assert_eq!(tls.https, HttpsSettings::default());
    assert!(!tls.files.only_1_3);
}

#[test]
fn every_key_is_read() {
    let tls = tls(
        "listen = [\":8443\", \"[::]:8443\"]\nfolder = \"/certs\"\nmin_version = \"1.3\"\n\
         redirect = \"308 https:8443\"\nhsts = \"1h includeSubDomains preload\"\n\
         [[front.tls.certificates]]\ncertificate = \"/both.pem\"\n",
    );
    assert_eq!(
        tls.listen,
        [
            "0.0.0.0:8443".parse().unwrap(),
            "[::]:8443".parse().unwrap()
        ]
    );
    assert_eq!(tls.files.pairs[0].key, Path::new("/both.pem"));
    assert_eq!(tls.files.folder, Some("/certs".into()));
    assert!(tls.files.only_1_3);
    let to = rules::Target::Https(Some(8443));
    assert_eq!(
        tls.https.redirect,
        Some(rules::Redirect { status: 308, to })
    );
    let hsts = "max-age=3600; includeSubDomains; preload";
    assert_eq!(tls.https.hsts.as_deref(), Some(hsts));
    let off = self::tls(&format!("{PAIR}redirect = \"off\"\nhsts = \"off\"\n"));
    assert_eq!(off.https, HttpsSettings::default());
}

#[test]
fn every_mistake_has_its_line_and_a_remedy() {
    wrong(
        "[front.tls]\nhsts = \"1h\"\n",
        &[("/etc/lb/lb.toml:1", "has no certificate; name pairs")],
    );
    for (key, value, remedy) in [
        ("min_version", "1.1", "1.2 or 1.3"),
        ("redirect", "http://a.example", "https or https:<port>"),
        ("redirect", "200 https", "301, 302, 307 or 308"),
        ("hsts", "for ever", "a time such as 4320h"),
        ("hsts", "1h preload preload", "a time such as 4320h"),
        ("hsts", "999999h", "a time such as 4320h"),
    ] {
        let text = format!("[front.tls]\n{PAIR}{key} = \"{value}\"\n");
        wrong(&text, &[("/etc/lb/lb.toml:3", remedy)]);
    }
    wrong(
        &format!("[front.tls]\n{PAIR}listen = [\"here\"]\n"),
        &[("/etc/lb/lb.toml:3", "an IP address and a port")],
    );
    wrong(
        "[front.tls.acme]\n",
        &[
            ("/etc/lb/lb.toml:1", "needs a `directory`"),
            ("/etc/lb/lb.toml:1", "needs `names`"),
            ("/etc/lb/lb.toml:1", "needs `accept_terms = true`"),
        ],
    );
    for (key, remedy) in [
        (
            "names = [\"*.a.example\"]",
            "a wildcard has to be proven in DNS",
        ),
        ("names = [\"a b\"]", "a name such as"),
        ("contact = [\"admin\"]", "mailto:admin@example.org"),
        ("directory = \"http://a.example\"", "with https://"),
    ] {
        let rest = [
            ("names", "[\"a.example\"]"),
            ("directory", "\"https://a.example/dir\""),
        ];
        let rest = rest.into_iter().filter(|(name, _)| !key.starts_with(name));
        let rest: String = rest
            .map(|(name, value)| format!("{name} = {value}\n"))
            .collect();
        let text = format!("[front.tls.acme]\n{key}\naccept_terms = true\n{rest}");
        wrong(&text, &[("/etc/lb/lb.toml:2", remedy)]);
    }
    wrong(
        "[front.tls]\ncertificates = [{ key = \"/a.key\" }]\n",
        &[("/etc/lb/lb.toml:2", "needs a `certificate`")],
    );
    wrong(
        "[front.tls]\ncertificates = [{ certificate = \"\" }]\n",
        &[("/etc/lb/lb.toml:2", "the path is empty")],
    );
    wrong(
        "[front.tls]\ncertificates = \"/a.pem\"\n",
        &[(
            "/etc/lb/lb.toml:2",
            "`certificates` must be a list of tables",
        )],
    );
    wrong(
        &format!("[front]\nlisten = [\":443\"]\n[front.tls]\n{PAIR}"),
        &[("/etc/lb/lb.toml:2", "is where [front.tls] listens")],
    );
    wrong(
        &format!("[front]\nlisten = [\":8080\"]\n[front.tls]\n{PAIR}listen = [\":8080\"]\n"),
        &[("/etc/lb/lb.toml:5", "TLS needs a port of its own")],
    );
}

/// What an authority needs, and `line` below it.
fn acme(line: &str) -> String {
    let rest = [
        ("names", "[\"a.example\"]"),
        ("directory", "\"https://a.example/dir\""),
        ("accept_terms", "true"),
    ];
    let rest = rest.map(|(key, value)| match line.starts_with(key) {
        true => String::new(),
        false => format!("{key} = {value}\n"),
    });
    format!("[front.tls.acme]\n{line}\n{}", rest.concat())
}

#[test]
fn every_key_of_an_authority_is_read() {
    let line = "contact = [\"mailto:a@a.example\"]\nca_file = \"/ca.pem\"";
    let world = || World::new().toml(&format!("state_dir = \"/state\"\n{}", acme(line)));
    let acme = world().config().front.tls.unwrap().acme.unwrap();
    assert_eq!(
        acme,
        Acme {
            directory: "https://a.example/dir".into(),
            ca_file: Some("/ca.pem".into()),
            contact: vec!["mailto:a@a.example".into()],
            names: vec!["a.example".into()],
            folder: "/state/acme/https___a_example_dir".into(),
        }
    );
}

#[test]
fn a_value_of_the_wrong_type_is_one_mistake() {
    for (key, values, wanted) in [
        ("listen", ["\":443\"", "[443]"], "a list of strings"),
        ("folder", ["[\"/certs\"]", "true"], "a string"),
        ("min_version", ["1.3", "[]"], "a string"),
        ("redirect", ["true", "308"], "a string"),
        ("hsts", ["3600", "false"], "a string"),
        ("acme", ["true", "\"https://a\""], "a table, [acme]"),
    ] {
        for value in values {
            let text = format!("[front.tls]\n{key} = {value}\n{PAIR}");
            let message = format!("`{key}` must be {wanted}");
            wrong(&text, &[("/etc/lb/lb.toml:2", &message)]);
        }
    }
    for (key, values, wanted) in [
        ("certificate", ["1", "[\"/a.pem\"]"], "a string"),
        ("key", ["true", "1"], "a string"),
    ] {
        for value in values {
            let (line, rest) = match key {
                "key" => (3, "certificate = \"/a.pem\"\n"),
                _ => (2, ""),
            };
            let text = format!("[[front.tls.certificates]]\n{rest}{key} = {value}\n");
            let message = format!("`{key}` must be {wanted}");
            let origin = format!("/etc/lb/lb.toml:{line}");
            wrong(&text, &[(&origin, &message)]);
        }
    }
    for (key, values, wanted) in [
        ("directory", ["true", "[]"], "a string"),
        ("ca_file", ["1", "[\"/ca.pem\"]"], "a string"),
        (
            "contact",
            ["\"mailto:a@a.example\"", "[1]"],
            "a list of strings",
        ),
        ("names", ["\"a.example\"", "[true]"], "a list of strings"),
        ("accept_terms", ["\"yes\"", "1"], "true or false"),
    ] {
        for value in values {
            let text = acme(&format!("{key} = {value}"));
            let message = format!("`{key}` must be {wanted}");
            wrong(&text, &[("/etc/lb/lb.toml:2", &message)]);
        }
    }
    wrong(
        "[front]\ntls = true\n",
        &[("/etc/lb/lb.toml:2", "`tls` must be a table, [tls]")],
    );
}

#[test]
fn a_key_that_there_is_not_is_told_with_those_that_there_are() {
    let known = "it knows: listen, certificates, folder, min_version, redirect, hsts, acme";
    let text = format!("[front.tls]\ncert = \"/a.pem\"\n{PAIR}");
    wrong(&text, &[("/etc/lb/lb.toml:2", known)]);
    let text = "[[front.tls.certificates]]\ncertificate = \"/a.pem\"\npassword = \"x\"\n";
    wrong(text, &[("/etc/lb/lb.toml:3", "it knows: certificate, key")]);
    let known = "it knows: directory, ca_file, contact, names, accept_terms";
    wrong(
        &acme("email = \"a@a.example\""),
        &[("/etc/lb/lb.toml:2", known)],
    );
}

#[test]
fn every_list_has_what_it_is_for() {
    for contact in [
        "a@a.example",
        "mailto:",
        "mailto:a",
        "mailto:@a.example",
        "mailto:a@",
        "mailto:a@b@a.example",
        "mailto:a@a.example,b@a.example",
        "mailto:a b@a.example",
        "tel:123",
        "",
    ] {
        let text = acme(&format!("contact = [\"{contact}\"]"));
        wrong(&text, &[("/etc/lb/lb.toml:2", "mailto:admin@example.org")]);
    }
    for directory in [
        "a.example",
        "http://a.example/dir",
        "https://",
        "https://a b/dir",
        "https://a.example:port/dir",
        "https://user@a.example/dir",
        "https://user:s3cret@a.example/dir",
        "https://:s3cret@a.example/dir",
        "https://a.example/dir?key=s3cret",
        "https://a.example/dir#s3cret",
        "",
    ] {
        let world = World::new().toml(&acme(&format!("directory = \"{directory}\"")));
        world.wrong(&[("/etc/lb/lb.toml:2", "write a URL with https://, without")]);
        let mistakes = world.load_with_origins().unwrap_err().mistakes;
        assert!(!mistakes.concat().contains("s3cret"), "{mistakes:#?}");
    }
    for name in ["", "-", "a_b.example", "a.example:443", "192.0.2.1", "::1"] {
        let text = acme(&format!("names = [\"{name}\"]"));
        wrong(&text, &[("/etc/lb/lb.toml:2", "such as www.example.org")]);
    }
    wrong(
        &acme("names = []"),
        &[("/etc/lb/lb.toml:1", "needs `names`")],
    );
    wrong(
        &acme("accept_terms = false"),
        &[("/etc/lb/lb.toml:1", "needs `accept_terms = true`")],
    );
    wrong(
        &acme("ca_file = \"\""),
        &[("/etc/lb/lb.toml:2", "the path is empty")],
    );
    wrong(
        "[front.tls]\nfolder = \"\"\n",
        &[("/etc/lb/lb.toml:2", "the path is empty")],
    );
    wrong(
        "[front.tls]\ncertificates = []\n",
        &[("/etc/lb/lb.toml:1", "has no certificate; name pairs")],
    );
}

#[test]
fn what_is_written_of_containers_is_a_configuration() {
    let text = include_str!("../../../../docs/deploy.md");
    let (_, block) = text.split_once("```toml\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let front = World::new().toml(block).config().front;
    let folder = front.tls.unwrap().files.folder;
    assert_eq!(folder, Some("/etc/lb/private/certs".into()));
    assert!(front.auth["staff"].starts_with("/etc/lb/private"));
}
