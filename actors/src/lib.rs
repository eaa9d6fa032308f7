//! What moves: one actor a file
