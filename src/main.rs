//! The door: one call, and the code that the shell sees.

use std::process::ExitCode;

use musterd::cli;

fn main() -> ExitCode {
    match cli::run(std::env::args_os()) {
        Ok(exit) => exit.into(),
        Err(error) => {
            cli::exit::print(&error);
            cli::exit::code_of(&error).into()
        }
    }
}
