//! One list of two: the agent's, with the kernel programs that are within it, without what is not built.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::{Crate, system::System};

/// What is known of a program and of what it is built of.
pub(super) struct Part {
    /// The list of `cargo-cyclonedx`.
    pub(super) document: Value,
    /// The crates that are in the program.
    pub(super) linked: BTreeSet<Crate>,
    /// Those, and what runs while it is built.
    pub(super) built: BTreeSet<Crate>,
}

/// The crates within which the kernel programs are.
const EMBEDDING: [&str; 2] = ["lb-agent", "lb-packet"];

/// Makes the list of the agent with the kernel programs.
///
/// # Errors
/// When a list is not as it is expected, or lacks something that is built.
pub(super) fn merge(agent: &Part, kernel: &Part, system: &System, revision: &str) -> Result<Value> {
    let mut components = components(agent, kernel)?;
    let mut edges = edges([agent, kernel], &components)?;
    let (agent_ref, kernel_ref) = (reference(root(agent)?)?, reference(root(kernel)?)?);
    for (of, parts) in [(agent_ref, &system.agent), (kernel_ref, &system.kernel)] {
        for part in parts {
            let part_ref = reference(part)?;
            edges
                .entry(of.clone())
                .or_default()
                .insert(part_ref.clone());
            edges.entry(part_ref.clone()).or_default();
            components.insert(part_ref, part.clone());
        }
    }

    let mut list = agent.document.clone();
    let field = |list: &mut Value, place: &str, more: Vec<Value>| {
        let found = list.pointer_mut(place).and_then(Value::as_array_mut);
        found
            .map(|found| found.extend(more))
            .with_context(|| format!("the list has no {place}"))
    };
    field(&mut list, "/metadata/tools", system.tools.clone())?;
    let revision = json!({ "name": "lb-agent:revision", "value": revision });
    field(&mut list, "/metadata/properties", vec![revision])?;
    list["components"] = components.into_values().collect();
    let edges = edges.into_iter();
    list["dependencies"] = edges
        .map(|(from, to)| json!({ "ref": from, "dependsOn": to }))
        .collect();
    Ok(list)
}

/// What is built, by its reference: each with the scope `required` if it is in a program, else `excluded`.
fn components(agent: &Part, kernel: &Part) -> Result<BTreeMap<String, Value>> {
    let mut programs = root(kernel)?.clone();
    // Programs for tests and benches, too, which nobody gets.
    if let Some(fields) = programs.as_object_mut() {
        fields.remove("components");
    }
    let mut components: BTreeMap<String, Value> = BTreeMap::new();
    let mut listed = BTreeSet::from([id(root(agent)?)?]);
    for (part, root) in [(agent, None), (kernel, Some(&programs))] {
        for component in array(&part.document, "components")?.iter().chain(root) {
            let id = id(component)?;
            if !part.built.contains(&id) {
                continue;
            }
            let mut scope = if part.linked.contains(&id) {
                "required"
            } else {
                "excluded"
            };
            listed.insert(id);
            let entry = components.entry(reference(component)?);
            if let std::collections::btree_map::Entry::Occupied(other) = &entry
                && other.get()["scope"] == "required"
            {
                scope = "required";
            }
            entry.or_insert_with(|| component.clone())["scope"] = json!(scope);
        }
    }
    match agent
        .built
        .union(&kernel.built)
        .find(|it| !listed.contains(*it))
    {
        Some((name, version)) => {
            bail!("cargo-cyclonedx does not list {name} {version}, which is built")
        }
        None => Ok(components),
    }
}

/// What depends on what, of that.
fn edges(
    parts: [&Part; 2],
    components: &BTreeMap<String, Value>,
) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let [agent, kernel] = parts;
    let (agent_ref, kernel_ref) = (reference(root(agent)?)?, reference(root(kernel)?)?);
    let is_listed = |it: &String| *it == agent_ref || components.contains_key(it);
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for part in parts {
        for dependency in array(&part.document, "dependencies")? {
            let from = text(dependency, "ref")?;
            if !is_listed(&from) {
                continue;
            }
            let to = dependency["dependsOn"].as_array().into_iter().flatten();
            let to = to.filter_map(Value::as_str).map(str::to_owned);
            edges.entry(from).or_default().extend(to.filter(is_listed));
        }
    }
    let embedding = components.values().chain([root(agent)?]);
    let embedding = embedding.filter(|it| EMBEDDING.iter().any(|name| it["name"] == *name));
    for component in embedding {
        edges
            .entry(reference(component)?)
            .or_default()
            .insert(kernel_ref.clone());
    }
    Ok(edges)
}

/// What the list is of.
fn root(part: &Part) -> Result<&Value> {
    let root = part.document.pointer("/metadata/component");
    root.context("the list of cargo-cyclonedx does not say what it is of")
}

fn id(component: &Value) -> Result<Crate> {
    Ok((text(component, "name")?, text(component, "version")?))
}

