//! musterd keeps a local SQLite mirror of ServiceNow user directories, read over SCIM v2, and an
//! exact, ordered feed of what changed in them.

pub mod clock;
pub mod model;
pub mod reconcile;
pub mod scim;
pub mod mirror;
pub mod schedule;
pub mod sync;
pub mod systemd;
pub mod config;
pub mod control;
pub mod sandbox;
pub mod daemon;
