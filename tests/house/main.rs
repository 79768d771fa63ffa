//! Tests of the repository itself: its source, and what is said about it.

mod imports;
mod tidy;
