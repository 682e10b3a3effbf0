//! Who may come in: the token endpoint with its grants, bearer tokens, Basic, and the lock on an
//! account after too many bad passwords (facts page, section 13).

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use jiff::Timestamp;

use super::error::Refusal;
use super::json;

/// Bad passwords in a row that lock an account.
const TRIES: u32 = 5;
/// How long a lock lasts.
const LOCK: Duration = Duration::from_secs(15 * 60);

/// The registry record and the integration user, and what the instance's policy allows.
#[derive(Clone, Debug)]
pub struct AuthRules {
    /// `client_id` of the registry record.
    pub client_id: String,
    /// Its secret.
    pub client_secret: String,
    /// The integration user.
    pub username: String,
    /// Its password.
    pub password: String,
    /// Life of an access token.
    pub access_lifetime: Duration,
    /// Life of a refresh token.
    pub refresh_lifetime: Duration,
    /// Whether `client_credentials` is switched on and has an application user.
    pub client_credentials: bool,
    /// Whether the `password` grant is switched on.
    pub password_grant: bool,
    /// Whether Basic is let in.
    pub basic: bool,
    /// Whether a refresh token is replaced with each use. ServiceNow keeps it.
    pub rotate_refresh: bool,
    /// Whether an access policy is active, so that a refusal names `BEARER`, not `Basic`.
    pub access_policy: bool,
}

impl Default for AuthRules {
    fn default() -> Self {
        Self {
            client_id: "0f3e5d7c9b1a4e62a0c0ffee5a9db0c5".to_owned(),
            client_secret: "sandbox-client-secret".to_owned(),
            username: "sandbox.integration".to_owned(),
            password: "sandbox-password".to_owned(),
            access_lifetime: Duration::from_secs(1_800),
            refresh_lifetime: Duration::from_secs(8_640_000),
            client_credentials: true,
            password_grant: true,
            basic: true,
            rotate_refresh: false,
            access_policy: false,
        }
    }
}

/// What the token endpoint answers: a status and a JSON body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TokenAnswer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// The state behind the rules.
#[derive(Debug)]
pub(super) struct Door {
    rules: AuthRules,
    access: Option<Token>,
    refresh: Option<Token>,
    bad_passwords: u32,
    locked_until: Option<Timestamp>,
}

#[derive(Clone, Debug)]
struct Token {
    text: String,
    expires_at: Timestamp,
}

impl Door {
    /// A door with nobody inside.
    #[must_use]
    pub(super) fn new(rules: AuthRules) -> Self {
        Self {
            rules,
            access: None,
            refresh: None,
            bad_passwords: 0,
            locked_until: None,
        }
    }

    /// The rules, to be read or changed.
    pub(super) fn rules(&mut self) -> &mut AuthRules {
        &mut self.rules
    }

    /// Whether the account is locked.
    #[must_use]
    pub(super) fn is_locked(&self, now: Timestamp) -> bool {
        self.locked_until.is_some_and(|until| now < until)
    }

    /// Answers a token request: `form` is its body, already decoded.
    pub(super) fn token(
        &mut self,
        form: &BTreeMap<String, String>,
        now: Timestamp,
        rng: &mut fastrand::Rng,
    ) -> TokenAnswer {
        let is = |name: &str, value: &str| form.get(name).is_some_and(|given| given == value);
        if !is("client_id", &self.rules.client_id)
            || !is("client_secret", &self.rules.client_secret)
        {
            return access_denied();
        }
        match form.get("grant_type").map(String::as_str) {
            Some("client_credentials") if self.rules.client_credentials => {
                if self.is_locked(now) {
                    return access_denied();
                }
                self.access(now, false, rng)
            }
            Some("client_credentials") => unauthorized_client(),
            Some("password") if self.rules.password_grant => {
                let name = form.get("username").map_or("", String::as_str);
                let password = form.get("password").map_or("", String::as_str);
                if self.knock(name, password, now) {
                    self.access(now, true, rng)
                } else {
                    access_denied()
                }
            }
            Some("refresh_token") => {
                let alive = self.refresh.as_ref().is_some_and(|refresh| {
                    is("refresh_token", &refresh.text) && now < refresh.expires_at
                });
                if !alive || self.is_locked(now) {
                    return access_denied();
                }
                if self.rules.rotate_refresh {
                    self.refresh = None;
                }
                self.access(now, true, rng)
            }
            _ => access_denied(),
        }
    }

    /// Ends a token at once, as `/oauth_revoke_token.do` does.
    pub(super) fn revoke(&mut self, token: &str) {
        for place in [&mut self.access, &mut self.refresh] {
            place.take_if(|held| held.text == token);
        }
    }

