//! A front door alone, for trying clients by hand: `cargo run -p nearside-broker --example serve -- 127.0.0.1:18830`.

use std::sync::Arc;
use std::time::Duration;

use nearside_broker::{AcceptAll, BrokerConfig, FrontDoor};
use nearside_schemas::SystemClock;
use nearside_telemetry::Telemetry;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listen = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned()).parse()?;
    let config = BrokerConfig { listen, ..BrokerConfig::default() };
    let telemetry = Telemetry::new();
    let door = FrontDoor::bind(config, Arc::new(AcceptAll::new()), Arc::new(SystemClock), &telemetry).await?;
    println!("{}", door.local_addr());
    tokio::signal::ctrl_c().await?;
    door.drain(Duration::from_secs(5)).await;
    println!("{}", telemetry.render());
    Ok(())
}
