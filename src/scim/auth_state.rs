//! What must be remembered of credentials across restarts: a rotated refresh token, and which
//! credentials were refused. One small file of mode 0600.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::error::Fault;

/// The file's content.
#[derive(Clone, Serialize, Deserialize)]
pub struct AuthState {
    /// Makes digests worthless outside this file.
    salt: String,
    /// A refresh token that the instance gave us in place of the configured one.
    pub rotated: Option<Rotated>,
    /// Credentials that were refused.
    pub refused: Option<Refused>,
}

/// A rotated refresh token.
#[derive(Clone, Serialize, Deserialize)]
pub struct Rotated {
    /// The token.
    pub refresh_token: String,
    /// The digest of what it descends from, client and configured token: when those change, it is void.
    pub derived_from: Digest,
}

/// Credentials that were refused.
#[derive(Clone, Serialize, Deserialize)]
pub struct Refused {
    /// When, by our clock.
    pub at: Timestamp,
    /// Which.
    pub digest: Digest,
    /// What was answered: the instance's text, capped, without a secret.
    #[serde(default)]
    pub said: Option<String>,
}

/// A salted digest: tells whether credentials changed, not what they are.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest(String);

impl AuthState {
    /// Reads the file; a missing one is an empty state.
    ///
    /// # Errors
    /// [`Fault::State`].
    pub async fn load(path: &Path) -> Result<Self, Fault> {
        let fault = |source| fault("read", path, source);
        let path = path.to_owned();
        let read = tokio::task::spawn_blocking(move || match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::fresh(),
            Err(error) => Err(error),
            // What serde_json complains about is a position and a type, never the token.
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                let place = format!("line {}, column {}", error.line(), error.column());
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("no valid JSON at {place}"),
                )
            }),
        });
        read.await
            .map_err(io::Error::other)
            .flatten()
            .map_err(fault)
    }

    /// Replaces the file in one step, and returns when it would survive a power cut.
    ///
    /// # Errors
    /// [`Fault::State`]; the old file is then still there.
    pub async fn save(&self, path: &Path) -> Result<(), Fault> {
        let fault = |source| fault("write", path, source);
        let path = path.to_owned();
        let state = self.clone();
        let written = tokio::task::spawn_blocking(move || state.write(&path));
        written
            .await
            .map_err(io::Error::other)
            .flatten()
            .map_err(fault)
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        // Made with mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer(&mut file, self)?;
        file.flush()?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(folder)?.sync_all()
    }

    /// The digest of credentials, given as their parts.
    #[must_use]
    pub fn digest(&self, parts: &[&str]) -> Digest {
        let mut hash = Sha256::new();
        for part in [self.salt.as_str()].iter().chain(parts) {
            // With its length, so that no two lists of parts hash the same bytes.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Digest(BASE64.encode(hash.finalize()))
    }

    fn fresh() -> io::Result<Self> {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(io::Error::other)?;
        Ok(Self {
            salt: BASE64.encode(salt),
            rotated: None,
            refused: None,
        })
    }
}

fn fault(verb: &'static str, path: &Path, source: io::Error) -> Fault {
    Fault::State {
        verb,
        path: PathBuf::from(path),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn it_is_kept_in_a_file_of_mode_0600() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("acme.auth");
        let mut state = AuthState::load(&path).await.unwrap();
        state.rotated = Some(Rotated {
            refresh_token: "r2".into(),
            derived_from: state.digest(&["r1"]),
        });
        state.save(&path).await.unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = AuthState::load(&path).await.unwrap();
        assert_eq!(again.rotated.as_ref().unwrap().refresh_token, "r2");
        assert!(again.digest(&["r1"]) == again.rotated.as_ref().unwrap().derived_from);
        assert!(again.digest(&["r", "1"]) != again.digest(&["r1"]));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_named_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("acme.auth");
        std::fs::write(&path, r#"{"salt":"x","rotated":{"refresh_token":"hush"#).unwrap();
        let Err(fault) = AuthState::load(&path).await else {
            panic!("half a file was read");
        };
        let text = format!("{fault} {fault:?}");
        assert!(
            text.contains("acme.auth") && !text.contains("hush"),
            "{text}"
        );
        let nowhere = dir.path().join("missing").join("acme.auth");
        let state = AuthState::fresh().unwrap();
        assert!(matches!(
            state.save(&nowhere).await,
            Err(Fault::State { verb: "write", .. })
        ));
    }
}
