//! What can be told of this machine by looking at files: the mirror's folder, who may read what, the unit, and the
//! credentials that it loads. Nothing is written, and nobody is asked.

use std::ffi::OsString;
use std::fs::Metadata;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::super::{outside, words};
use super::account::{Account, name_of};
use super::unit::{self, Loaded, Unit};
use crate::config::{INSTANCES_FOLDER, Settings};
use crate::model::{Step, StepOutcome};
use crate::scim::auth::SecretSource;

/// A step on this machine.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Local {
    /// Whose it is; `None` where it concerns all.
    pub(super) instance: Option<String>,
    #[serde(flatten)]
    pub(super) step: Step,
}

/// What a process is surrounded by.
pub(super) struct Machine {
    /// The configuration's file.
    pub(super) config: PathBuf,
    /// `$SYSTEMD_UNIT_PATH`.
    pub(super) unit_path: Option<OsString>,
    /// This program.
    pub(super) program: PathBuf,
}

/// Looks at all of it.
pub(super) fn look(machine: &Machine, settings: &Settings) -> Vec<Local> {
    let unit = Unit::find(machine.unit_path.as_deref());
    let ours = unit.as_ref().filter(|unit| reads(unit, &machine.config));
    let folder = outside::folder_of(&settings.mirror.path);
    let account = Account::of_the_daemon(ours, folder);
    let mut found = Found::default();
    found.host(mirror_folder(folder, ours, account.as_ref()));
    mirror_files(&settings.mirror.path, &mut found);
    configuration_files(machine, settings, account.as_ref(), &mut found);
    secret_files(settings, account.as_ref(), &mut found);
    found.host(unit_step(machine, unit.as_ref(), ours));
    credentials(settings, ours, &mut found);
    found.0
}

/// Steps, as they are found.
#[derive(Default)]
struct Found(Vec<Local>);

impl Found {
    fn host(&mut self, step: Step) {
        self.0.push(Local {
            instance: None,
            step,
        });
    }

    /// What is wrong with some of a number of things of one name; if nothing is, that they are in order.
    fn several(
        &mut self,
        name: &'static str,
        n: usize,
        what: &str,
        wrong: Vec<(Option<String>, Step)>,
    ) {
        if wrong.is_empty() {
            let says = match n {
                0 => format!("no {what}"),
                n => format!("{}, in order", words::count(n as u64, what)),
            };
            return self.host(Step::new(name, StepOutcome::Passed, says));
        }
        let wrong = wrong.into_iter();
        let steps = wrong.map(|(instance, step)| Local { instance, step });
        self.0.extend(steps);
    }
}

/// Whether a unit is the one of this configuration.
fn reads(unit: &Unit, config: &Path) -> bool {
    let of_unit = unit.config();
    match (of_unit.canonicalize(), config.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => of_unit == config,
    }
}

fn mode_of(metadata: &Metadata) -> u32 {
    metadata.mode() & 0o7777
}

fn mirror_folder(folder: &Path, unit: Option<&Unit>, account: Option<&Account>) -> Step {
    let shown = folder.display();
    let step = |outcome, says: String| Step::new("mirror_folder", outcome, says);
    let found = match folder.metadata() {
        Ok(found) if found.is_dir() => found,
        Ok(_file) => {
            return step(StepOutcome::Failed, format!("`{shown}` is not a folder"))
                .mend("correct `mirror.path`");
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if unit.is_some_and(|unit| unit.makes(folder)) {
                let says = format!("`{shown}` is not there yet: the unit makes it when it starts");
                return step(StepOutcome::Passed, says);
            }
            let owner = account.map_or("musterd", |account| &account.name);
            return step(StepOutcome::Failed, format!("`{shown}` is not there")).mend(format!(
                "`sudo install -d -m 0750 -o {owner} -g {owner} {shown}`"
            ));
        }
        Err(error) => return step(StepOutcome::Unknown, unseen(folder, &error)),
    };
    let (owner, mode) = (name_of(found.uid()), mode_of(&found));
    if let Some(account) = account.filter(|account| account.uid != found.uid()) {
        let name = &account.name;
        let says = format!("`{shown}` belongs to {owner}, and the daemon runs as {name}");
        return step(StepOutcome::Failed, says).mend(format!("`sudo chown -R {name}: {shown}`"));
    }
    match mode & 0o027 {
        0 => step(
            StepOutcome::Passed,
            format!("`{shown}` belongs to {owner}, mode {mode:04o}"),
        ),
        _ => step(
            StepOutcome::Warned,
            format!("`{shown}` is open to others than its readers (mode {mode:04o})"),
        )
        .mend(format!("`sudo chmod 0750 {shown}`")),
    }
}

