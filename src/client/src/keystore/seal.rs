//! The one place where secrets pass into storage and out of it.
//!
//! Guarantees: every blob says in its first byte how it is sealed, so that stores can be rewritten
//! when a sealed form is added.
//!
//! Leaves out: encryption. Form 0 is the secret in the clear; the file's mode, 0600, is all that
//! protects it. Binding a blob to its row belongs to the form that encrypts.

use zeroize::Zeroizing;

use super::Error;

/// In the clear. Stable, never reuse.
const CLEAR: u8 = 0;

/// The blob to store for `secret`.
pub(super) fn seal(secret: &[u8]) -> Zeroizing<Vec<u8>> {
    // Sized up front: a buffer that grew would leave copies behind.
    let mut blob = Zeroizing::new(Vec::with_capacity(1 + secret.len()));
    blob.push(CLEAR);
    blob.extend_from_slice(secret);
    blob
}

/// The `N` secret bytes of a stored blob.
pub(super) fn open<const N: usize>(
    record: &'static str,
    blob: &[u8],
) -> Result<Zeroizing<[u8; N]>, Error> {
    match blob.split_first() {
        Some((&CLEAR, secret)) if secret.len() == N => {
            let mut bytes = Zeroizing::new([0; N]);
            bytes.copy_from_slice(secret);
            Ok(bytes)
        }
        _ => Err(Error::Damaged { record }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_secret_comes_back_as_it_went(secret in any::<[u8; 32]>()) {
            prop_assert_eq!(*open::<32>("test", &seal(&secret)).unwrap(), secret);
        }
    }

    #[test]
    fn a_blob_of_another_form_or_length_is_damage() {
        for blob in [&[][..], &[0; 32], &[0; 34], &[1; 33]] {
            assert!(open::<32>("test", blob).is_err(), "{blob:?}");
        }
    }
}
