//! musterd keeps a local SQLite mirror of ServiceNow user directories, read over SCIM v2, and an
//! exact, ordered feed of what changed in them.
//!
//! # The way of the data
//!
//! ```text
//! schedule ──> sync ──> crawl ──pages──> reconcile ──change events──> diff ──change records──> plan
//!                         │                                                                     │
//!              pacing, auth, retries                                                            │
//!                                                                                               │
//!                  mirror + feed  <── apply, in transactions <───────────────────────────────────┘
//! ```
//!
//! It runs in one direction. [`sync`] reads as the recipe: [`scim::crawl`] hands out pages,
//! [`mirror::stage`] keeps what is not known yet outside the mirror, [`reconcile`] says what a
//! resource's change is, [`mirror::apply`] makes it visible. Nothing flows back but a report.
//!
//! # Floors
//!
//! Imports go down only, and inside one module freely; a test holds the tree to it.
//!
//! | floor | modules | must not know |
//! |---|---|---|
//! | 0 values | [`model`], [`clock`] | input and output of any kind |
//! | 1 rules | [`reconcile`], [`scim::wire`], [`metrics`] | async, SQL, HTTP, the time of day |
//! | 2 edges | the rest of [`scim`], [`mirror`], [`systemd`], the rooms of [`metrics`] | each other, the configuration |
//! | 3 flow | [`sync`], [`schedule`], [`metrics::heartbeat`] | each other, the configuration |
//! | 4 settings | [`config`] | the command line |
//! | 5 assembly | [`control`], [`sandbox`]; [`daemon`] above them | the command line |
//! | 6 door | [`logging`], [`cli`] above it; `main` above both | |
//!
//! # Invariants
//!
//! * [`reconcile`] has no async, no clock and no connection: the same input gives the same output.
//! * Absence is concluded only from a [`model::CompleteCertificate`], and only by the proof of
//!   [`scim::absence`].
//! * Only [`mirror`] contains SQL; only [`scim::http`] uses the network's library; only [`schedule`]
//!   knows the cron crate.
//! * A request leaves through one seam, [`scim::client::Exchange`]: the network, or the [`sandbox`] in process.
//! * Wall time comes from a [`clock::Clock`], waiting goes through `tokio::time`, chance comes from one
//!   seed: all three are arguments.
//! * No `unsafe`, no global mutable state, no `process::exit`.

pub mod clock;
pub mod model;

pub mod reconcile;

pub mod metrics;

pub mod scim;

pub mod mirror;
pub mod systemd;

pub mod schedule;
pub mod sync;

pub mod config;

pub mod control;
pub mod daemon;
pub mod sandbox;

pub mod cli;
pub mod logging;
