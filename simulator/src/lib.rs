//! A seeded fleet: city and ward, speaking MQTT like any device
