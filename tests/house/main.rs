//! Tests of the repository itself: its source, and what is said about it.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod claims;
mod imports;
mod tidy;
