//! What is in the program that is shipped, and what is not.

use std::fs;

use anyhow::{Context, Result};
use oncekey_cluster::binary;
use oncekey_planted::{Bug, VARIABLE};

#[test]
fn no_bug_is_planted_in_it() -> Result<()> {
    let path = binary::find()?;
    let program = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = String::from_utf8_lossy(&program);
    for trace in Bug::ALL.iter().map(|bug| bug.name()).chain([VARIABLE]) {
        assert!(!text.contains(trace), "{} knows {trace}", path.display());
    }
    Ok(())
}
