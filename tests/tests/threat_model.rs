//! `docs/threat-model.md` names tests that exist.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, ensure};

#[test]
fn every_test_that_the_threat_model_names_is_there() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the crate has a parent")?;
    let document = fs::read_to_string(root.join("docs/threat-model.md"))?;
    let quoted = document.split('`').skip(1).step_by(2);
    let named: Vec<_> = quoted.filter_map(|text| text.split_once(".rs::")).collect();
    let mut sources = BTreeMap::new();
    for (file, test) in &named {
        let path = root.join(format!("{file}.rs"));
        let source = match sources.get(file) {
            Some(source) => source,
            None => {
                let source =
                    fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                sources.entry(file).or_insert(source)
            }
        };
        ensure!(source.contains(&format!("fn {test}(")), "{file}.rs has no test {test}");
    }
    ensure!(named.len() > 30, "only {} tests were found in the document", named.len());
    // A line about what happens without a test is a claim: every row of these tables has one.
    for row in
        document.lines().filter(|line| line.starts_with("| ") && line.matches(" | ").count() == 2)
    {
        let proven = row.contains(".rs::") || row.contains("| test |") || row.contains("**");
        let is_head = row.starts_with("| | ");
        ensure!(proven || is_head, "a row without a test: {row}");
    }
    Ok(())
}
