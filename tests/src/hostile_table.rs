//! The tables of `docs/hostile-input.md`, held to the cases of the tests.

use std::{collections::BTreeSet, env, fs, path::Path};

const PAGE: &str = "docs/hostile-input.md";

/// Fails unless the page has, under `heading`, the table of `rows`: what is sent, and what it gets.
/// A row that comes again is left out.
///
/// # Errors
///
/// The table as it should be.
pub fn check(
    heading: &str,
    rows: impl IntoIterator<Item = (String, String)>,
) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    let rows = rows.into_iter().map(|(sent, gets)| format!("| {sent} | {gets} |"));
    let rows = rows.filter(|row| seen.insert(row.clone()));
    let table: Vec<_> =
        ["| sent | gets |".to_owned(), "|---|---|".to_owned()].into_iter().chain(rows).collect();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|dir| dir.join(PAGE));
    let page = page.into_iter().find_map(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    let below = page.lines().skip_while(|line| line.trim_start_matches('#').trim() != heading);
    let section = below.skip(1).take_while(|line| !line.starts_with('#'));
    let found: Vec<_> = section.filter(|line| line.starts_with('|')).collect();
    if found == table {
        return Ok(());
    }
    Err(format!("{PAGE} should have under {heading:?}:\n\n{}\n", table.join("\n")))
}
