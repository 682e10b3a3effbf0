//! Secrets: where they stand, and whether they can be had. What they are is never shown.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use config::ValueKind;
use secrecy::SecretString;

use super::Sources;
use super::layers::as_table;
use super::origin::Origin;
use super::value::{Found, Wrong};
use crate::scim::auth::SecretSource;

/// What a secret looks like.
pub(super) const EXPECTED: &str =
    "{ file = \"PATH\" }, { credential = \"NAME\" } or { env = \"NAME\" }";

/// A secret that could be had when the configuration was read.
pub(super) struct Secret {
    /// Where it stands.
    pub(super) source: SecretSource,
    /// What it was.
    pub(super) value: SecretString,
}

const FORM_HINT: &str =
    "write { file = \"PATH\" }, { credential = \"NAME\" } or { env = \"NAME\" }";

/// The ways to name a secret.
const FORMS: [&str; 3] = ["file", "credential", "env"];

/// The most bytes of a secret: no token is so long, and a wrong path may lead to a disk.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

impl Found<'_> {
    /// A secret, which must be there.
    pub(super) fn secret(&self, sources: &Sources) -> Option<Secret> {
        match &self.value.kind {
            ValueKind::String(text) => self.literal(text),
            ValueKind::Table(_) => {
                let (form, found) = self.form()?;
                let ValueKind::String(name) = &found.value.kind else {
                    return found.refuse(Wrong::new("is not text"));
                };
                let secret = match form {
                    "file" => found.secret_file(name),
                    "credential" => found.secret_credential(name, sources),
                    _ => found.secret_variable(name, sources),
                };
                match secret {
                    Ok(secret) => Some(secret),
                    Err(wrong) => found.refuse(wrong),
                }
            }
            _ => self.refuse(Wrong::new("is not a secret").hint(FORM_HINT)),
        }
    }

    fn literal(&self, text: &str) -> Option<Secret> {
        if let Err(what) = check(text) {
            return self.refuse(Wrong::new(what).hint(FORM_HINT));
        }
        let (place, key) = self.origin.place(&self.written);
        self.notes.warning(format!(
            "{place}: `{key}`: the secret itself stands here; keep it in a file of mode 0600 and write {{ file = \"PATH\" }}"
        ));
        self.show(serde_json::Value::Null);
        let value = SecretString::from(text);
        Some(Secret {
            source: SecretSource::Literal(value.clone()),
            value,
        })
    }

    /// The one way in which a table names a secret. A later layer's way replaces an earlier one's.
    fn form(&self) -> Option<(&'static str, Found<'_>)> {
        let table = as_table(self.value)?;
        let mut unknown: Vec<&String> = table
            .keys()
            .filter(|key| !FORMS.contains(&key.as_str()))
            .collect();
        unknown.sort();
        for key in &unknown {
            let at = self.below(key)?;
            at.refuse::<()>(Wrong::new("is not a known key").hint(FORM_HINT));
        }
        let named: Vec<(&'static str, Found<'_>)> = FORMS
            .into_iter()
            .filter_map(|form| Some((form, self.below(form)?)))
            .collect();
        let latest = named.iter().map(|(_, found)| &found.origin).max().cloned();
        let mut latest: Vec<_> = named
            .into_iter()
            .filter(|(_, found)| Some(&found.origin) == latest.as_ref())
            .collect();
        match latest.pop() {
            Some(form) if latest.is_empty() => unknown.is_empty().then_some(form),
            Some(_) => {
                self.refuse(Wrong::new("names a secret in more than one way").hint(FORM_HINT))
            }
            None if unknown.is_empty() => {
                self.refuse(Wrong::new("names no secret").hint(FORM_HINT))
            }
            None => None,
        }
    }

    /// A key of this table.
    fn below(&self, key: &str) -> Option<Found<'_>> {
        let value = as_table(self.value)?.get(key)?;
        Some(Found {
            notes: self.notes,
            value,
            origin: Origin::of(value),
            written: format!("{}.{key}", self.written),
            decides: self.decides.clone(),
            unused: self.unused,
        })
    }

    fn secret_file(&self, text: &str) -> Result<Secret, Wrong> {
        let path = self.origin.resolve(text);
        let (value, mode) = read_file(&path).map_err(|what| {
            Wrong::new(what).hint(
                "it holds the secret on one line, has the mode 0600 and belongs to the account that musterd runs as",
            )
        })?;
        if mode & 0o066 != 0 {
            let (place, key) = self.origin.place(&self.written);
            self.notes.warning(format!(
                "{place}: `{key}`: others than its owner may read or write `{}` (its mode is {:04o}); run `chmod 600` on it",
                path.display(),
                mode & 0o7777,
            ));
        }
        self.show(serde_json::json!({ "file": path.to_string_lossy() }));
        Ok(Secret {
            source: SecretSource::File(path),
            value,
        })
    }

    fn secret_credential(&self, name: &str, sources: &Sources) -> Result<Secret, Wrong> {
        const HINT: &str = "systemd lays credentials out for the unit when it starts (`LoadCredential=`); a command outside of the unit needs { file = \"PATH\" }";
        // systemd.exec(5): a credential's name is a file's name.
        if matches!(name, "" | "." | "..") || name.contains(['/', '\0', ':']) {
            return Err(Wrong::new("cannot name a credential").hint(HINT));
        }
        let folder = sources.env.get(OsStr::new("CREDENTIALS_DIRECTORY"));
        let folder = folder.ok_or_else(|| {
            Wrong::new("there are no credentials here: $CREDENTIALS_DIRECTORY is not set")
                .hint(HINT)
        })?;
        let path = PathBuf::from(folder).join(name);
        let (value, _) = read_file(&path).map_err(|what| Wrong::new(what).hint(HINT))?;
        self.show(serde_json::json!({ "credential": name }));
        Ok(Secret {
            source: SecretSource::Credential {
                name: name.to_owned(),
                path,
            },
            value,
        })
    }

    fn secret_variable(&self, name: &str, sources: &Sources) -> Result<Secret, Wrong> {
        let wrong = |what: &str| {
            Wrong::new(format!("the environment variable `{name}` {what}"))
                .hint("set it to the secret where musterd is started")
        };
        let value = sources.env.get(OsStr::new(name));
        let value = value.ok_or_else(|| wrong("is not set"))?;
        let text = value.to_str().ok_or_else(|| wrong("is not UTF-8 text"))?;
        check(text).map_err(wrong)?;
        self.show(serde_json::json!({ "env": name }));
        let value = SecretString::from(text);
        Ok(Secret {
            source: SecretSource::Env {
                name: name.to_owned(),
                value: value.clone(),
            },
            value,
        })
    }

    /// Notes a mistake without a word of what is written there.
    pub(super) fn refuse<T>(&self, wrong: Wrong) -> Option<T> {
        let mut problem = self.problem(wrong.what);
        if let Some(hint) = wrong.hint {
            problem = problem.hint(hint);
        }
        self.notes.problem(problem);
        None
    }
}

/// Reads a secret's file, and its mode.
fn read_file(path: &Path) -> Result<(SecretString, u32), String> {
    let shown = path.display();
    let cannot =
        |error: std::io::Error| format!("the secret file `{shown}` cannot be read: {error}");
    let metadata = std::fs::metadata(path).map_err(cannot)?;
    if !metadata.is_file() {
        return Err(format!("`{shown}` is not a regular file"));
    }
    if metadata.len() > MAX_SECRET_BYTES {
        return Err(format!("the secret file `{shown}` is too long to be one"));
    }
    let bytes = std::fs::read(path).map_err(cannot)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| format!("the secret file `{shown}` is not UTF-8 text"))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    check(line).map_err(|what| format!("the secret file `{shown}` {what}"))?;
    Ok((SecretString::from(line), metadata.permissions().mode()))
}

/// A secret is one line of text with something in it.
fn check(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        Err("is empty")
    } else if text.chars().any(char::is_control) {
        Err("has more than one line, or a control character")
    } else {
        Ok(())
    }
}
