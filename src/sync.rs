//! The synchronisation types that mailbox and admission use. They are the standard library's types.
//! When loom checks the protocols (`RUSTFLAGS="--cfg loom" cargo test --release --lib loom`), they
//! are loom's types.

pub(crate) use std::sync::Arc;
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicUsize},
};
#[cfg(not(loom))]
pub(crate) use std::thread::ThreadId;

#[cfg(loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicUsize},
};
#[cfg(loom)]
pub(crate) use loom::thread::ThreadId;

/// The id of the calling thread.
pub(crate) fn current_thread() -> ThreadId {
    #[cfg(not(loom))]
    return std::thread::current().id();
    #[cfg(loom)]
    return loom::thread::current().id();
}
