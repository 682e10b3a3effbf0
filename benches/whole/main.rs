//! What whole processes of `musterd` cost, as ratios to what the same work costs at least, measured side by side in one run.
//!
//! This process holds the server; everything that is measured is a process of its own, the floors included.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark that measures something else than it says stops at once; its result is its output"
)]

mod cli;
mod directory;
mod floor;
mod home;
mod measure;
mod server;
mod sync;
mod table;

use clap::Parser as _;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["role:measure", report, program, ref rest @ ..] => measure::launch(report, program, rest),
        ["role:floor", url, users] => floor::read(url, users),
        ["role:write-floor", mirror, copy] => floor::write(mirror, copy),
        _ => run(&cli::Cli::parse()),
    }
}

fn run(cli: &cli::Cli) {
    println!("{}", table::machine());
    let mut figures = table::Figures::default();
    for users in cli.sizes() {
        sync::run(users, cli.rounds(), &mut figures);
    }
    println!("{figures}");
    figures.save(&cli.json_path());
}
