//! The hash of a flow, by which it has its slot of a Maglev table and its ports.

pub use lb_common::{FlowHash, flow_hash4, flow_hash6};
