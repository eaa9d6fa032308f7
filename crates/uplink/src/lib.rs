//! Clients to the cloud and their retry classes
