//! Operators' feedback between console, broker and streams.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nearside_actors::feedback::FeedbackAnswers;
use nearside_actors::recovery::Progress;
use nearside_broker::{Credentials, LocalPublisher};
use nearside_console::FeedbackPort;
use nearside_schemas::{
    BoxFuture, ClientId, Clock, FEEDBACK_ANSWER_TOPIC, FEEDBACK_TOPIC, FeedbackOutcome, Publish, QoS, Role, Topic,
};

use crate::middle::Current;

/// How long somebody waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// What feedback from the console is journalled under.
const CLIENT: &str = "$console";

/// Feedback from the console.
pub struct GiveFeedback {
    /// The streams in force.
    pub current: Arc<Current>,
    /// Whether they take anything yet.
    pub progress: Arc<Progress>,
    /// Who may.
    pub credentials: Credentials,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

impl FeedbackPort for GiveFeedback {
    fn has_users(&self) -> bool {
        self.credentials.are_kept()
    }

    fn role<'a>(&'a self, name: &'a str, password: &'a str) -> BoxFuture<'a, Option<Role>> {
        Box::pin(self.credentials.check(name, password))
    }

    fn give(&self, body: Vec<u8>) -> BoxFuture<'_, Result<FeedbackOutcome, &'static str>> {
        Box::pin(async move {
            if !self.progress.is_done() {
                return Err("the gateway is still starting and reads its journal; try again in a moment");
            }
            let topic = Topic::new(FEEDBACK_TOPIC).map_err(|_| "this version cannot take feedback")?;
            let publish = Publish {
                client: ClientId::new(CLIENT),
                topic,
                payload: Bytes::from(body),
                qos: QoS::AtLeastOnce,
                packet_id: None,
                retain: false,
                received: self.clock.now(),
            };
            let (answer, answered) = tokio::sync::oneshot::channel();
            let reply = Box::new(move |outcome| {
                // Whoever asked may not wait any more.
                let _ = answer.send(outcome);
            });
            let given = async {
                self.current.give_feedback(publish, reply).await;
                answered.await
            };
            match tokio::time::timeout(PATIENCE, given).await {
                Ok(Ok(Ok(outcome))) => Ok(outcome),
                Ok(Ok(Err(_))) => Err(
                    "it could not be recorded: the gateway is stopping, or its disk is full or fails; try again later",
                ),
                Ok(Err(_)) | Err(_) => Err(
                    "there was no answer in time; it may be recorded all the same, and saying it again does no harm",
                ),
            }
        })
    }
}

/// Says on the answers' topic what became of feedback that came by MQTT, until the gateway is gone.
pub async fn publish_answers(answers: FeedbackAnswers, publisher: LocalPublisher) {
    let Ok(topic) = Topic::new(FEEDBACK_ANSWER_TOPIC) else { return };
    while let Some(answer) = answers.next().await {
        // It is made of texts and numbers.
        let Ok(payload) = serde_json::to_vec(&answer) else { continue };
        if let Err(error) = publisher.publish(&topic, Bytes::from(payload), QoS::AtLeastOnce, false) {
            tracing::debug!(%error, "an answer to feedback was not sent");
        }
    }
}
