//! A wrapper for values that may identify a person (promise I2).

use std::fmt;

/// A personal value: it cannot be printed, logged or serialised; only [`Personal::expose`] shows it, and
/// outside this crate only `privacy` and the code that builds a command for the person's own device call that.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Personal<T>(T);

impl<T> Personal<T> {
    /// Marks a value as personal.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// Shows the value. Each call is a decision that it may be seen there.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Personal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Personal(…)")
    }
}
