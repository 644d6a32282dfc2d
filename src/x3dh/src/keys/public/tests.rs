//! Bad points of every kind, found by arithmetic.

use curve25519_dalek::{constants::EIGHT_TORSION, traits::IsIdentity};
use proptest::prelude::*;

use super::*;

fn honest() -> impl Strategy<Value = EdwardsPoint> {
    any::<[u8; 32]>().prop_map(EdwardsPoint::mul_base_clamped)
}

#[test]
fn the_table_holds_every_canonical_point_of_low_order() {
    for bytes in LOW_ORDER {
        assert!(is_below_p(&bytes));
        assert!(MontgomeryPoint(bytes).mul_clamped([7; 32]).is_identity(), "{bytes:02x?}");
    }
    for point in EIGHT_TORSION {
        let u = point.to_montgomery().to_bytes();
        assert_eq!(DhPublic::from_bytes(u).err(), Some(KeyError::LowOrder), "{u:02x?}");
    }
}

#[test]
fn an_ed25519_key_of_low_order_is_refused() {
    for point in EIGHT_TORSION {
        let bytes = point.compress().to_bytes();
        assert_eq!(IdentityPublic::from_ed25519(&bytes), Err(KeyError::LowOrder));
        assert_eq!(AccountPublic::from_bytes(&bytes), Err(KeyError::LowOrder));
    }
}

#[test]
fn every_ed25519_encoding_at_or_above_p_is_refused() {
    // y in p..2^255, with either sign: 38 encodings, of which some decompress.
    let mut decompressed = 0;
    for low in 0xed..=0xffu8 {
        for top in [0x7f, 0xff] {
            let mut bytes = [0xff; 32];
            bytes[0] = low;
            bytes[31] = top;
            decompressed += usize::from(CompressedEdwardsY(bytes).decompress().is_some());
            assert!(IdentityPublic::from_ed25519(&bytes).is_err(), "{bytes:02x?}");
            assert!(AuthenticationPublic::from_bytes(&bytes).is_err(), "{bytes:02x?}");
        }
    }
    assert!(decompressed > 0, "the test would prove nothing");
}

#[test]
fn a_key_of_a_wrong_length_is_refused() {
    for len in [0, 31, 33, 64] {
        let bytes = alloc::vec![9; len];
        assert_eq!(SignedPreKeyPublic::from_bytes(&bytes), Err(KeyError::Length { bytes: len }));
        assert_eq!(IdentityPublic::from_ed25519(&bytes), Err(KeyError::Length { bytes: len }));
    }
}

#[test]
fn an_unknown_kind_of_identity_is_refused() {
    for tag in [0, 3, 255] {
        assert_eq!(
            IdentityPublic::from_tagged_bytes(&[tag; 33]),
            Err(KeyError::Kind { kind: tag })
        );
    }
}

proptest! {
    #[test]
    fn the_torsion_siblings_of_a_key_are_refused(point in honest()) {
        let bytes = point.compress().to_bytes();
        prop_assert!(IdentityPublic::from_ed25519(&bytes).is_ok());
        for torsion in &EIGHT_TORSION[1..] {
            let sibling = (point + torsion).compress().to_bytes();
            prop_assert_eq!(IdentityPublic::from_ed25519(&sibling), Err(KeyError::Torsion));
        }
    }

    #[test]
    fn an_x25519_key_with_bit_255_is_refused(point in honest()) {
        let mut bytes = point.to_montgomery().to_bytes();
        prop_assert!(OneTimePreKeyPublic::from_bytes(&bytes).is_ok());
        bytes[31] |= 0x80;
        prop_assert_eq!(
            OneTimePreKeyPublic::from_bytes(&bytes),
            Err(KeyError::NotCanonical)
        );
    }

    #[test]
    fn an_x25519_key_at_or_above_p_is_refused(low in 0xed..=0xffu8) {
        let mut bytes = [0xff; 32];
        bytes[0] = low;
        bytes[31] = 0x7f;
        prop_assert_eq!(EphemeralPublic::from_bytes(&bytes), Err(KeyError::NotCanonical));
    }

    #[test]
    fn a_tagged_identity_key_comes_back(point in honest()) {
        let key = IdentityPublic::from_ed25519(&point.compress().to_bytes()).unwrap();
        prop_assert_eq!(IdentityPublic::from_tagged_bytes(&key.to_tagged_bytes()), Ok(key));
    }
}
