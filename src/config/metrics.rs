//! `[metrics]`: who is told how the daemon is, beside the log.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret as _;

use super::Sources;
use super::address;
use super::notes::Notes;
use super::section::Section;
use super::settings::MetricsSettings;
use super::value::{Found, Wrong};
use crate::scim::auth::SecretSource;

const TEXTFILE: &str = "an absolute path, such as \"/var/lib/node_exporter/textfile/musterd.prom\"";
const LISTEN: &str = "a loopback address and a port, such as \"127.0.0.1:9718\" or \"[::1]:9718\"";

/// Reads `[metrics]`, all of whose keys may be missing.
pub(super) fn read(
    mut section: Section<'_>,
    notes: &Notes,
    sources: &Sources,
) -> Option<MetricsSettings> {
    let textfile = section
        .optional("textfile")
        .map(|found| read_textfile(&found, notes));
    let listen = section
        .optional("listen")
        .map(|found| found.text(LISTEN, parse_listen));
    let heartbeat = section
        .optional("heartbeat")
        .map(|found| read_heartbeat(&found, sources));
    section.close();
    // A key that is there and could not be read makes nothing of it all.
    Some(MetricsSettings {
        textfile: told(textfile)?,
        listen: told(listen)?,
        heartbeat: told(heartbeat)?,
    })
}

fn told<T>(key: Option<Option<T>>) -> Option<Option<T>> {
    match key {
        None => Some(None),
        Some(read) => read.map(Some),
    }
}

fn read_textfile(found: &Found<'_>, notes: &Notes) -> Option<PathBuf> {
    let path = found.text(TEXTFILE, parse_textfile)?;
    // It may come: a disk that is mounted late is no reason to mirror nobody. It is not made here, with a wrong name or a wrong
    // owner, where nobody would look for metrics.
    if !path.parent().is_some_and(Path::is_dir) {
        let (place, key) = found.origin.place(&found.written);
        notes.warning(format!(
            "{place}: `{key}`: `{}` is in a folder that is not there: make it, writable for the account that musterd runs as, \
             or correct the path",
            path.display()
        ));
    }
    Some(path)
}

fn parse_textfile(text: &str) -> Result<PathBuf, Wrong> {
    if text.chars().any(char::is_control) {
        return Err(Wrong::new("has a control character in it"));
    }
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err(Wrong::new("does not begin with `/`"));
    }
    if text.ends_with('/') || path.file_name().is_none() || path.is_dir() {
        return Err(Wrong::new("is not the path of a file"));
    }
    // What has this name is replaced, and removed when the key goes: it must be a file of metrics.
    if path.extension().is_none_or(|extension| extension != "prom") {
        return Err(Wrong::new("does not end in `.prom`")
            .hint("a node exporter reads only files whose name ends so"));
    }
    Ok(path.to_owned())
}

fn parse_listen(text: &str) -> Result<SocketAddr, Wrong> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| Wrong::new("is not an address with a port"))?;
    if !address.ip().is_loopback() {
        return Err(Wrong::new("is not a loopback address").hint(
            "whoever reaches this port reads the metrics, unencrypted and without a login: let an agent or a proxy on \
             this machine fetch them",
        ));
    }
    Ok(address)
}

fn read_heartbeat(found: &Found<'_>, sources: &Sources) -> Option<SecretSource> {
    let secret = found.secret(sources)?;
    let Some(value) = &secret.value else {
        return Some(secret.source);
    };
    match address::heartbeat_url(value.expose_secret()) {
        Ok(_url) => Some(secret.source),
        Err(wrong) => {
            let what = format!("the URL that it holds {wrong}");
            found.refuse(Wrong::new(what).hint(wrong.hint))
        }
    }
}
