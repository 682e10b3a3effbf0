//! Secrets and where they come from. They are read again whenever they are used, so that a rotated
//! one counts at once.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use secrecy::{ExposeSecret as _, SecretString};

/// Where a secret comes from. Files are read again for every token request.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// A file; a trailing line break is not part of the secret.
    File(PathBuf),
    /// A systemd credential: a file in `$CREDENTIALS_DIRECTORY`.
    Credential {
        /// Its name.
        name: String,
        /// The file; `None` where systemd laid none out for this process.
        path: Option<PathBuf>,
    },
    /// An environment variable, read when the configuration was.
    Env {
        /// Its name.
        name: String,
        /// What it held.
        value: SecretString,
    },
    /// Written into the configuration (warned about).
    Literal(SecretString),
}

impl PartialEq for SecretSource {
    /// For telling whether a configuration changed: not in constant time.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(a), Self::File(b)) => a == b,
            (
                Self::Credential { name: a, path: at },
                Self::Credential {
                    name: b,
                    path: other_at,
                },
            ) => (a, at) == (b, other_at),
            (
                Self::Env { name: a, value },
                Self::Env {
                    name: b,
                    value: other,
                },
            ) => a == b && value.expose_secret() == other.expose_secret(),
            (Self::Literal(a), Self::Literal(b)) => a.expose_secret() == b.expose_secret(),
            _ => false,
        }
    }
}

/// A secret that cannot be had. Says where it was looked for, never what was found.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read the secret file `{}`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not a file, or longer than any secret.
    #[error("the secret file `{}` is no regular file of at most {MAX_BYTES} bytes", path.display())]
    NotASecret {
        /// The file.
        path: PathBuf,
    },
    /// A credential that systemd did not lay out for this process.
    #[error("the credential `{name}` is not here: systemd lays it out for the unit alone")]
    NotHere {
        /// Its name.
        name: String,
    },
    /// Nothing in it.
    #[error("the secret in {place} is empty")]
    Empty {
        /// The file or variable.
        place: String,
    },
    /// Bytes that no header and no form can carry.
    #[error("the secret in {place} has characters that cannot be sent")]
    Unsendable {
        /// The file or variable.
        place: String,
    },
}

/// No secret is longer: a JWT has some thousand bytes.
const MAX_BYTES: u64 = 64 * 1024;

impl SecretSource {
    /// Reads the secret. Does file I/O: not for the runtime's own threads.
    ///
    /// # Errors
    /// [`SecretError`], which names the place.
    pub fn read(&self) -> Result<SecretString, SecretError> {
        let secret = match self {
            Self::File(path)
            | Self::Credential {
                path: Some(path), ..
            } => self.read_file(path)?,
            Self::Credential { name, path: None } => {
                return Err(SecretError::NotHere { name: name.clone() });
            }
            Self::Env { value, .. } | Self::Literal(value) => value.clone(),
        };
        let text = secret.expose_secret();
        if text.is_empty() {
            return Err(SecretError::Empty {
                place: self.place(),
            });
        }
        if text.chars().any(char::is_control) {
            return Err(SecretError::Unsendable {
                place: self.place(),
            });
        }
        Ok(secret)
    }

    /// What is unwise about the place, as a sentence: a file that others can read.
    ///
    /// systemd alone decides about the mode of its credentials.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let Self::File(path) = self else { return None };
        let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
        (mode & 0o077 != 0).then(|| {
            format!(
                "the secret file `{0}` can be read by others (mode {mode:04o}): `chmod 600 {0}`",
                path.display()
            )
        })
    }

    /// Whether systemd laid it out when the unit started, so that it changes by a restart only.
    #[must_use]
    pub fn is_by_systemd(&self) -> bool {
        matches!(self, Self::Credential { .. })
    }

    fn read_file(&self, path: &PathBuf) -> Result<SecretString, SecretError> {
        let unreadable = |source| SecretError::Unreadable {
            path: path.clone(),
            source,
        };
        // Asked before opening: opening a pipe would wait for its writer.
        let metadata = std::fs::metadata(path).map_err(unreadable)?;
        if !metadata.is_file() || metadata.len() > MAX_BYTES {
            return Err(SecretError::NotASecret { path: path.clone() });
        }
        let mut text = String::new();
        let file = File::open(path).map_err(unreadable)?;
        file.take(MAX_BYTES)
            .read_to_string(&mut text)
            .map_err(|source| match source.kind() {
                io::ErrorKind::InvalidData => SecretError::Unsendable {
                    place: self.place(),
                },
                _ => unreadable(source),
            })?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        Ok(SecretString::from(line.strip_suffix('\r').unwrap_or(line)))
    }

    /// Where it stands, in words.
    #[must_use]
    pub fn place(&self) -> String {
        match self {
            Self::File(path) => format!("the file `{}`", path.display()),
            Self::Credential { name, .. } => format!("the credential `{name}`"),
            Self::Env { name, .. } => format!("the environment variable `{name}`"),
            Self::Literal(_) => "the configuration".to_owned(),
        }
    }
}

impl SecretError {
    /// What a person does about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => {
                "the file must exist and the account that musterd runs as must be able to read it"
            }
            Self::NotHere { .. } => {
                "start the daemon (`sudo systemctl start musterd`), which then answers; or run this with the credential: \
                 `sudo systemd-run --pipe --wait -p User=musterd -p LoadCredential=NAME:FILE musterd check`"
            }
            Self::NotASecret { .. } | Self::Empty { .. } | Self::Unsendable { .. } => {
                "put the secret alone into it, as one line of text"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &[u8], mode: u32) -> (tempfile::TempDir, SecretSource) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (dir, SecretSource::File(path))
    }

    #[test]
    fn one_line_break_at_the_end_is_not_part_of_the_secret() {
        for (text, secret) in [
            ("s3cret", "s3cret"),
            ("s3cret\n", "s3cret"),
            ("s3cret\r\n", "s3cret"),
            (" s 3 \n", " s 3 "),
        ] {
            let (_dir, source) = file(text.as_bytes(), 0o600);
            assert_eq!(source.read().unwrap().expose_secret(), secret);
        }
    }

    #[test]
    fn what_is_no_secret_is_an_error_that_does_not_show_it() {
        for text in [&b""[..], b"\n", b"hush\nhush\n", b"hush\xff"] {
            let (_dir, source) = file(text, 0o600);
            let error = source.read().unwrap_err();
            assert!(
                !format!("{error} {error:?}").contains("hush"),
                "{error} {error:?}"
            );
        }
        let (dir, _) = file(b"", 0o600);
        let missing = SecretSource::File(dir.path().join("missing"));
        assert!(missing.read().unwrap_err().to_string().contains("missing"));
        let folder = SecretSource::File(dir.path().to_owned());
        assert!(matches!(folder.read(), Err(SecretError::NotASecret { .. })));
    }

    #[test]
    fn a_file_that_others_can_read_is_warned_about() {
        for (mode, warned) in [
            (0o600, false),
            (0o400, false),
            (0o640, true),
            (0o604, true),
            (0o666, true),
        ] {
            let (_dir, source) = file(b"x", mode);
            assert_eq!(source.warning().is_some(), warned, "{mode:o}");
        }
    }
}
