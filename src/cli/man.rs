//! `musterd man`: the manual and the completions as files, for a package. Not in the list of commands: it is for
//! those who install musterd, once.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::completions;
use super::exit::{Exit, Failure};

/// Write the manual and the completions of shells, as they lie below /usr/share
///
/// One page for each command, and what bash, zsh and fish need to complete commands and options. Files that are
/// there already are replaced.
#[derive(Debug, clap::Args)]
#[command(hide = true, after_help = "Example: musterd man target/share")]
pub(crate) struct Args {
    /// The folder to write below; it is made if it is not there
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

pub(crate) fn run(args: &Args, mut command: Command) -> anyhow::Result<Exit> {
    // Where Debian's shells look.
    let mut files: Vec<File> = [
        (Shell::Bash, "bash-completion/completions/musterd"),
        (Shell::Zsh, "zsh/vendor-completions/_musterd"),
        (Shell::Fish, "fish/vendor_completions.d/musterd.fish"),
    ]
    .map(|(shell, path)| (path.into(), completions::script(shell, &command)))
    .into();
    // Pages are named by what this works out.
    command.build();
    pages(&command, &mut files).context("cannot render the manual")?;
    for (path, bytes) in files {
        write(&args.folder.join(path), &bytes)?;
    }
    Ok(Exit::Done)
}

/// A file below the folder, and what is in it.
type File = (PathBuf, Vec<u8>);

/// The page of a command, and those of the commands below it.
fn pages(command: &Command, files: &mut Vec<File>) -> io::Result<()> {
    for below in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        pages(below, files)?;
    }
    // What stands after the help has headings of its own. The version is in the page's last line.
    let after = command
        .get_after_long_help()
        .or_else(|| command.get_after_help())
        .map(ToString::to_string);
    let bare = command.clone().after_help(None).after_long_help(None);
    let man = Man::new(bare.version(None))
        .source(concat!("musterd ", env!("CARGO_PKG_VERSION")))
        .manual("musterd");
    let mut page = Vec::new();
    man.render(&mut page)?;
    let mut roff = Roff::new();
    sections(after.as_deref().unwrap_or_default(), &mut roff);
    if command.get_name() != "musterd" {
        roff.control("SH", ["SEE ALSO"]);
        roff.text([bold("musterd"), roman("(1)")]);
    }
    roff.to_writer(&mut page)?;
    files.push((Path::new("man/man1").join(man.get_filename()), page));
    Ok(())
}

/// Paragraphs that begin with `Heading:` become sections. What follows on the same line is running text, or else an
/// example; what follows on lines of its own stays as it is.
fn sections(text: &str, roff: &mut Roff) {
    for paragraph in text.split("\n\n") {
        let Some((heading, body)) = paragraph.split_once(':') else {
            continue;
        };
        roff.control("SH", [heading.to_uppercase().as_str()]);
        let as_it_is = body.starts_with('\n') || heading == "Example";
        if as_it_is {
            roff.control("nf", []);
        }
        for line in body.trim_start_matches('\n').lines() {
            roff.text([roman(line.trim_start())]);
        }
        if as_it_is {
            roff.control("fi", []);
        }
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(path, bytes))
        .map_err(|error| {
            Failure::new(format!("cannot write `{}`", path.display()))
                .because(error)
                .hint("name a folder that you may write to")
        })
}
