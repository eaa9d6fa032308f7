//! The durable queue of sealed summaries
