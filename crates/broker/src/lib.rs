//! The MQTT front door; the only crate that names rumqttd
