//! Field policies, envelopes, keys, pseudonyms, sealing
