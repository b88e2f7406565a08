//! System calls that aya and the standard library lack, one safe function each: the only user-space
//! `unsafe` of the project.

pub mod bpf;
pub mod ethtool;
pub mod handover;
pub mod inherit;
pub mod memory;
pub mod module;
pub mod netns;
pub mod process;
