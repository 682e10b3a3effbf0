//! `[instances.NAME.auth]`: which keys belong to which type, and whose account it is.

use secrecy::ExposeSecret as _;
use secrecy::SecretString;
use url::Url;

use super::Sources;
use super::address;
use super::notes::Notes;
use super::origin::Origin;
use super::secret::{self, Secret};
use super::section::Section;
use super::shown::ShownKey;
use crate::scim::auth::AuthOptions;

/// How to authenticate, and as whom.
pub(super) struct Auth {
    /// For the client.
    pub(super) options: AuthOptions,
    /// The account, as far as the configuration knows it: two instances of one origin may not share it.
    /// Kept secret because of a token it may only be known by.
    pub(super) account: SecretString,
}

#[derive(Clone, Copy)]
enum AuthType {
    ClientCredentials,
    Password,
    RefreshToken,
    Basic,
    Bearer,
}

const TYPES: [(&str, AuthType); 5] = [
    ("client_credentials", AuthType::ClientCredentials),
    ("password", AuthType::Password),
    ("refresh_token", AuthType::RefreshToken),
    ("basic", AuthType::Basic),
    ("bearer", AuthType::Bearer),
];

const TYPE_EXPECTED: &str =
    "\"client_credentials\", \"password\", \"refresh_token\", \"basic\" or \"bearer\"";

/// All keys but `type`.
const KEYS: [&str; 7] = [
    "client_id",
    "client_secret",
    "username",
    "password",
    "refresh_token",
    "token",
    "token_url",
];

impl AuthType {
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::ClientCredentials => &["client_id", "client_secret", "token_url"],
            Self::Password => &[
                "client_id",
                "client_secret",
                "username",
                "password",
                "token_url",
            ],
            Self::RefreshToken => &["client_id", "client_secret", "refresh_token", "token_url"],
            Self::Basic => &["username", "password"],
            Self::Bearer => &["token"],
        }
    }
}

/// Reads `auth` of an instance with the given url.
pub(super) fn read(
    section: Section<'_>,
    url: Option<&Url>,
    notes: &Notes,
    sources: &Sources,
) -> Option<Auth> {
    let mut reader = Reader {
        section,
        url,
        notes,
        sources,
    };
    let auth = reader.read();
    reader.section.known(&KEYS);
    reader.section.close();
    auth
}

struct Reader<'a> {
    section: Section<'a>,
    url: Option<&'a Url>,
    notes: &'a Notes,
    sources: &'a Sources,
}

impl Reader<'_> {
    fn read(&mut self) -> Option<Auth> {
        let found = self.section.required("type", TYPE_EXPECTED)?;
        let auth_type = found.word(&TYPES)?;
        let is_default = |key: &str| key.starts_with("defaults.");
        for key in KEYS
            .into_iter()
            .filter(|key| !auth_type.keys().contains(key))
        {
            let Some(other) = self.section.optional(key) else {
                continue;
            };
            // Where the type was replaced, what belonged to the replaced one is left over.
            let left_over = other.origin < found.origin
                || is_default(&other.written) && !is_default(&found.written);
            if !left_over {
                let problem = other.problem("is not used with this `type`");
                let used: Vec<String> = auth_type.keys().iter().map(|k| format!("`{k}`")).collect();
                self.notes
                    .problem(problem.expected(format!("only {}", used.join(", "))));
            }
        }
        match auth_type {
            AuthType::ClientCredentials => {
                let (client_id, secret, token_url) = (
                    self.client_id(),
                    self.secret("client_secret"),
                    self.token_url(),
                );
                let (client_id, secret, token_url) = (client_id?, secret?, token_url?);
                Some(Auth {
                    account: account("client", &client_id),
                    options: AuthOptions::ClientCredentials {
                        client_id,
                        client_secret: secret.source,
                        token_url,
                    },
                })
            }
            AuthType::Password => {
                let (client_id, secret) = (self.client_id(), self.secret("client_secret"));
                let (username, password) = (self.username(), self.secret("password"));
                let token_url = self.token_url();
                let username = username?;
                Some(Auth {
                    account: user_account(&username),
                    options: AuthOptions::Password {
                        client_id: client_id?,
                        client_secret: secret?.source,
                        username,
                        password: password?.source,
                        token_url: token_url?,
                    },
                })
            }
            AuthType::RefreshToken => {
                let (client_id, secret) = (self.client_id(), self.secret("client_secret"));
                let (token, token_url) = (self.secret("refresh_token"), self.token_url());
                let token = token?;
                Some(Auth {
                    account: account("refresh token", token.identity().expose_secret()),
                    options: AuthOptions::RefreshToken {
                        client_id: client_id?,
                        client_secret: secret?.source,
                        refresh_token: token.source,
                        token_url: token_url?,
                    },
                })
            }
            AuthType::Basic => {
                let (username, password) = (self.username(), self.secret("password"));
                let (username, password) = (username?, password?);
                Some(Auth {
                    account: user_account(&username),
                    options: AuthOptions::Basic {
                        username,
                        password: password.source,
                    },
                })
            }
            AuthType::Bearer => {
                let token = self.secret("token")?;
                Some(Auth {
                    account: account("bearer token", token.identity().expose_secret()),
                    options: AuthOptions::Bearer {
                        token: token.source,
                    },
                })
            }
        }
    }

    fn client_id(&mut self) -> Option<String> {
        const EXPECTED: &str = "the client id of the OAuth registry record";
        self.section.required("client_id", EXPECTED)?.name(EXPECTED)
    }

    fn username(&mut self) -> Option<String> {
        const EXPECTED: &str = "the user name of the integration user";
        self.section.required("username", EXPECTED)?.name(EXPECTED)
    }

    fn secret(&mut self, key: &'static str) -> Option<Secret> {
        let found = self.section.required(key, secret::EXPECTED)?;
        found.secret(self.sources)
    }

    fn token_url(&mut self) -> Option<Url> {
        if let Some(found) = self.section.optional("token_url") {
            return found.text(address::EXPECTED_TOKEN_URL, |text| {
                address::parse_token_url(text, self.url)
            });
        }
        let url = self.url?.join("/oauth_token.do").ok()?;
        let key = self.section.path_of("token_url");
        self.notes.in_force(ShownKey {
            value: url.as_str().into(),
            origin: Origin::BuiltIn,
            written: key.clone(),
            key,
        });
        Some(url)
    }
}

/// ServiceNow does not tell user names apart by case.
fn user_account(username: &str) -> SecretString {
    account("user", &username.to_lowercase())
}

fn account(kind: &str, name: &str) -> SecretString {
    SecretString::from(format!("{kind} {name}"))
}
