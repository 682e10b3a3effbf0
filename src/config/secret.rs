//! Secrets: where they stand, and whether they can be had. What they are is never shown.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use config::ValueKind;
use secrecy::SecretString;

use super::layers::as_table;
use super::origin::Origin;
use super::value::{Found, Wrong};
use super::{Secrets, Sources};
use crate::scim::auth::SecretSource;

/// What a secret looks like.
pub(super) const EXPECTED: &str =
    "{ file = \"PATH\" }, { credential = \"NAME\" } or { env = \"NAME\" }";

/// A secret of the configuration.
pub(super) struct Secret {
    /// Where it stands.
    pub(super) source: SecretSource,
    /// What it was when the configuration was read; `None` where it need not be there.
    pub(super) value: Option<SecretString>,
}

impl Secret {
    /// What tells it from other secrets: itself, or the place where it stands.
    pub(super) fn identity(&self) -> SecretString {
        let of_place = || SecretString::from(self.source.place());
        self.value.clone().unwrap_or_else(of_place)
    }
}

const FORM_HINT: &str =
    "write { file = \"PATH\" }, { credential = \"NAME\" } or { env = \"NAME\" }";

/// The ways to name a secret.
const FORMS: [&str; 3] = ["file", "credential", "env"];

/// The most bytes of a secret: no token is so long, and a wrong path may lead to a disk.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

impl Found<'_> {
    /// A secret, which must be there as far as `sources` asks for it.
    pub(super) fn secret(&self, sources: &Sources) -> Option<Secret> {
        match &self.value.kind {
            ValueKind::String(text) => self.literal(text),
            ValueKind::Table(_) => {
                let (form, found) = self.form()?;
                let ValueKind::String(name) = &found.value.kind else {
                    return found.refuse(Wrong::new("is not text"));
                };
                let secret = match form {
                    "file" => found.secret_file(name, sources),
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
            value: Some(value),
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

    fn secret_file(&self, text: &str, sources: &Sources) -> Result<Secret, Wrong> {
        let path = self.origin.resolve(text);
        if sources.secrets == Secrets::None {
            self.show(serde_json::json!({ "file": path.to_string_lossy() }));
            return Ok(Secret {
                source: SecretSource::File(path),
                value: None,
            });
        }
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
            value: Some(value),
        })
    }

    fn secret_credential(&self, name: &str, sources: &Sources) -> Result<Secret, Wrong> {
        const HINT: &str = "systemd lays credentials out for the unit when it starts (`LoadCredential=`): while that runs, it does what commands ask for";
        // systemd.exec(5): a credential's name is a file's name.
        if matches!(name, "" | "." | "..") || name.contains(['/', '\0', ':']) {
            return Err(Wrong::new("cannot name a credential").hint(HINT));
        }
        let folder = sources.env.get(OsStr::new("CREDENTIALS_DIRECTORY"));
        let path = folder.map(|folder| PathBuf::from(folder).join(name));
        let is_needed = match sources.secrets {
            Secrets::All => true,
            Secrets::AllButCredentials => path.as_deref().is_some_and(Path::exists),
            Secrets::None => false,
        };
        let (path, value) = match path {
            Some(path) if is_needed => {
                let (value, _) = read_file(&path).map_err(|what| Wrong::new(what).hint(HINT))?;
                (Some(path), Some(value))
            }
            None if is_needed => {
                let what = format!(
                    "the credential `{name}` is not here: $CREDENTIALS_DIRECTORY is not set"
                );
                return Err(Wrong::new(what).hint(HINT));
            }
            _ => (None, None),
        };
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
        let value = match sources.secrets {
            Secrets::None => None,
            Secrets::All | Secrets::AllButCredentials => {
                let value = sources.env.get(OsStr::new(name));
                let value = value.ok_or_else(|| wrong("is not set"))?;
                let text = value.to_str().ok_or_else(|| wrong("is not UTF-8 text"))?;
                check(text).map_err(wrong)?;
                Some(SecretString::from(text))
            }
        };
        self.show(serde_json::json!({ "env": name }));
        Ok(Secret {
            source: SecretSource::Env {
                name: name.to_owned(),
                value: value.clone().unwrap_or_default(),
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
