//! The front door: packets, stored sessions, users.

use nearside_broker::Users;

/// The first byte says where the network cuts, in sixteenths and bytes; the rest is what a connection brings.
pub(super) fn packets(bytes: &[u8]) {
    let (cut, bytes) = super::choice(bytes);
    nearside_broker::fuzz::connection(bytes, bytes.len() * (cut & 15) / 16 + (cut >> 4));
}

/// Sessions and retained messages as they lie on disk, once they are decrypted.
pub(super) fn sessions(bytes: &[u8]) {
    nearside_broker::fuzz::stored(bytes);
}

/// A user file.
pub(super) fn users(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(users) = Users::parse(text) else { return };
    for (name, _) in users.iter() {
        assert!(Users::check_name(name).is_ok(), "a name that is read may be used");
    }
}
