//! What a kernel makes of the project's programs, as the first process of a virtual machine tells it (`lb-guest`) and
//! `cargo xtask kernels` reads it: one line of JSON.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What was found on one kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The kernel's release, as `uname -r` has it.
    pub release: String,
    /// How its control groups are mounted.
    pub hierarchy: Hierarchy,
    /// Every program that it took.
    pub programs: Vec<Figures>,
    /// What was tried, in that order.
    pub checks: Vec<Check>,
}

/// How the control groups of a host are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hierarchy {
    /// Version 2 alone.
    Unified,
    /// Controllers of version 1, and version 2 beside them.
    Hybrid,
}

impl Hierarchy {
    /// The word of the kernel's command line that asks for it.
    pub const PARAMETER: &str = "lb.hierarchy=";
}

impl fmt::Display for Hierarchy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unified => "unified",
            Self::Hybrid => "hybrid",
        })
    }
}

/// What the kernel says of a program that it has verified and translated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// The object that it is of.
    pub object: String,
    /// Its name.
    pub program: String,
    /// The instructions that the verifier went through; `None` where the kernel does not tell.
    pub verified: Option<u32>,
    /// Its size as instructions of BPF.
    pub translated_bytes: u32,
    /// Its size as instructions of the processor.
    pub jited_bytes: u32,
    /// By what it was attached; `None` if it was not.
    pub attached: Option<String>,
}

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// How it went.
    pub outcome: Outcome,
    /// What there is to say of it: what is different here, or why it failed. The same in each run.
    pub detail: String,
}

/// How something went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should.
    Works,
    /// The agent says that it cannot be, and ends.
    Refused,
    /// Not as it should.
    Failed,
}

/// Where the guest writes its report, apart from what the kernel says on its console.
pub const REPORT_DEVICE: &str = "/dev/ttyS1";
