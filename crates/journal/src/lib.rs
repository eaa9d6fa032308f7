//! The ingest log: segments, group commit, recovery
