//! File descriptors: each connection takes one, and many systems give a process no more than 1,024 until it asks for more.

/// What the gateway has open beside its connections: journal, stores, listeners, the console's connections, folders being looked at.
const BESIDE: u64 = 512;

/// Asks the system for as many descriptors as `connections` need, and says where there are fewer.
pub fn provide(connections: usize) {
    let needed = BESIDE.saturating_add(connections as u64);
    match rlimit::increase_nofile_limit(needed) {
        Ok(given) if given >= needed => {}
        Ok(given) => tracing::warn!(
            "the system lets this process open {given} files, so about {} connections and not {connections} have room; \
             raise the hard limit (ulimit -Hn, or LimitNOFILE={needed} in a systemd unit) or lower max_connections",
            given.saturating_sub(BESIDE),
        ),
        Err(error) => tracing::warn!(%error, "how many files this process may open could not be found out"),
    }
}
