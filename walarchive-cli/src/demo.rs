//! The whole circle on a throw-away cluster.

use walarchive_core::{Error, Result};

use crate::args::DemoArgs;
use crate::run::Context;

/// `demo`
pub(crate) fn demo(_: &Context, _: &DemoArgs) -> Result<u8> {
    Err(Error::bug("the demo is being built"))
}
