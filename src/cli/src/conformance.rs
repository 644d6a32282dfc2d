//! `oncekey conformance`: holds other implementations against ours.
//!
//! One JSON object per line in, one per line out, byte strings as hex. A line that cannot be
//! answered gets `{"error": "…", "code": "…"}` and the run goes on. [`plain`] and [`native`] say
//! which operations there are.
//!
//! Guarantees: as many objects out as there are lines with anything on them, in their order; every
//! check that the library makes is made here too. Leaves out: being safe to deploy. It takes fixed
//! ephemeral keys, which is why it is built only with the feature `conformance`.

mod native;
mod plain;
mod wire;

use std::io::{self, BufRead, Read, Write};

use serde::{Deserialize, Serialize};

use wire::OpError;

/// Length of one line in bytes: a bundle of a thousand keys fits many times.
const LINE_MAX_BYTES: usize = 1024 * 1024;

/// Answers every line of `input` on `output`.
///
/// # Errors
///
/// Only when reading or writing fails.
pub(crate) fn run(mut input: impl BufRead, mut output: impl Write) -> anyhow::Result<()> {
    let mut line = Vec::new();
    loop {
        let answer = match read_line(&mut input, &mut line)? {
            Line::End => return Ok(()),
            Line::Whole if line.trim_ascii().is_empty() => continue,
            Line::Whole => answer(&line),
            Line::TooLong => Err(OpError::malformed("the line is over the limit")),
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => serde_json::to_string(&error)?,
        };
        writeln!(output, "{answer}")?;
        output.flush()?;
    }
}

enum Line {
    Whole,
    TooLong,
    End,
}

/// Reads one line, without ever holding more of it than the limit.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Line> {
    line.clear();
    let limit = u64::try_from(LINE_MAX_BYTES).unwrap_or(u64::MAX);
    if input.by_ref().take(limit).read_until(b'\n', line)? == 0 {
        return Ok(Line::End);
    }
    if line.len() == LINE_MAX_BYTES && !line.ends_with(b"\n") {
        input.skip_until(b'\n')?;
        return Ok(Line::TooLong);
    }
    Ok(Line::Whole)
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
enum Request {
    Bundle(plain::BundleRequest),
    Alice(plain::AliceRequest),
    Bob(plain::BobRequest),
    Native(native::NativeRequest),
    Open(native::OpenRequest),
    SafetyNumber(native::SafetyNumberRequest),
}

fn answer(line: &[u8]) -> Result<String, OpError> {
    match serde_json::from_slice(line).map_err(OpError::malformed)? {
        Request::Bundle(request) => json(&plain::bundle(&request)?),
        Request::Alice(request) => json(&plain::alice(&request)?),
        Request::Bob(request) => json(&plain::bob(&request)?),
        Request::Native(request) => json(&native::native(&request)?),
        Request::Open(request) => json(&native::open(&request)?),
        Request::SafetyNumber(request) => json(&native::safety_number(&request)?),
    }
}

fn json(answer: &impl Serialize) -> Result<String, OpError> {
    serde_json::to_string(answer).map_err(OpError::malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(input: &[u8]) -> Vec<serde_json::Value> {
        let mut output = Vec::new();
        run(input, &mut output).unwrap();
        let lines = output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    }

    #[test]
    fn a_bad_line_gets_an_error_and_the_run_goes_on() {
        let good = r#"{"op":"safety_number","version":1,"local_key":"00","local_id":"","remote_key":"00","remote_id":""}"#;
        let input = format!("not json\n{{\"op\":\"fly\"}}\n\n{good}");
        let answers = answers(input.as_bytes());
        assert_eq!(answers.len(), 3, "{answers:?}");
        assert_eq!(answers[0]["code"], "malformed");
        assert_eq!(answers[1]["code"], "malformed");
        assert_eq!(answers[2]["code"], "invalid_key");
    }

    #[test]
    fn a_line_over_the_limit_is_skipped_to_its_end() {
        let mut input = vec![b' '; LINE_MAX_BYTES + 10];
        input.extend(b"\n{}\n");
        assert_eq!(answers(&input).len(), 2);
    }
}
