//! How to authenticate, and what that takes: the secrets, the header, the form of a token request.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::error::{ExchangeError, Fault};
use super::secret::SecretSource;

/// How to authenticate (facts page, section 13).
#[derive(Clone, Debug, PartialEq)]
pub enum AuthOptions {
    /// OAuth `client_credentials`.
    ClientCredentials {
        /// Of the registry record.
        client_id: String,
        /// Of the registry record.
        client_secret: SecretSource,
        /// Where tokens come from.
        token_url: Url,
    },
    /// OAuth `password`.
    Password {
        /// Of the registry record.
        client_id: String,
        /// Of the registry record.
        client_secret: SecretSource,
        /// The integration user.
        username: String,
        /// Its password.
        password: SecretSource,
        /// Where tokens come from.
        token_url: Url,
    },
    /// OAuth `refresh_token`.
    RefreshToken {
        /// Of the registry record.
        client_id: String,
        /// Of the registry record.
        client_secret: SecretSource,
        /// The first refresh token; a rotated one is kept in the state directory.
        refresh_token: SecretSource,
        /// Where tokens come from.
        token_url: Url,
    },
    /// HTTP Basic.
    Basic {
        /// The integration user.
        username: String,
        /// Its password.
        password: SecretSource,
    },
    /// A bearer token from elsewhere.
    Bearer {
        /// The token.
        token: SecretSource,
    },
}

impl AuthOptions {
    /// Where tokens come from; `None` where the secret itself is sent with every request.
    #[must_use]
    pub fn token_url(&self) -> Option<&Url> {
        match self {
            Self::ClientCredentials { token_url, .. }
            | Self::Password { token_url, .. }
            | Self::RefreshToken { token_url, .. } => Some(token_url),
            Self::Basic { .. } | Self::Bearer { .. } => None,
        }
    }

    /// The sources of its secrets.
    #[must_use]
    pub fn sources(&self) -> Vec<&SecretSource> {
        match self {
            Self::ClientCredentials { client_secret, .. } => vec![client_secret],
            Self::Password {
                client_secret,
                password,
                ..
            } => vec![client_secret, password],
            Self::RefreshToken {
                client_secret,
                refresh_token,
                ..
            } => vec![client_secret, refresh_token],
            Self::Basic { password, .. } => vec![password],
            Self::Bearer { token } => vec![token],
        }
    }

    /// Whether a secret comes from a systemd credential, which changes by a restart only.
    #[must_use]
    pub fn is_by_systemd(&self) -> bool {
        self.sources().into_iter().any(SecretSource::is_by_systemd)
    }

    /// Reads the secrets, in the order of [`AuthOptions::sources`].
    ///
    /// # Errors
    /// [`Fault::Secret`] with the first that cannot be had.
    pub async fn read(&self) -> Result<Vec<SecretString>, Fault> {
        let sources: Vec<SecretSource> = self.sources().into_iter().cloned().collect();
        let read = move || sources.iter().map(SecretSource::read).collect();
        let secrets: Result<Vec<_>, _> = tokio::task::spawn_blocking(read)
            .await
            .map_err(|error| ExchangeError::Setup(error.into()))?;
        Ok(secrets?)
    }

    /// All that makes these credentials what they are, for a digest.
    #[must_use]
    pub fn parts<'a>(&'a self, secrets: &'a [SecretString]) -> Vec<&'a str> {
        let names = match self {
            Self::ClientCredentials { client_id, .. } => vec!["client_credentials", client_id],
            Self::Password {
                client_id,
                username,
                ..
            } => vec!["password", client_id, username],
            Self::RefreshToken { client_id, .. } => vec!["refresh_token", client_id],
            Self::Basic { username, .. } => vec!["basic", username],
            Self::Bearer { .. } => vec!["bearer"],
        };
        let secrets = secrets.iter().map(|secret| secret.expose_secret());
        names.into_iter().chain(secrets).collect()
    }

    /// What a rotated refresh token descends from: the client and the configured token. A client secret
    /// that was changed voids no token of that client.
    #[must_use]
    pub fn descent<'a>(&'a self, secrets: &'a [SecretString]) -> Vec<&'a str> {
        self.parts(&secrets[secrets.len().saturating_sub(1)..])
    }

    /// The form of a token request (facts page, section 13.1); empty where there is none.
    #[must_use]
    pub fn form(&self, secrets: &[SecretString]) -> Vec<(&'static str, SecretString)> {
        let (names, public): (&[&'static str], Vec<(&'static str, &str)>) = match self {
            Self::ClientCredentials { client_id, .. } => (
                &["client_secret"],
                vec![
                    ("grant_type", "client_credentials"),
                    ("client_id", client_id),
                ],
            ),
            Self::Password {
                client_id,
                username,
                ..
            } => (
                &["client_secret", "password"],
                vec![
                    ("grant_type", "password"),
                    ("client_id", client_id),
                    ("username", username),
                ],
            ),
            Self::RefreshToken { client_id, .. } => (
                &["client_secret", "refresh_token"],
                vec![("grant_type", "refresh_token"), ("client_id", client_id)],
            ),
            Self::Basic { .. } | Self::Bearer { .. } => (&[], Vec::new()),
        };
        let public = public
            .into_iter()
            .map(|(name, value)| (name, SecretString::from(value)));
        public
            .chain(names.iter().copied().zip(secrets.iter().cloned()))
            .collect()
    }

    /// The `Authorization` header of the secret itself, or of a token given for it.
    #[must_use]
    pub fn header(&self, secret: &SecretString) -> SecretString {
        let secret = secret.expose_secret();
        match self {
            Self::Basic { username, .. } => {
                let pair = SecretString::from(format!("{username}:{secret}"));
                format!("Basic {}", BASE64.encode(pair.expose_secret())).into()
            }
            _ => format!("Bearer {secret}").into(),
        }
    }
}
