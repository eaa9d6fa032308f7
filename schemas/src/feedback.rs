//! What operators say of findings.
//!
//! A finding is named by its [`FindingTag`], which tells stream and model and nothing of the stream's key. Feedback is a small JSON
//! object, the same over HTTP and MQTT.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::finding::Finding;
use crate::ids::{ModelName, StreamId};
use crate::time::Timestamp;

/// Where feedback is published. Wildcards of rights do not cover it, for it begins with `$`: whoever may give feedback is named.
pub const FEEDBACK_TOPIC: &str = "$nearside/feedback";
/// Where the gateway says what became of feedback.
pub const FEEDBACK_ANSWER_TOPIC: &str = "$nearside/feedback/answer";
/// Larger feedback is not read.
pub const MAX_FEEDBACK_BYTES: usize = 4_096;
/// Characters of a note.
const MAX_NOTE: usize = 500;
/// Characters of a reference.
const MAX_REFERENCE: usize = 100;

/// The name of a finding for people and programs at this site: `STREAM-DIGEST-MODEL`, the stream's id, 16 hexadecimal digits of a digest of
/// everything else that makes it this finding, and the model's name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FindingTag {
    /// The stream.
    pub stream: StreamId,
    /// Of window, model, label, field and, from the second on, which of these in the window.
    pub digest: u64,
    /// The model that judged.
    pub model: ModelName,
}

impl Finding {
    /// Its name for feedback.
    pub fn tag(&self) -> FindingTag {
        let mut hasher = blake3::Hasher::new();
        let field = self.field.as_ref().map_or("", |field| field.as_str());
        let window = self.window.to_string();
        for part in [window.as_str(), &self.model.version, &self.label, field] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        if !self.nth.is_first() {
            hasher.update(&self.nth.get().to_le_bytes());
        }
        let mut digest = [0; 8];
        digest.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        FindingTag { stream: self.window.stream, digest: u64::from_le_bytes(digest), model: self.model.name.clone() }
    }
}

impl fmt::Display for FindingTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}-{}", self.stream, self.digest, self.model)
    }
}

impl FromStr for FindingTag {
    type Err = FeedbackError;

    fn from_str(text: &str) -> Result<Self, FeedbackError> {
        let mut parts = text.splitn(3, '-');
        let mut next = |digits: usize| {
            let part = parts.next().unwrap_or_default();
            let is_hex = part.len() == digits && part.bytes().all(|byte| byte.is_ascii_hexdigit());
            if is_hex { Ok(part) } else { Err(FeedbackError::Finding) }
        };
        let stream = u128::from_str_radix(next(32)?, 16).map_err(|_| FeedbackError::Finding)?;
        let digest = u64::from_str_radix(next(16)?, 16).map_err(|_| FeedbackError::Finding)?;
        let model = ModelName::new(parts.next().unwrap_or_default()).map_err(|_| FeedbackError::Finding)?;
        Ok(Self { stream: StreamId::from_bytes(stream.to_be_bytes()), digest, model })
    }
}

impl TryFrom<String> for FindingTag {
    type Error = FeedbackError;
    fn try_from(text: String) -> Result<Self, FeedbackError> {
        text.parse()
    }
}

impl From<FindingTag> for String {
    fn from(tag: FindingTag) -> Self {
        tag.to_string()
    }
}

/// What an operator says of a finding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Opinion {
    /// There was nothing.
    FalseAlarm,
    /// There was something.
    Confirmed,
}

impl Opinion {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FalseAlarm => "false_alarm",
            Self::Confirmed => "confirmed",
        }
    }
}

/// Feedback on a finding.
#[derive(Clone, PartialEq, Debug)]
pub struct Feedback {
    /// The finding.
    pub finding: FindingTag,
    /// What is said of it.
    pub opinion: Opinion,
    /// What the sender calls this message; the answer repeats it.
    pub reference: Option<String>,
    /// When it was received.
    pub at: Timestamp,
}

/// Why feedback is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeedbackError {
    /// Larger than is read.
    #[error("feedback has at most {MAX_FEEDBACK_BYTES} bytes")]
    Length,
    /// A note or reference is too long.
    #[error("a `note` has at most {MAX_NOTE} characters and a `ref` at most {MAX_REFERENCE}")]
    Text,
    /// No JSON of this form.
    #[error(
        "feedback is {{\"finding\": ID, \"verdict\": \"false_alarm\" or \"confirmed\", \"note\": optional, \"ref\": optional}}: {0}"
    )]
    Form(String),
    /// No finding's id.
    #[error("`finding` is the `id` of a finding, as /api/v1/state and `finding.id` of a rule give it")]
    Finding,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    finding: String,
    verdict: Opinion,
    /// Kept in the journal, with the message; nothing is made of it.
    #[serde(default)]
    note: Option<String>,
    #[serde(default, rename = "ref")]
    reference: Option<String>,
}

/// As much of [`Written`] as an answer needs.
#[derive(Deserialize)]
struct Named {
    #[serde(rename = "ref")]
    reference: String,
}

