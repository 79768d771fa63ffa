//! The synchronisation that mailbox and admission are built on: the standard library's, or loom's
//! when their protocols are model-checked
//! (`RUSTFLAGS="--cfg loom" cargo test --release --lib loom`).

pub(crate) use std::sync::Arc;
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicUsize},
};

#[cfg(loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicUsize},
};
