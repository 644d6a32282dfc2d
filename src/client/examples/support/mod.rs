//! What the examples share.

use std::{
    error::Error,
    time::{SystemTime, UNIX_EPOCH},
};

use oncekey_client::http::{AnyNode, Config};

/// The nodes named on the command line after `skip` other arguments, or those of `oncekey dev --open`.
/// Any of them will do.
pub(crate) fn nodes(caller: &str, skip: usize) -> Result<AnyNode, Box<dyn Error>> {
    let mut endpoints: Vec<_> = std::env::args().skip(1 + skip).collect();
    if endpoints.is_empty() {
        endpoints = ["127.0.0.1:8701", "127.0.0.1:8702", "127.0.0.1:8703"].map(Into::into).into();
    }
    let endpoints = endpoints.iter().map(|endpoint| endpoint.parse()).collect::<Result<_, _>>()?;
    Ok(AnyNode::new(Config::new(endpoints, caller.parse()?)?))
}

/// A user whom the cluster has not seen before: what an example keeps in memory is gone when it
/// ends, and then nobody else may be that user.
#[allow(dead_code, reason = "not every example makes users up")]
pub(crate) fn somebody(name: &str) -> Result<String, Box<dyn Error>> {
    Ok(format!("{name}-{}", SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis()))
}
