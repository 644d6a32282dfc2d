//! `oncekey device trust` and `safety-number`: what only a person can judge.

use std::fmt::{self, Display};

use anyhow::{Context, Result, anyhow};
use oncekey_client::{Answer, Change, TrustEvent, qr, trust::Contradiction};
use oncekey_types::{DeviceId, UserId};
use serde::Serialize;

use super::{
    args,
    home::Device,
    refresh,
    report::{Output, Plain},
};

pub(super) fn answer(device: &Device, answer: Option<args::Answer>, output: &Output) -> Result<()> {
    let questions = device.open_questions()?;
    let (number, answer) = match answer {
        None => {
            let questions = questions.iter().map(Question::of).collect();
            return output.show(&Questions { questions });
        }
        Some(args::Answer::Accept { question }) => (question, Answer::Accept),
        Some(args::Answer::Reject { question }) => (question, Answer::Reject),
    };
    let question = questions
        .iter()
        .find(|question| question.id.0 == number)
        .with_context(|| format!("no question {number} waits for an answer"))?;
    device.answer(question, answer)?;
    output.show(&Answered {
        question: number,
        answer: match answer {
            Answer::Accept => "accepted",
            Answer::Reject => "rejected",
        },
    })
}

pub(super) async fn number(
    device: &Device,
    arguments: &args::SafetyNumber,
    output: &Output,
) -> Result<()> {
    if !arguments.offline {
        refresh(device, device.user()).await?;
        refresh(device, &arguments.user).await?;
    }
    let number = device
        .safety_number(&arguments.user)
        .map_err(|error| anyhow!("there is no safety number: {error}; has the user published?"))?;
    let code = match arguments.qr {
        true => Some(qr::draw(&number, qr::Ground::default())?),
        false => None,
    };
    output.show(&Shown {
        with: arguments.user.clone(),
        digits: number.to_string(),
        code: number.to_code().into(),
        drawn: code,
    })
}

/// One line about a change.
pub(super) fn headline(change: &Change) -> String {
    let user = Plain(change.user());
    match change {
        Change::Identity(changed) => {
            format!("{user}, device {} shows another identity key", changed.peer.device())
        }
        Change::Devices(changed) => {
            let said = |what: &str, devices: Vec<DeviceId>| match devices.as_slice() {
                [] => None,
                devices => {
                    let devices: Vec<_> = devices.iter().map(DeviceId::to_string).collect();
                    Some(format!("{what} {}", devices.join(", ")))
                }
            };
            let of = |listed: &[oncekey_client::ListedDevice]| {
                listed.iter().map(|listed| listed.device).collect()
            };
            let parts = [
                said("added device", of(&changed.added)),
                said("renewed the keys of device", of(&changed.renewed)),
                said("removed device", changed.removed.clone()),
            ];
            let parts: Vec<_> = parts.into_iter().flatten().collect();
            format!("{user} has {}", parts.join(" and "))
        }
        Change::Account(_) => format!("{user} shows another account key"),
        Change::Contradiction(contradiction) => match contradiction.kind {
            Contradiction::RolledBack { pinned, offered } => {
                format!("a node shows list {offered} of {user}, and list {pinned} was there")
            }
            Contradiction::Forked { offered } => {
                format!("a node shows a list {offered} of {user} that does not continue the last")
            }
            Contradiction::Disappeared { .. } => {
                format!("a node shows no device list of {user}, and there was one")
            }
        },
        _ => format!("something about {user} has changed that this version does not know"),
    }
}

/// What it may mean, and what each answer does.
fn meaning(change: &Change) -> &'static str {
    match change {
        Change::Identity(_) => {
            "Either they have reinstalled, or someone is in between. Nothing is sent to the device \
             or\ntaken from it. Compare safety numbers, or ask them over another way.\n  \
             accept: the new key takes the place of the old\n  \
             reject: the old key stays, and the new one stays refused"
        }
        Change::Devices(changed) if changed.trusted => {
            "Their account key has signed it, so it holds unless you say no. Whoever had stolen the \
             key\ncould do the same: ask them if you did not expect it.\n  \
             accept: you have seen it\n  \
             reject: nothing is sent to the new devices or taken from them"
        }
        Change::Devices(_) => {
            "Their account key has signed it. Whoever had stolen the key could do the same: ask them \
             over\nanother way.\n  \
             accept: the new devices are written to and heard\n  \
             reject: nothing is sent to them or taken from them"
        }
        Change::Account(_) => {
            "Either they have lost every device that had the account key, or someone is in between. \
             The old\nlist stays, and nothing new can be started with them. Compare safety numbers \
             first.\n  \
             accept: the new account key and its list take the place of the old\n  \
             reject: the old ones stay"
        }
        Change::Contradiction(_) => {
            "The node lies, or a device of theirs was put back from an old copy. No answer makes it \
             true.\n  \
             accept, reject: you have seen it"
        }
        _ => "A newer `oncekey` knows more.",
    }
}

#[derive(Serialize)]
struct Questions {
    questions: Vec<Question>,
}

#[derive(Serialize)]
struct Question {
    question: u64,
    about: String,
    noticed_ms: u64,
    what: String,
    #[serde(skip)]
    meaning: &'static str,
}

impl Question {
    fn of(event: &TrustEvent) -> Self {
        Self {
            question: event.id.0,
            about: String::from_utf8_lossy(event.change.user()).into_owned(),
            noticed_ms: event.noticed.0,
            what: headline(&event.change),
            meaning: meaning(&event.change),
        }
    }
}

impl Display for Questions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.questions.is_empty() {
            return f.write_str("nothing waits for your answer");
        }
        for Question { question, what, meaning, .. } in &self.questions {
            writeln!(f, "question {question}: {what}\n\n{meaning}\n")?;
        }
        f.write_str("answer with `oncekey device trust accept N` or `reject N`")
    }
}

#[derive(Serialize)]
struct Answered {
    question: u64,
    answer: &'static str,
}

impl Display for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "question {} is {}", self.question, self.answer)
    }
}

#[derive(Serialize)]
struct Shown {
    with: UserId,
    digits: String,
    /// Content of the QR code.
    code: oncekey_api::Base64,
    #[serde(skip)]
    drawn: Option<String>,
}

impl Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.digits.as_bytes();
        for (group, number) in digits.chunks(5).zip(1..) {
            let end = if number % 4 == 0 { "\n" } else { " " };
            write!(f, "{}{end}", String::from_utf8_lossy(group))?;
        }
        if let Some(drawn) = &self.drawn {
            write!(f, "\n{drawn}\n")?;
        }
        write!(
            f,
            "{} must see the same number. Compare it over a way that the servers have no hand in.",
            Plain(self.with.as_bytes())
        )
    }
}
