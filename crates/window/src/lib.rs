//! Watermarks and windows over Arrow builders, late and future data
