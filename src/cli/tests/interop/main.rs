//! Fresh handshakes with the Python package X3DH, in both directions, where it is installed.
//!
//! `live.py` beside this file says how to install it. Set `ONCEKEY_PYTHON` to the interpreter that
//! has it; `python3` is tried else. Without it the test says that it is skipped: the vectors that
//! the package computed once (`conformance.rs`) are tested everywhere.

use std::{env, path::Path, process::Command};

#[test]
fn both_directions_agree_with_the_package_x3dh() {
    let python = env::var_os("ONCEKEY_PYTHON").unwrap_or_else(|| "python3".into());
    let has = Command::new(&python).args(["-c", "import x3dh, xeddsa"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        println!("skipped: {} has no package X3DH", Path::new(&python).display());
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/live.py");
    let output = Command::new(&python)
        .arg(script)
        .arg(env!("CARGO_BIN_EXE_oncekey"))
        .output()
        .expect("the interpreter runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
    assert!(said.contains("32 handshakes started by the package and 32 by Oncekey"), "{said}");
}
