//! The bodies of the fuzz targets. Each is a function of bytes, and panics if condor and a model
//! differ. The crate's plain tests include the same files.

pub mod connection;
pub mod framing;
pub mod faulty_framers;
pub mod handles;
pub mod pairs;
pub mod proxy;
pub mod wheel;
