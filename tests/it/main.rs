//! Integration tests: one binary, one file per subject.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says on stderr what it could not run"
)]

mod filled;
mod fleet;
mod harness;
mod ledger;
mod login;
mod world;

mod accounts;
mod backup;
mod chain;
mod check;
mod cli;
mod config;
mod conformance;
mod corruption;
mod crash;
mod credentials;
mod daemon;
mod dry_run;
mod faults;
mod floors;
mod freshness;
mod fuzz;
mod groups;
mod guards;
mod held_members;
mod leaving;
mod link;
mod man;
mod map;
mod members;
mod metrics;
mod moved;
mod odd_servers;
mod operators;
mod package;
mod pins;
mod rate;
mod readme;
mod schema;
mod scim2_server;
mod secrets;
mod simulation;
mod soak;
mod units;
mod wait;
