//! Tests of the repository itself: its source and its documents.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod claims;
mod imports;
mod tidy;