    /// Ends the living access token, as a clone onto the instance does.
    pub(super) fn forget_access(&mut self) {
        self.access = None;
    }

    /// Somebody else got the access token before: no more than so much of its life is left.
    pub(super) fn share_access(&mut self, left: Duration, now: Timestamp, rng: &mut fastrand::Rng) {
        self.living(now, rng);
        if let Some(token) = &mut self.access {
            token.expires_at = token.expires_at.min(now + left);
        }
    }

    /// Locks the account, as five bad passwords do.
    pub(super) fn lock(&mut self, now: Timestamp) {
        self.locked_until = Some(now + LOCK);
    }

    /// Lets a request in by its `Authorization` header.
    ///
    /// # Errors
    /// 401, platform-shaped.
    pub(super) fn admit(
        &mut self,
        authorization: Option<&str>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let (scheme, rest) = authorization
            .and_then(|text| text.split_once(' '))
            .unwrap_or_default();
        let admitted = if scheme.eq_ignore_ascii_case("bearer") {
            self.access
                .as_ref()
                .is_some_and(|token| token.text == rest.trim() && now < token.expires_at)
        } else if scheme.eq_ignore_ascii_case("basic") {
            let decoded = base64::engine::general_purpose::STANDARD
                .decode(rest.trim())
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .unwrap_or_default();
            let (name, password) = decoded.split_once(':').unwrap_or_default();
            // A policy that keeps Basic out does so with the right password, too.
            self.knock(name, password, now) && self.rules.basic
        } else {
            false
        };
        if admitted {
            Ok(())
        } else {
            Err(self.refusal())
        }
    }

    /// The 401 of whoever is not let in.
    #[must_use]
    pub(super) fn refusal(&self) -> Refusal {
        let scheme = if self.rules.access_policy {
            "BEARER"
        } else {
            "Basic"
        };
        Refusal::Platform {
            status: 401,
            message: "User is not authenticated",
            detail: Some("Required to provide Auth information".to_owned()),
            headers: vec![(
                "www-authenticate",
                format!("{scheme} realm=\"Service-now\""),
            )],
        }
    }

    /// Tries a password, and counts the bad ones of the account.
    fn knock(&mut self, name: &str, password: &str, now: Timestamp) -> bool {
        if name != self.rules.username || self.is_locked(now) {
            return false;
        }
        self.locked_until = None;
        if password == self.rules.password {
            self.bad_passwords = 0;
            return true;
        }
        self.bad_passwords += 1;
        if self.bad_passwords >= TRIES {
            self.bad_passwords = 0;
            self.locked_until = Some(now + LOCK);
        }
        false
    }

    /// The token that is alive, or a new one.
    pub(super) fn issue(&mut self, now: Timestamp, rng: &mut fastrand::Rng) -> String {
        self.living(now, rng).text.clone()
    }

    fn living(&mut self, now: Timestamp, rng: &mut fastrand::Rng) -> &Token {
        self.access.take_if(|token| token.expires_at <= now);
        let lifetime = self.rules.access_lifetime;
        self.access.get_or_insert_with(|| Token {
            text: opaque(rng, 83),
            expires_at: now + lifetime,
        })
    }

    /// The token that is alive, with the time it has left, or a new one (section 13.1).
    fn access(&mut self, now: Timestamp, refreshes: bool, rng: &mut fastrand::Rng) -> TokenAnswer {
        let access = self.living(now, rng).clone();
        let mut body = Vec::new();
        json::object(&mut body, |o| {
            o.text("access_token", &access.text);
            if refreshes {
                self.refresh.take_if(|token| token.expires_at <= now);
                let lifetime = self.rules.refresh_lifetime;
                let refresh = self.refresh.get_or_insert_with(|| Token {
                    text: opaque(rng, 86),
                    expires_at: now + lifetime,
                });
                o.text("refresh_token", &refresh.text);
            }
            o.text("scope", "useraccount");
            o.text("token_type", "Bearer");
            o.literal(
                "expires_in",
                access.expires_at.duration_since(now).as_secs(),
            );
        });
        TokenAnswer { status: 200, body }
    }
}

/// Wrong user, password or secret, a lock, a grant that is switched off: all the same (S30).
#[must_use]
pub(super) fn access_denied() -> TokenAnswer {
    refused("access_denied", "server_error")
}

fn unauthorized_client() -> TokenAnswer {
    refused("unauthorized client", "unauthorized_client")
}