/// What lies beside the mirror is for the daemon alone, but for what readers read.
fn mirror_files(mirror: &Path, found: &mut Found) {
    const PRIVATE: [&str; 4] = [".lock", ".sock", ".stage-", ".auth-"];
    let folder = outside::folder_of(mirror);
    let name = mirror.file_name().unwrap_or_default().to_string_lossy();
    let owner = folder.metadata().map(|folder| folder.uid()).ok();
    let (mut n, mut wrong) = (0, Vec::new());
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let rest = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(rest) = rest.strip_prefix(&*name) else {
            continue;
        };
        let Ok(file) = path.symlink_metadata() else {
            continue;
        };
        n += 1;
        let shown = path.display();
        let step = |outcome, says: String| Step::new("mirror_files", outcome, says);
        let (loose, wanted) = match PRIVATE.iter().any(|private| rest.starts_with(private)) {
            true => (0o077, "0600"),
            false => (0o137, "0640"),
        };
        let mode = mode_of(&file);
        if let Some(owner) = owner.filter(|owner| *owner != file.uid()) {
            let (is, should) = (name_of(file.uid()), name_of(owner));
            let says = format!("`{shown}` belongs to {is}, and the folder to {should}");
            let mend = format!("`sudo chown {should}: {shown}`");
            wrong.push((None, step(StepOutcome::Failed, says).mend(mend)));
        } else if mode & loose != 0 {
            let says = format!("`{shown}` is open to others (mode {mode:04o})");
            let mend = format!("`sudo chmod {wanted} {shown}`");
            wrong.push((None, step(StepOutcome::Warned, says).mend(mend)));
        }
    }
    found.several("mirror_files", n, "mirror file", wrong);
}

fn configuration_files(
    machine: &Machine,
    settings: &Settings,
    account: Option<&Account>,
    found: &mut Found,
) {
    let config = &machine.config;
    let mut sources = secrets(settings).into_iter();
    let has_literal = sources.any(|(_, source)| matches!(source, SecretSource::Literal(_)));
    let entries = std::fs::read_dir(config.with_file_name(INSTANCES_FOLDER));
    let entries = entries.into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "toml")
    });
    paths.push(config.to_owned());
    paths.sort();
    let (mut n, mut wrong) = (0, Vec::new());
    for path in paths {
        let Ok(file) = path.metadata() else { continue };
        n += 1;
        let shown = path.display();
        let step = |outcome, says: String| Step::new("configuration_files", outcome, says);
        let mode = mode_of(&file);
        if let Some(account) = account.filter(|account| !account.may_read(&file)) {
            let says = format!(
                "the daemon runs as {} and cannot read `{shown}`",
                account.name
            );
            let mend = format!(
                "`sudo chgrp {} {shown}` and `sudo chmod 0640 {shown}`",
                account.name
            );
            wrong.push((None, step(StepOutcome::Failed, says).mend(mend)));
        } else if mode & 0o022 != 0 {
            let says = format!("others than its owner may write `{shown}` (mode {mode:04o})");
            let mend =
                format!("`sudo chmod 0640 {shown}`: whoever writes it decides where secrets go");
            wrong.push((None, step(StepOutcome::Warned, says).mend(mend)));
        } else if has_literal && mode & 0o007 != 0 {
            let says = format!(
                "a secret stands in the configuration as it is, and everybody may read `{shown}` (mode {mode:04o})"
            );
            let mend = format!("put it in a file of its own, or `sudo chmod 0640 {shown}`");
            wrong.push((None, step(StepOutcome::Warned, says).mend(mend)));
        }
    }
    found.several("configuration_files", n, "configuration file", wrong);
}

/// All secrets with the instances that they are of.
fn secrets(settings: &Settings) -> Vec<(Option<String>, &SecretSource)> {
    let instances = settings.instances.iter().flat_map(|(name, instance)| {
        let sources = instance.client.auth.sources().into_iter();
        sources.map(move |source| (Some(name.to_string()), source))
    });
    let heartbeat = settings.metrics.heartbeat.iter();
    instances
        .chain(heartbeat.map(|source| (None, source)))
        .collect()
}

