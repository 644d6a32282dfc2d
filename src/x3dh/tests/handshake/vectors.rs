//! Reads vector files; one named test for each vector.

use std::{fs, path::Path};

use serde::{Deserialize, Deserializer, de::DeserializeOwned};

/// The content of `tests/vectors/<name>`.
pub(crate) fn read<T: DeserializeOwned>(name: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

/// Bytes written as hex.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Hex(pub(crate) Vec<u8>);

impl Hex {
    /// The bytes of a key.
    pub(crate) fn key(&self) -> [u8; 32] {
        self.0.as_slice().try_into().expect("32 bytes")
    }
}

impl std::fmt::Debug for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        hex::decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Compares two byte strings and shows them as hex when they differ.
pub(crate) fn assert_hex(what: &str, ours: &[u8], theirs: &Hex) {
    assert!(ours == theirs.0, "{what}\n  ours   {}\n  theirs {theirs:?}", hex::encode(ours));
}

/// Declares one test for each vector of a file, and one that none was forgotten.
macro_rules! vector_tests {
    ($load:path, $check:path, [$($name:ident),+ $(,)?]) => {
        $(
            #[test]
            fn $name() {
                let vectors = $load();
                let vector = vectors
                    .iter()
                    .find(|vector| vector.name == stringify!($name))
                    .expect("the file holds a vector of this name");
                $check(vector);
            }
        )+

        #[test]
        fn every_vector_of_the_file_has_its_test() {
            let vectors = $load();
            let names: Vec<_> = vectors.iter().map(|vector| vector.name.as_str()).collect();
            assert_eq!(names, [$(stringify!($name)),+]);
        }
    };
}
pub(crate) use vector_tests;
