//! The door of the fuzz targets to what operators order.

use super::{FIRST, Order, VERSION, after_request, read, written};
use crate::{
    catalog::{Catalog, InstanceKey},
    order::Orders,
    state_file,
};

/// The orders in the file of an earlier agent; `None` if it is damaged.
pub(crate) fn kept_orders(text: &[u8]) -> Option<Orders> {
    state_file::read(text, &(FIRST..=VERSION)).ok().map(read)
}

/// The file of these orders.
pub(crate) fn keep_orders(orders: &Orders) -> Vec<u8> {
    state_file::written(VERSION, &written(orders)).unwrap_or_default()
}

/// The orders after one more, and the instances that it concerns.
pub(crate) fn ordered(
    orders: &Orders,
    catalog: &Catalog,
    wanted: (&str, Option<&str>),
    order: Order,
) -> Result<(Orders, Vec<InstanceKey>), String> {
    after_request(orders, catalog, wanted, order)
}

/// The orders when what is not in `catalog` has left.
pub(crate) fn left(orders: &Orders, catalog: &Catalog) -> Orders {
    super::after_leaving(orders, catalog, catalog)
}
