//! The bodies of the fuzz targets. Each is a function of bytes that panics where condor and a
//! model disagree; the crate's plain tests include the same files.

pub mod connection;
pub mod framing;
pub mod wheel;
