//! The bodies that pass through the front, in both directions.

mod compressed;
mod download;
mod upload;

pub(super) use self::{
    download::Download,
    upload::{Progress, Upload},
};
