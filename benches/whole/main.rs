//! What whole processes of `musterd` cost, as ratios to what the same work costs at least, measured side by side in one run.
//!
//! This process holds the server; everything that is measured is a process of its own, the floors included.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark that measures something else than it says stops at once; its result is its output"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark measures real time, and waits for other processes"
)]

mod cli;
mod daemon;
mod delay;
mod directory;
mod feed;
mod floor;
mod groups;
mod growth;
mod home;
mod load;
mod measure;
mod server;
mod sync;
mod table;

use clap::Parser as _;

use cli::Group;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["role:measure", report, program, ref rest @ ..] => measure::launch(report, program, rest),
        ["role:floor", url, users, groups] => floor::read(url, users, groups),
        ["role:write-floor", mirror, copy] => floor::write(mirror, copy),
        ["role:row-floor", mirror, copy] => floor::write_by_row(mirror, copy),
        _ => run(&cli::Cli::parse()),
    }
}

fn run(cli: &cli::Cli) {
    let sizes = cli.sizes();
    let mut figures = table::Figures::default();
    for group in &sizes.groups {
        match group {
            Group::Sync => {
                for &users in &sizes.sync_users {
                    sync::run(users, sizes.rounds, &mut figures);
                }
            }
            Group::Groups => groups::run(&sizes, &mut figures),
            Group::Delay => delay::run(&sizes, &mut figures),
            Group::Daemon => daemon::run(&sizes, &mut figures),
            Group::Load => load::run(&sizes, &mut figures),
            Group::Growth => growth::run(&sizes, &mut figures),
            Group::Feed => feed::run(&sizes, &mut figures),
        }
        // Each group takes minutes, and the next one may fail.
        figures.save(&cli.json_path());
    }
    println!("{figures}");
}
