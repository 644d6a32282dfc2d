//! Replays every input that is kept, as an ordinary test.

use std::{fs, path::PathBuf};

use oncekey_fuzz::TARGETS;

fn folder(kind: &str, target: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), kind, target].iter().collect()
}

/// One test, because memory is measured for the whole process.
#[test]
fn every_target_holds_for_its_seeds_and_for_every_input_that_is_kept() {
    for target in TARGETS {
        let mut inputs = 0;
        let mut check = |name: String, data: &[u8]| {
            println!("{} {name}", target.name);
            inputs += 1;
            target.check(data)
        };
        for (number, seed) in (target.seeds)().iter().enumerate() {
            let taken = check(format!("seed {number}"), seed);
            // The example configuration leaves open what every node must be told.
            assert!(
                taken || target.name == "configuration",
                "seed {number} of {} is refused",
                target.name
            );
        }
        check("nothing".to_owned(), &[]);
        // Found by coverage, and found to break something that is now repaired.
        for kind in ["corpus", "crashes"] {
            let Ok(files) = fs::read_dir(folder(kind, target.name)) else { continue };
            for file in files {
                let path = file.unwrap().path();
                check(path.display().to_string(), &fs::read(&path).unwrap());
            }
        }
        assert!(inputs > 1, "{} has no seeds", target.name);
    }
}

#[test]
fn every_target_has_its_program_and_its_line_in_the_document() {
    let document = fs::read_to_string(folder("..", "docs/fuzzing.md")).unwrap();
    for target in TARGETS {
        let program = folder("fuzz_targets", &format!("{}.rs", target.name));
        assert!(program.is_file(), "{}", program.display());
        assert!(document.contains(&format!("| `{}` |", target.name)), "{}", target.name);
    }
    let programs = fs::read_dir(folder("fuzz_targets", "")).unwrap().count();
    assert_eq!(programs, TARGETS.len(), "a program without a target");
}
