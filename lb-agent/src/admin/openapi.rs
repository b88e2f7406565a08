//! The document of the API: every path beside the page, what it takes and what it answers (OpenAPI 3.1).
//!
//! It is made by a test, from the types that are answered and from the table in `made.rs`, and kept as
//! `docs/openapi.json`; another test asks a live agent for all of it. So nothing of its making is in the program.

#[cfg(test)]
mod made;

/// The document.
pub(super) const OPENAPI: &str = include_str!("../../../docs/openapi.json");
/// The path.
pub(super) const OPENAPI_PATH: &str = "/api/v1/openapi.json";
