//! `musterd check`: reads the configuration, then looks at each instance.

mod account;
mod local;
mod unit;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Value, json};

use self::local::{Local, Machine};
use super::exit::Exit;
use super::handover;
use super::output::Output;
use super::outside;
use super::words;
use crate::config::{self, Secrets, Settings};
use crate::control::{Line, Request};
use crate::daemon::link;
use crate::mirror::Reader;
use crate::model::{Foreign, StepOutcome};

/// Check the configuration and this machine, then ask each instance
///
/// Looks at the mirror's folder, at who may read what, at the unit and its credentials. Then asks each instance, step by
/// step: does it answer, how many users does it show, what does it honour of filters and sorting, and does its clock
/// agree with ours; and is anything of it held. Each step says what was found by which request, and how to mend it. Works
/// before the daemon was ever started. Exits 1 if a step failed, else 3 if something is held; a warning changes neither.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: musterd check acme")]
pub(crate) struct Args {
    /// Which instances; all when none is named
    #[arg(value_name = "INSTANCE")]
    instances: Vec<String>,

    /// Look at the configuration and at this machine only
    #[arg(long)]
    offline: bool,

    /// Print JSON, one object an instance
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args, config: PathBuf) -> anyhow::Result<Exit> {
    let settings = config::load(&outside::sources(&config, Secrets::AllButCredentials))?;
    check_mirror(&settings.mirror.path, &settings)?;
    let mut output = Output::stdout();
    if !args.json {
        for warning in &settings.warnings {
            super::exit::note(warning);
        }
        output.text(&format!(
            "configuration: {} in order\n",
            words::count(settings.instances.len() as u64, "instance")
        ))?;
        output.flush()?;
    }
    let machine = Machine {
        config: std::path::absolute(&config).context("where is the working directory")?,
        unit_path: std::env::var_os("SYSTEMD_UNIT_PATH"),
        program: std::env::current_exe().context("where is this program")?,
    };
    let local = local::look(&machine, &settings);
    let is_failed = |found: &Local| found.step.outcome == StepOutcome::Failed;
    let here = match local.iter().any(is_failed) {
        true => Exit::Failed,
        false => Exit::Done,
    };
    if !args.json {
        output.text(&render_local(&local))?;
        output.flush()?;
    }
    if args.offline {
        if args.json {
            output.json(&json!({
                "instances": settings.instances.keys().map(ToString::to_string).collect::<Vec<_>>(),
                "warnings": settings.warnings,
                "local": local,
            }))?;
            output.flush()?;
        }
        return Ok(here);
    }
    let request = Request::Check {
        instances: args.instances,
    };
    let exit = handover::carry_out(&config, request, |line| {
        if let Line::Row(mut found) = line {
            if args.json {
                found["local"] = json!(concerning(&local, &found["instance"]));
                found["warnings"] = json!(settings.warnings);
                output.json(&found)?;
            } else {
                output.text(&render(&found))?;
            }
            output.flush()?;
        }
        Ok(())
    })
    .await?;
    Ok(match exit {
        Exit::Done | Exit::Attention if here == Exit::Failed => here,
        exit => exit,
    })
}

/// What concerns all instances, and what concerns this one.
fn concerning<'a>(local: &'a [Local], instance: &Value) -> Vec<&'a Local> {
    let concerns = |found: &&Local| {
        let of = found.instance.as_deref();
        of.is_none_or(|name| Some(name) == instance.as_str())
    };
    local.iter().filter(concerns).collect()
}

fn render_local(local: &[Local]) -> String {
    let mut lines = "this machine\n".to_owned();
    for found in local {
        lines.push_str(&render_step(&json!(found)));
    }
    lines
}

/// Holds the configuration against the mirror, where there is one already.
fn check_mirror(path: &Path, settings: &Settings) -> anyhow::Result<()> {
    if !path.try_exists()? {
        return Ok(());
    }
    for suffix in ["-wal", "-shm"] {
        let mut companion = path.as_os_str().to_owned();
        companion.push(suffix);
        if !Path::new(&companion).try_exists()? {
            super::exit::note(&format!(
                "`{}` is missing, so that readers without write right cannot open the mirror: a read-write shell \
                 removed it; starting the daemon mends that",
                Path::new(&companion).display()
            ));
        }
    }
    let pinned = Reader::open(path)?.pins()?;
    link::check_pins(&link::pins(settings), &pinned)?;
    Ok(())
}

/// An open hold, and where to look at it.
fn held(hold: &Value) -> String {
    let guard = Foreign(hold["guard"].as_str().unwrap_or("-"));
    let of = hold["attribute"]
        .as_str()
        .map_or_else(String::new, |attribute| {
            format!(" of `{}`", Foreign(attribute))
        });
    let held = words::count(hold["held"].as_u64().unwrap_or_default(), "change");
    format!(
        "{guard}{of}, {held}: see `musterd holds show {}`",
        hold["id"]
    )
}

/// What was found of an instance: each request, and below it what came of it.
fn render(found: &Value) -> String {
    let mut lines = format!("{} ({})\n", text(&found["instance"]), text(&found["url"]));
    let mut asked = None;
    for step in found["steps"].as_array().into_iter().flatten() {
        let request = step["request"].as_str();
        if let Some(request) = request.filter(|_| request != asked) {
            lines.push_str(&format!("  {}\n", Foreign(request)));
            asked = Some(request);
        }
        lines.push_str(&render_step(step));
    }
    for hold in found["holds"].as_array().into_iter().flatten() {
        line(&mut lines, "held", &held(hold));
    }
    let in_part = found["groups_known_in_part"].as_array();
    let in_part: Vec<String> = (in_part.into_iter().flatten())
        .map(|id| format!("`{}`", text(id)))
        .collect();
    if !in_part.is_empty() {
        let says = format!(
            "not all members are known of {}: nobody leaves them until their lists are shown whole",
            in_part.join(", ")
        );
        line(&mut lines, "groups", &says);
    }
    if !found["note"].is_null() {
        line(&mut lines, "taken over", &text(&found["note"]));
    }
    lines
}

fn render_step(step: &Value) -> String {
    let mut lines = String::new();
    let mark = match step["outcome"].as_str() {
        Some("failed") => "FAILED: ",
        Some("warned") => "warning: ",
        Some("unknown") => "unknown: ",
        _ => "",
    };
    let says = format!("{mark}{}", text(&step["says"]));
    line(&mut lines, &label(&text(&step["name"])), &says);
    if !step["mend"].is_null() {
        line(&mut lines, "  what to do", &text(&step["mend"]));
    }
    lines
}

fn line(lines: &mut String, what: &str, says: &str) {
    lines.push_str(&format!("    {what:<22} {says}\n"));
}

fn text(value: &Value) -> String {
    Foreign(value.as_str().unwrap_or("-")).to_string()
}

/// The name of a step, for people.
fn label(name: &str) -> String {
    match name {
        "tls" => "TLS",
        "sign_in" => "sign-in",
        "scim_plugin" => "SCIM plugin",
        "full_sync" => "a full sync",
        "rate_limit" => "its rate limit",
        "filter_by_id_range" => "filter by id, ranges",
        "filter_by_last_modified" => "filter by lastModified",
        "both_filters" => "both joined by `and`",
        name => return name.replace('_', " "),
    }
    .to_owned()
}
