//! The typed configuration, its validation and its generated reference
