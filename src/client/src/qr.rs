//! Safety numbers and pairing codes as QR codes, drawn with the characters of a terminal.
//!
//! Guarantees: a quiet zone of four modules all around, two modules in one character, so that a
//! camera reads it from any terminal with dark text on a light ground or the other way round.
//!
//! Leaves out: images, and reading codes. What a camera read goes to
//! [`SafetyNumber::matches_code`].

use oncekey_x3dh::SafetyNumber;
use qrcode::{Color, EcLevel, QrCode, types::QrError};

use crate::pairing::PairingCode;

/// Modules of ground around the code, as ISO/IEC 18004 asks for.
const QUIET_ZONE: usize = 4;

/// The code could not be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the code could not be made: {0}")]
pub struct NoCode(#[from] QrError);

/// Which half of a character is in the colour of the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ground {
    /// Dark text on a light ground.
    Light,
    /// Light text on a dark ground.
    #[default]
    Dark,
}

/// The code of `number`, in lines.
///
/// # Errors
///
/// A [`NoCode`].
pub fn draw(number: &SafetyNumber, ground: Ground) -> Result<String, NoCode> {
    draw_bytes(&number.to_code(), ground)
}

/// The text of `code`, in lines.
///
/// # Errors
///
/// A [`NoCode`].
pub fn draw_pairing(code: &PairingCode, ground: Ground) -> Result<String, NoCode> {
    draw_bytes(code.to_string().as_bytes(), ground)
}

fn draw_bytes(content: &[u8], ground: Ground) -> Result<String, NoCode> {
    let code = QrCode::with_error_correction_level(content, EcLevel::M)?;
    let width = code.width();
    let is_dark = |x: usize, y: usize| {
        let inside = |n: usize| n.checked_sub(QUIET_ZONE).filter(|n| *n < width);
        match (inside(x), inside(y)) {
            (Some(x), Some(y)) => code[(x, y)] == Color::Dark,
            _ => false,
        }
    };
    let is_text = |x: usize, y: usize| match ground {
        Ground::Light => is_dark(x, y),
        Ground::Dark => !is_dark(x, y),
    };
    let edge = width + 2 * QUIET_ZONE;
    let mut drawn = String::with_capacity(edge * (edge / 2 + 1) * 4);
    for y in (0..edge).step_by(2) {
        for x in 0..edge {
            drawn.push(match (is_text(x, y), is_text(x, y + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        drawn.push('\n');
    }
    Ok(drawn)
}

#[cfg(test)]
mod tests {
    use oncekey_x3dh::keys::AccountKeyPair;
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    fn number() -> SafetyNumber {
        let rng = &mut StdRng::seed_from_u64(1);
        let (alice, bob) = (AccountKeyPair::generate(rng), AccountKeyPair::generate(rng));
        SafetyNumber::new((alice.public(), b"alice"), (bob.public(), b"bob"))
    }

    /// Whether the module at a place is dark.
    fn modules(drawn: &str) -> Vec<Vec<bool>> {
        drawn
            .lines()
            .flat_map(|line| {
                let upper = line.chars().map(|c| matches!(c, '█' | '▀')).collect();
                let lower = line.chars().map(|c| matches!(c, '█' | '▄')).collect();
                [upper, lower]
            })
            .collect()
    }

    #[test]
    fn a_code_has_its_quiet_zone_and_its_three_corners() {
        let modules = modules(&draw(&number(), Ground::Light).unwrap());
        let edge = modules[0].len();
        // Version 5 holds 84 bytes at level M.
        assert_eq!(edge, 37 + 2 * QUIET_ZONE);
        let zone = |n: usize| n < QUIET_ZONE || n >= edge - QUIET_ZONE;
        for (y, row) in modules.iter().enumerate() {
            let dark = |(x, dark): (usize, &bool)| *dark && (zone(x) || zone(y));
            assert!(!row.iter().enumerate().any(dark), "row {y}");
        }
        let finder = |x: usize, y: usize| {
            (0..7).all(|dy| {
                (0..7).all(|dx| {
                    let ring = usize::min(usize::min(dx, 6 - dx), usize::min(dy, 6 - dy));
                    modules[y + dy][x + dx] == (ring != 1)
                })
            })
        };
        let (first, last) = (QUIET_ZONE, edge - QUIET_ZONE - 7);
        assert!(finder(first, first) && finder(last, first) && finder(first, last));
        assert!(!finder(last, last));
    }

    #[test]
    fn the_two_grounds_are_each_others_negative() {
        let light = modules(&draw(&number(), Ground::Light).unwrap());
        let dark = modules(&draw(&number(), Ground::Dark).unwrap());
        for (light, dark) in light.iter().zip(&dark) {
            assert!(light.iter().zip(dark).all(|(light, dark)| light != dark));
        }
    }
}
