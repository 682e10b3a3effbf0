//! The edge to an instance: one request and one answer, pacing, credentials, retries, and the crawl.
//!
//! Nothing here knows the mirror or the configuration's files.

pub mod absence;
pub mod check;
pub mod crawl;
pub mod probe;

pub mod answer;
pub mod auth;
pub mod auth_state;
pub mod client;
pub mod credentials;
pub mod error;
pub mod filter;
pub mod headers;
pub mod hint;
pub mod http;
pub mod limiter;
pub mod rate;
pub mod retry;
pub mod salvage;
pub mod secret;
pub mod token;
pub mod wire;

#[cfg(test)]
pub(crate) mod script;
