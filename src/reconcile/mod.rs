//! The rules: what arrived and what the mirror knows, turned into change events and change records.
//!
//! ```text
//! raw ─head─> id ─fingerprint─> known? ─decode─> canonical ─event─> before, after ─diff─> record ─fold─> state
//! ```
//!
//! No async, no clock, no connection: the same input gives the same output in the same order.

pub mod decode;
pub mod diff;
pub mod event;
pub mod fingerprint;
pub mod fold;

pub mod guard;
pub mod keep;
pub mod members;

pub mod identity;

pub mod canonical;
mod compare;
pub mod mapping;
pub mod names;
mod path;
mod peek;
mod tree;

#[cfg(test)]
mod samples;
