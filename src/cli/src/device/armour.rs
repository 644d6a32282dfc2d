//! First messages as text, to be carried by hand.
//!
//! ```text
//! -----BEGIN ONCEKEY MESSAGE-----
//! base64url, 64 characters a line
//! -----END ONCEKEY MESSAGE-----
//! ```
//!
//! Guarantees: what is outside of blocks is skipped, so that blocks may stand in mails and between
//! other output; a block that is not whole is an error, never a shorter message. Leaves out: who it
//! is for, which the message itself says.

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use oncekey_types::limits;

const BEGIN: &str = "-----BEGIN ONCEKEY MESSAGE-----";
const END: &str = "-----END ONCEKEY MESSAGE-----";
const LINE: usize = 64;
/// A first message: its payload, and names and keys around it.
const MESSAGE_MAX_BYTES: usize = limits::INITIAL_PAYLOAD_MAX_BYTES + 4096;

/// The block of a message.
pub(super) fn encode(message: &[u8]) -> String {
    let text = URL_SAFE_NO_PAD.encode(message);
    let mut block = format!("{BEGIN}\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE));
        block.push_str(line);
        block.push('\n');
        rest = after;
    }
    block.push_str(END);
    block
}

/// The messages in `text`, in order.
pub(super) fn decode(text: &str) -> Result<Vec<Vec<u8>>> {
    let mut messages = Vec::new();
    let mut open: Option<String> = None;
    for (line, number) in text.lines().map(str::trim).zip(1..) {
        match (line, &mut open) {
            (BEGIN, None) => open = Some(String::new()),
            (BEGIN, Some(_)) => bail!("line {number}: a block begins within another"),
            (END, None) => bail!("line {number}: a block ends that has not begun"),
            (END, Some(block)) => {
                let message = URL_SAFE_NO_PAD.decode(block.as_bytes());
                messages.push(
                    message.with_context(|| {
                        format!("the block that ends at line {number} is damaged")
                    })?,
                );
                open = None;
            }
            (line, Some(block)) => {
                block.push_str(line);
                ensure!(
                    block.len() <= (MESSAGE_MAX_BYTES * 4).div_ceil(3),
                    "line {number}: the block is longer than any message"
                );
            }
            (_, None) => {}
        }
    }
    ensure!(open.is_none(), "the last block does not end");
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_every_length_come_back_from_the_middle_of_other_text() {
        let messages: Vec<Vec<u8>> =
            [0, 1, 47, 48, 49, 300].map(|length| vec![0xa5; length]).to_vec();
        let blocks: Vec<_> = messages.iter().map(|message| encode(message)).collect();
        let text = format!("Dear Bob,\r\n\n> {}\n", blocks.join("\nand\n"));
        let text = text.replace("> -----", "  -----").replace('\n', "\r\n");
        assert_eq!(decode(&text).unwrap(), messages);
        assert!(blocks.iter().all(|block| block.lines().all(|line| line.len() <= LINE)));
    }

    #[test]
    fn a_block_that_is_not_whole_is_an_error() {
        let block = encode(b"a message");
        let lines: Vec<_> = block.lines().collect();
        for (text, why) in [
            (lines[..2].join("\n"), "does not end"),
            (lines[1..].join("\n"), "has not begun"),
            ([lines[0], lines[0]].join("\n"), "within another"),
            ([lines[0], "a*b", lines[2]].join("\n"), "damaged"),
            ([lines[0], &"A".repeat(MESSAGE_MAX_BYTES * 2)].join("\n"), "longer"),
        ] {
            let error = decode(&text).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn the_longest_message_passes() {
        let message = vec![7; MESSAGE_MAX_BYTES];
        assert_eq!(decode(&encode(&message)).unwrap(), [message]);
    }
}