fn secret_files(settings: &Settings, account: Option<&Account>, found: &mut Found) {
    let (mut n, mut wrong) = (0, Vec::new());
    for (instance, source) in secrets(settings) {
        let SecretSource::File(path) = source else {
            continue;
        };
        n += 1;
        let shown = path.display();
        let step = |outcome, says: String| Step::new("secret_files", outcome, says);
        let file = match path.metadata() {
            Ok(file) => file,
            Err(error) => {
                wrong.push((
                    instance.clone(),
                    step(StepOutcome::Unknown, unseen(path, &error)),
                ));
                continue;
            }
        };
        let mode = mode_of(&file);
        if let Some(account) = account.filter(|account| !account.may_read(&file)) {
            let says = format!(
                "the daemon runs as {} and cannot read `{shown}`",
                account.name
            );
            let mend = format!(
                "`sudo chown {} {shown}` and `sudo chmod 0600 {shown}`",
                account.name
            );
            wrong.push((instance.clone(), step(StepOutcome::Failed, says).mend(mend)));
        } else if mode & 0o077 != 0 {
            let says = format!("`{shown}` is open to others than its owner (mode {mode:04o})");
            let mend = format!("`sudo chmod 0600 {shown}`");
            wrong.push((instance.clone(), step(StepOutcome::Warned, says).mend(mend)));
        }
    }
    found.several("secret_files", n, "secret file", wrong);
}

fn unit_step(machine: &Machine, unit: Option<&Unit>, ours: Option<&Unit>) -> Step {
    let step = |outcome, says: String| Step::new("unit", outcome, says);
    let Some(unit) = unit else {
        let says = format!(
            "no `{}` is installed where systemd looks for it",
            unit::NAME
        );
        return step(StepOutcome::Unknown, says)
            .mend("install it as README says, if systemd is to run the daemon");
    };
    let shown = unit.path.display();
    if unit.is_masked {
        let says = format!("`{shown}` is masked: systemd does not start it");
        return step(StepOutcome::Failed, says).mend("`sudo systemctl unmask musterd`");
    }
    if ours.is_none() {
        let config = unit.config();
        let says = format!(
            "`{shown}` reads another configuration: `{}`",
            config.display()
        );
        return step(StepOutcome::Unknown, says);
    }
    let Some(program) = unit.program() else {
        return step(StepOutcome::Failed, format!("`{shown}` runs no program"))
            .mend("install it anew, as README says");
    };
    let runs = format!("`{shown}` runs `{}`", program.display());
    match is_same(&program, &machine.program) {
        Ok(true) => step(
            StepOutcome::Passed,
            format!("{runs}, which is this program"),
        ),
        Ok(false) => step(
            StepOutcome::Warned,
            format!("{runs}, which is another program than this one, or another version"),
        )
        .mend("use that one, or install this one there and `sudo systemctl restart musterd`"),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            step(StepOutcome::Failed, format!("{runs}, which is not there"))
                .mend("install the program there")
        }
        Err(error) => step(StepOutcome::Unknown, unseen(&program, &error)),
    }
}

/// Whether two files are one, or hold the same.
fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    let (a, b) = (one.metadata()?, other.metadata()?);
    if (a.dev(), a.ino()) == (b.dev(), b.ino()) {
        return Ok(true);
    }
    Ok(a.len() == b.len() && std::fs::read(one)? == std::fs::read(other)?)
}

fn credentials(settings: &Settings, unit: Option<&Unit>, found: &mut Found) {
    let (mut n, mut wrong) = (0, Vec::new());
    for (instance, source) in secrets(settings) {
        let SecretSource::Credential { name, path } = source else {
            continue;
        };
        n += 1;
        // It was read with the configuration.
        if path.is_some() {
            continue;
        }
        let step = |outcome, says: String| Step::new("credentials", outcome, says);
        let Some(unit) = unit else {
            let says =
                format!("whether the unit loads `{name}` cannot be told: it is not seen here");
            wrong.push((instance.clone(), step(StepOutcome::Unknown, says)));
            continue;
        };
        match unit.credential(name) {
            Some(Loaded::Otherwise) => {}
            Some(Loaded::From(path)) => match path.metadata() {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let shown = path.display();
                    let says =
                        format!("the unit loads `{name}` from `{shown}`, which is not there");
                    let mend = "put the secret there, alone and on one line, or encrypted to this machine by `systemd-creds encrypt`";
                    wrong.push((instance.clone(), step(StepOutcome::Failed, says).mend(mend)));
                }
                // Where root alone may look, root finds it.
                Ok(_) | Err(_) => {}
            },
            None => {
                let says = format!("the unit does not load `{name}`");
                let mend = format!(
                    "`sudo systemctl edit musterd`: `[Service]`, and below it `LoadCredential={name}:FILE`; then restart it"
                );
                wrong.push((instance.clone(), step(StepOutcome::Failed, says).mend(mend)));
            }
        }
    }
    if n > 0 {
        found.several("credentials", n, "credential", wrong);
    }
}

fn unseen(path: &Path, error: &io::Error) -> String {
    format!("`{}` cannot be looked at: {error}", path.display())
}