fn refused(description: &str, error: &str) -> TokenAnswer {
    let mut body = Vec::new();
    json::object(&mut body, |o| {
        o.text("error_description", description);
        o.text("error", error);
    });
    TokenAnswer { status: 401, body }
}

/// Text that says nothing, as tokens are.
fn opaque(rng: &mut fastrand::Rng, length: usize) -> String {
    (0..length)
        .map(|place| {
            if place % 29 == 28 {
                '-'
            } else {
                rng.alphanumeric()
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_second(1_772_000_000 + secs).unwrap()
    }

    fn form(fields: &[(&str, &str)]) -> BTreeMap<String, String> {
        let rules = AuthRules::default();
        let mut form = BTreeMap::from([
            ("client_id".to_owned(), rules.client_id),
            ("client_secret".to_owned(), rules.client_secret),
        ]);
        form.extend(
            fields
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned())),
        );
        form
    }

    fn ask(door: &mut Door, secs: i64, fields: &[(&str, &str)]) -> (u16, serde_json::Value) {
        let mut rng = fastrand::Rng::with_seed(u64::try_from(secs).unwrap());
        let answer = door.token(&form(fields), at(secs), &mut rng);
        (answer.status, serde_json::from_slice(&answer.body).unwrap())
    }

    #[test]
    fn a_living_token_is_given_again_with_the_time_it_has_left() {
        let mut door = Door::new(AuthRules::default());
        let grant = [("grant_type", "client_credentials")];
        let (_, first) = ask(&mut door, 0, &grant);
        let (_, again) = ask(&mut door, 1_797, &grant);
        assert_eq!(first["access_token"], again["access_token"]);
        assert_eq!(first["expires_in"], 1_800);
        assert_eq!(again["expires_in"], 3);
        assert_eq!(first.get("refresh_token"), None);

        let bearer = format!("Bearer {}", first["access_token"].as_str().unwrap());
        assert!(door.admit(Some(&bearer), at(1_799)).is_ok());
        assert!(door.admit(Some(&bearer), at(1_800)).is_err());
        let (_, next) = ask(&mut door, 1_800, &grant);
        assert_ne!(first["access_token"], next["access_token"]);
    }

    #[test]
    fn five_bad_passwords_lock_the_account_for_a_quarter_of_an_hour() {
        let mut door = Door::new(AuthRules::default());
        let good = [
            ("grant_type", "password"),
            ("username", "sandbox.integration"),
            ("password", "sandbox-password"),
        ];
        let mut bad = good;
        bad[2].1 = "guess";
        for second in 0..5 {
            let (status, body) = ask(&mut door, second, &bad);
            assert_eq!(
                (status, body["error"].as_str()),
                (401, Some("server_error"))
            );
        }
        assert_eq!(ask(&mut door, 10, &good).0, 401);
        assert_eq!(
            ask(&mut door, 10, &[("grant_type", "client_credentials")]).0,
            401
        );
        let basic = base64::engine::general_purpose::STANDARD
            .encode("sandbox.integration:sandbox-password");
        let basic = format!("Basic {basic}");
        assert!(door.admit(Some(&basic), at(60)).is_err());
        assert!(door.admit(Some(&basic), at(4 + 900)).is_ok());
        assert_eq!(ask(&mut door, 905, &good).0, 200);
    }

    #[test]
    fn a_refresh_token_stays_unless_the_instance_rotates_it() {
        for rotates in [false, true] {
            let mut door = Door::new(AuthRules {
                rotate_refresh: rotates,
                ..AuthRules::default()
            });
            let login = [
                ("grant_type", "password"),
                ("username", "sandbox.integration"),
                ("password", "sandbox-password"),
            ];
            let (_, first) = ask(&mut door, 0, &login);
            let old = first["refresh_token"].as_str().unwrap();
            let (_, second) = ask(
                &mut door,
                2_000,
                &[("grant_type", "refresh_token"), ("refresh_token", old)],
            );
            assert_eq!(second["refresh_token"].as_str() == Some(old), !rotates);
            let third = ask(
                &mut door,
                2_001,
                &[("grant_type", "refresh_token"), ("refresh_token", old)],
            );
            assert_eq!(third.0, if rotates { 401 } else { 200 });
        }
    }

    #[test]
    fn a_refusal_names_the_scheme_of_the_policy() {
        let mut door = Door::new(AuthRules::default());
        for (policy, words) in [(false, "Basic realm"), (true, "BEARER realm")] {
            door.rules().access_policy = policy;
            let Refusal::Platform { headers, .. } = door.admit(None, at(0)).unwrap_err() else {
                panic!("SCIM-shaped");
            };
            assert!(headers[0].1.starts_with(words));
        }
    }
}