impl Feedback {
    /// Reads what was received at `at`.
    ///
    /// # Errors
    /// With what is wrong and what to write; nothing of the message's own words stands in it.
    pub fn read(bytes: &[u8], at: Timestamp) -> Result<Self, FeedbackError> {
        if bytes.len() > MAX_FEEDBACK_BYTES {
            return Err(FeedbackError::Length);
        }
        let written: Written = serde_json::from_slice(bytes)
            .map_err(|error| FeedbackError::Form(format!("line {} column {}", error.line(), error.column())))?;
        let is_longer =
            |text: &Option<String>, most: usize| text.as_ref().is_some_and(|text| text.chars().count() > most);
        if is_longer(&written.note, MAX_NOTE) || is_longer(&written.reference, MAX_REFERENCE) {
            return Err(FeedbackError::Text);
        }
        Ok(Self { finding: written.finding.parse()?, opinion: written.verdict, reference: written.reference, at })
    }

    /// What the sender called a message, whatever else is wrong with it: who is told that it cannot be read must know which one.
    pub fn reference_of(bytes: &[u8]) -> Option<String> {
        if bytes.len() > MAX_FEEDBACK_BYTES {
            return None;
        }
        let named: Named = serde_json::from_slice(bytes).ok()?;
        (named.reference.chars().count() <= MAX_REFERENCE).then_some(named.reference)
    }
}

/// What became of feedback.
#[derive(Clone, PartialEq, Debug)]
pub enum FeedbackOutcome {
    /// The threshold of the model on this field of this stream is raised by so many steps now.
    Applied {
        /// Steps above the card's threshold; 0 at least.
        steps: f64,
    },
    /// It is recorded and changes no threshold.
    Recorded {
        /// Why not.
        why: &'static str,
    },
    /// The stream knows no such finding, or no more.
    Unknown,
    /// It could not be read.
    Malformed(FeedbackError),
}

impl FeedbackOutcome {
    /// A word for metrics and answers.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Applied { .. } => "applied",
            Self::Recorded { .. } => "recorded",
            Self::Unknown => "unknown",
            Self::Malformed(_) => "malformed",
        }
    }

    /// A sentence for people.
    pub fn says(&self) -> String {
        match self {
            Self::Applied { steps } if *steps > 0.0 => format!(
                "noted. On this stream the model now asks for more before it reports such a finding: its threshold is raised by \
                 {steps:.2} steps, which fade with time"
            ),
            Self::Applied { .. } => "noted. The model reports on this stream by its own threshold".to_owned(),
            Self::Recorded { why } => (*why).to_owned(),
            Self::Unknown => {
                "no such finding is known: its id is not complete, or many findings came after it".to_owned()
            }
            Self::Malformed(error) => error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "000102030405060708090a0b0c0d0e0f-00000000000000ff-pump-hall.2";

    #[test]
    fn a_tag_is_read_as_it_is_written() {
        let tag: FindingTag = ID.parse().unwrap();
        assert_eq!((tag.digest, tag.model.as_str()), (255, "pump-hall.2"));
        assert_eq!(tag.to_string(), ID);
        for bad in ["", "x", &ID[1..], &ID.replace("-pump-hall.2", ""), &ID.replace("pump", "pu mp"), "+1-2-m"] {
            assert_eq!(bad.parse::<FindingTag>(), Err(FeedbackError::Finding), "{bad}");
        }
    }

    #[test]
    fn what_became_of_it_is_said_in_plain_words() {
        let said = |steps| FeedbackOutcome::Applied { steps }.says();
        assert!(said(1.0).contains("raised by 1.00 steps") && said(1.0).starts_with("noted. "), "{}", said(1.0));
        assert!(said(0.0).contains("by its own threshold"), "{}", said(0.0));
    }

    #[test]
    fn what_cannot_be_feedback_is_refused_without_repeating_it() {
        let read = |text: &str| Feedback::read(text.as_bytes(), Timestamp::from_secs(1));
        let good = read(&format!(r#"{{"finding":"{ID}","verdict":"false_alarm","note":"n","ref":"7"}}"#)).unwrap();
        assert_eq!((good.opinion, good.reference.as_deref()), (Opinion::FalseAlarm, Some("7")));
        for bad in [
            "secret".to_owned(),
            "{\"finding\":\"secret\",\"verdict\":\"confirmed\"}".to_owned(),
            format!(r#"{{"finding":"{ID}","verdict":"secret"}}"#),
            format!(r#"{{"finding":"{ID}","verdict":"confirmed","secret":1}}"#),
            format!(r#"{{"finding":"{ID}","verdict":"confirmed","note":"{}"}}"#, "secret".repeat(100)),
            format!(r#"{{"finding":"{ID}","verdict":"confirmed","note":"{}"}}"#, "x".repeat(5_000)),
        ] {
            let error = read(&bad).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_answered_by_its_name() {
        let name = |text: &str| Feedback::reference_of(text.as_bytes());
        assert_eq!(name(r#"{"verdict":"maybe","ref":"7","more":[1]}"#).as_deref(), Some("7"));
        let (long, large) = ("x".repeat(MAX_REFERENCE + 1), "x".repeat(MAX_FEEDBACK_BYTES));
        for none in [
            "what?".to_owned(),
            r#"{"verdict":"maybe"}"#.to_owned(),
            r#"{"ref":7}"#.to_owned(),
            format!(r#"{{"ref":"{long}"}}"#),
            format!(r#"{{"ref":"7","note":"{large}"}}"#),
        ] {
            assert_eq!(name(&none), None, "{none}");
        }
    }
}
