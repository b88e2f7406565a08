//! The doors of the fuzz targets to what only this module knows.

use std::sync::Arc;

use super::parse::{self, Standpoint};
use crate::catalog::{Instance, Problem};

/// What an answer of `/v1/health/service/<service>` gives; `None` if it is no answer.
pub(crate) fn listing(body: &[u8]) -> Option<(Vec<Arc<Instance>>, Vec<Problem>)> {
    let listing = parse::listing("fuzz", body, &Standpoint::default()).ok()?;
    Some((listing.instances, listing.problems))
}

/// What is wrong with the names in an answer of `/v1/catalog/services`.
pub(crate) fn names(body: &[u8]) -> Vec<Problem> {
    let names = parse::names(body).unwrap_or_default();
    names
        .iter()
        .filter_map(|name| parse::name_problem(name))
        .collect()
}
