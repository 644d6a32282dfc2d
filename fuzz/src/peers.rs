//! What nodes say to each other, and what this crate's files hold.

use oncekey_raft::fuzzing::Format;
use oncekey_types::limits;

use crate::{Target, choose, chosen, comes_back};

/// One frame between two nodes: greetings, questions, answers.
pub const PEER_FRAME: Target = Target {
    name: "peer_frame",
    run: |data| run(Format::PEERS, data),
    seeds: || seeds(Format::PEERS),
    claim_bytes: limits::FRAME_MAX_BYTES,
};

/// Records of the write-ahead log, the header of a shard's state, the identity file.
pub const NODE_FILE: Target = Target {
    name: "node_file",
    run: |data| run(Format::DISK, data),
    seeds: || seeds(Format::DISK),
    claim_bytes: limits::WAL_RECORD_MAX_BYTES,
};

fn run(formats: &[Format], data: &[u8]) {
    if let Some((format, bytes)) = choose(formats, data) {
        comes_back(bytes, |bytes| format.again(bytes));
    }
}

fn seeds(formats: &[Format]) -> Vec<Vec<u8>> {
    let examples = formats.iter().enumerate().flat_map(|(number, format)| {
        let examples = format.examples();
        assert!(!examples.is_empty(), "{format:?} has no example");
        examples.into_iter().map(move |bytes| chosen(number, &bytes))
    });
    examples.collect()
}
