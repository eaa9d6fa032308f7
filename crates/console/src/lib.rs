//! The HTTP side: metrics, health, API, pages
