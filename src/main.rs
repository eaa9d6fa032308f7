//! The `nearside` binary.
fn main() {}