fn reference(component: &Value) -> Result<String> {
    text(component, "bom-ref")
}

fn text(value: &Value, field: &str) -> Result<String> {
    let found = value[field].as_str();
    let found = found.with_context(|| format!("something without {field} is listed: {value}"))?;
    Ok(found.to_owned())
}

fn array<'a>(value: &'a Value, field: &str) -> Result<&'a Vec<Value>> {
    let found = value[field].as_array();
    found.with_context(|| format!("the list of cargo-cyclonedx has no {field}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(name: &str) -> Value {
        json!({ "bom-ref": format!("ref/{name}"), "name": name, "version": "1.0.0", "scope": "required" })
    }

    fn part(name: &str, crates: &[&str], linked: &[&str], built: &[&str], edges: Value) -> Part {
        let ids = |names: &[&str]| {
            let names = names.iter().chain([&name]);
            names
                .map(|it| (String::from(*it), "1.0.0".to_owned()))
                .collect()
        };
        let mut root = component(name);
        root["components"] = json!([{ "name": "bench" }]);
        let document = json!({
            "metadata": { "component": root, "tools": [], "properties": [] },
            "components": crates.iter().map(|it| component(it)).collect::<Vec<_>>(),
            "dependencies": edges,
        });
        Part {
            document,
            linked: ids(linked),
            built: ids(built),
        }
    }

    fn system() -> System {
        System {
            agent: vec![component("glibc")],
            kernel: vec![component("core")],
            tools: vec![json!({ "name": "rustc" })],
        }
    }

    fn agent() -> Part {
        part(
            "lb-agent",
            &[
                "lb-packet",
                "lb-common",
                "macros",
                "both",
                "only-of-the-workspace",
            ],
            &["lb-packet", "lb-common"],
            &["lb-packet", "lb-common", "macros", "both"],
            json!([
                { "ref": "ref/lb-agent", "dependsOn": ["ref/lb-packet", "ref/only-of-the-workspace"] },
                { "ref": "ref/only-of-the-workspace", "dependsOn": ["ref/lb-common"] },
                { "ref": "ref/lb-packet" },
            ]),
        )
    }

    fn kernel() -> Part {
        part(
            "lb-ebpf",
            &["lb-common", "both"],
            &["lb-common", "both"],
            &["lb-common", "both"],
            json!([{ "ref": "ref/lb-ebpf", "dependsOn": ["ref/lb-common"] }]),
        )
    }

    #[test]
    fn the_list_has_what_is_built_and_says_what_of_it_is_in_the_program() {
        let list = merge(&agent(), &kernel(), &system(), "abc").unwrap();
        let listed = list["components"].as_array().unwrap();
        let scopes: BTreeMap<_, _> = listed
            .iter()
            .map(|it| (it["name"].as_str().unwrap(), it["scope"].as_str().unwrap()))
            .collect();
        let expect = [
            ("both", "required"),
            ("core", "required"),
            ("glibc", "required"),
            ("lb-common", "required"),
            ("lb-ebpf", "required"),
            ("lb-packet", "required"),
            ("macros", "excluded"),
        ];
        assert_eq!(scopes, BTreeMap::from(expect));
        assert!(
            listed.iter().all(|it| it.get("components").is_none()),
            "{list:#}"
        );
        assert_eq!(list["metadata"]["tools"][0]["name"], "rustc");
        assert_eq!(list["metadata"]["properties"][0]["value"], "abc");
    }

    #[test]
    fn the_list_says_what_depends_on_what() {
        let list = merge(&agent(), &kernel(), &system(), "abc").unwrap();
        let of = |from: &str| {
            let edges = list["dependencies"].as_array().unwrap();
            let found = edges
                .iter()
                .find(|it| it["ref"] == format!("ref/{from}"))
                .unwrap();
            let to = found["dependsOn"].as_array().unwrap();
            to.iter()
                .map(|it| it.as_str().unwrap().trim_start_matches("ref/").to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(of("lb-agent"), ["glibc", "lb-ebpf", "lb-packet"]);
        assert_eq!(of("lb-packet"), ["lb-ebpf"]);
        assert_eq!(of("lb-ebpf"), ["core", "lb-common"]);
        assert!(of("glibc").is_empty());
    }

    #[test]
    fn a_list_that_lacks_something_that_is_built_is_refused() {
        let mut lacking = kernel();
        lacking
            .built
            .insert(("aya-ebpf".to_owned(), "2.0.0".to_owned()));
        let error = merge(&agent(), &lacking, &system(), "abc")
            .unwrap_err()
            .to_string();
        assert!(error.contains("aya-ebpf 2.0.0"), "{error}");
        let mut empty = kernel();
        empty.document = json!({});
        let error = merge(&agent(), &empty, &system(), "abc")
            .unwrap_err()
            .to_string();
        assert!(error.contains("does not say what it is of"), "{error}");
    }
}
