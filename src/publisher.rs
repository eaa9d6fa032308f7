//! Commands of rules on their way to devices.

use nearside_actors::rules_stage::CommandPublisher;
use nearside_broker::LocalPublisher;
use nearside_schemas::{BoxFuture, Command};

/// Commands go through the front door like any message to a device.
pub struct Publisher(pub LocalPublisher);

impl CommandPublisher for Publisher {
    fn publish<'a>(&'a self, command: &'a Command) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let payload = bytes::Bytes::copy_from_slice(&command.payload);
            self.0.publish(&command.topic, payload, command.qos, command.retain).map_err(|error| error.to_string())
        })
    }
}
