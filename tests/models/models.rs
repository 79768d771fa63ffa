//! Models, fuzz bodies and counted allocations: tests that need more crates than the library and its
//! other tests. They are one program, which is linked once.

#[path = "../../fuzz/src/lib.rs"]
pub mod bodies;
#[path = "../support/mod.rs"]
mod support;

mod allocations;
mod calls_model;
mod endpoint_model;
mod framing_model;
mod fuzz_bodies;
mod memory;
mod replies_model;
mod wheel_model;
