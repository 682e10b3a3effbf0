//! Ways to log in to a simulated instance, as a configuration spells them.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use musterd::sandbox::{AuthRules, Incoming, Sandbox};

/// How an instance is logged in to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Login {
    ClientCredentials,
    Password,
    RefreshToken,
    Basic,
    Bearer,
}

/// The lines of `[instances.NAME.auth]`.
pub(crate) fn login(login: Login, rules: &AuthRules, sandbox: &Sandbox) -> String {
    let AuthRules {
        client_id,
        client_secret,
        username,
        password,
        ..
    } = rules;
    let client = format!("client_id = {client_id:?}\nclient_secret = {client_secret:?}\n");
    let account = format!("username = {username:?}\npassword = {password:?}\n");
    match login {
        Login::ClientCredentials => format!("type = \"client_credentials\"\n{client}"),
        Login::Password => format!("type = \"password\"\n{client}{account}"),
        Login::RefreshToken => {
            let token = refresh_token(rules, sandbox);
            format!("type = \"refresh_token\"\n{client}refresh_token = {token:?}\n")
        }
        Login::Basic => format!("type = \"basic\"\n{account}"),
        Login::Bearer => format!("type = \"bearer\"\ntoken = {:?}\n", sandbox.issue_token()),
    }
}

/// A refresh token, as a person gets it once by logging in.
fn refresh_token(rules: &AuthRules, sandbox: &Sandbox) -> String {
    let form = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("grant_type", "password"),
            ("client_id", &rules.client_id),
            ("client_secret", &rules.client_secret),
            ("username", &rules.username),
            ("password", &rules.password),
        ])
        .finish();
    let mut headers = HeaderMap::new();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded"),
    );
    let reply = sandbox.answer(&Incoming {
        method: Method::POST,
        path: "/oauth_token.do".to_owned(),
        query: None,
        headers,
        body: Bytes::from(form),
    });
    let answer: serde_json::Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    answer["refresh_token"]
        .as_str()
        .unwrap_or("none")
        .to_owned()
}
