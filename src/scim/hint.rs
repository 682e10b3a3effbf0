//! What a person does about a failure: one sentence for each that somebody can mend.

use super::error::{ExchangeError, Fault, Refusal, What};

/// What to do about `fault`, which came when asking for `what`; `None` where waiting is all.
#[must_use]
pub fn hint(what: What, fault: &Fault) -> Option<&'static str> {
    match fault {
        Fault::Exchange(ExchangeError::TimedOut(_) | ExchangeError::TooLarge { .. })
            if what == What::Credentials =>
        {
            Some("the instance's token endpoint is in trouble")
        }
        Fault::Exchange(error) => exchange_hint(error),
        Fault::Status(refusal) if what == What::Credentials => Some(token_hint(refusal)),
        Fault::Status(refusal) => status_hint(refusal),
        Fault::NotJson(page) if page.hibernating => Some(
            "the instance hibernates: its owner wakes it at developer.servicenow.com, which takes minutes",
        ),
        Fault::NotJson(_) => Some(
            "a login, maintenance or proxy page: open `url` in a browser from this machine, and check `url` and `scim_path`",
        ),
        Fault::ErrorInside { out_of_time, .. } | Fault::Cut { out_of_time, .. } => {
            out_of_time.then_some("the instance ran out of its transaction time: lower `page_size`")
        }
        Fault::NotAsAsked(_) | Fault::TooManyRows { .. } => {
            Some("what answers is not the SCIM API: check `url` and `scim_path`")
        }
        Fault::ToldToWait(_) => Some(
            "the next sync comes when the wait is over; if it happens often, lower `rate`, or have the instance's rate limit rule raised",
        ),
        Fault::Refused {
            by_systemd: true, ..
        }
        | Fault::RefusedBefore {
            by_systemd: true, ..
        } => Some(
            "mend the credential and restart the unit: systemd lays credentials out when a unit starts",
        ),
        Fault::Refused { refusal, .. } => Some(refused_hint(refusal)),
        Fault::RefusedBefore { .. } => {
            Some("mend `auth`, or the account on the instance; changed secrets are tried at once")
        }
        Fault::Secret(error) => Some(error.hint()),
        Fault::State { .. } => Some(
            "the state directory must be writable; a file that cannot be read may be removed, but a rotated refresh token in it is then lost",
        ),
        Fault::NoToken(_) => {
            Some("check `auth.token_url`, and the registry record on the instance")
        }
        Fault::ForeignOrigin { .. } => {
            Some("`auth.token_url` must have the scheme, host and port of `url`")
        }
        Fault::Unreadable { .. } | Fault::Cancelled => None,
    }
}

const REDIRECTED: &str = "redirects are not followed: check `url`; a hibernating instance and single sign-on redirect as well";

/// What to do about a request that got no answer.
#[must_use]
pub fn exchange_hint(error: &ExchangeError) -> Option<&'static str> {
    match error {
        ExchangeError::Resolve(_) => Some("check `url`, and name resolution on this machine"),
        ExchangeError::Connect(_) => Some(
            "check the network, and whether a firewall lets this machine reach the instance; proxies are not used",
        ),
        ExchangeError::Tls(_) => Some(
            "the certificate is checked against this machine's roots: check `url`, the system's clock and `ca-certificates`; something between here and the instance may be opening connections",
        ),
        ExchangeError::TimedOut(_) => Some("lower `page_size`, or raise `timeout`"),
        ExchangeError::TooLarge { .. } => Some("lower `page_size`"),
        ExchangeError::Setup(_) => {
            Some("install this machine's certificate roots (package `ca-certificates`)")
        }
        ExchangeError::Broken(_) => None,
    }
}

fn status_hint(refusal: &Refusal) -> Option<&'static str> {
    if refusal.no_such_api() {
        return Some(
            "check `scim_path`, and that the plugin `com.snc.integration.scim2` is active on the instance",
        );
    }
    match refusal.status.as_u16() {
        300..=399 => Some(REDIRECTED),
        401 => Some(refused_hint(refusal)),
        403 if refusal.html => Some("a proxy or firewall refuses this machine"),
        403 if refusal.says("access scope") => Some(
            "the token's scope lacks the SCIM API: add it to the registry record's scopes, or use scope `useraccount`",
        ),
        403 => Some("the account needs the role `scim_admin`"),
        404 => Some("check `scim_path`"),
        429 => Some("the instance has too little room: lower `rate` and `concurrency`"),
        _ => None,
    }
}

fn token_hint(refusal: &Refusal) -> &'static str {
    match refusal.status.as_u16() {
        300..=399 => REDIRECTED,
        401 => refused_hint(refusal),
        429 | 500..=599 => "the instance's token endpoint is in trouble",
        _ => {
            "check `auth.token_url`, and that OAuth is active on the instance and lets this machine in"
        }
    }
}

fn refused_hint(refusal: &Refusal) -> &'static str {
    if refusal.second_factor {
        return "the instance demands a second factor: use an OAuth client, or an account marked for web service access only";
    }
    match refusal.code.as_deref() {
        Some("unauthorized_client") => {
            "set an OAuth application user on the registry record, and `glide.oauth.inbound.client.credential.grant_type.enabled` to true"
        }
        Some("invalid_grant") => {
            "the refresh token, or the user and password, are no longer valid: issue new ones"
        }
        // Facts page, Q51: the platform says `server_error` to wrong credentials.
        Some(_) => {
            "check client id and secret, that the user is active and not locked, and that the grant is switched on"
        }
        None => {
            "check the user, that it is active and not locked, and the instance's REST API access policy; basic authentication may be restricted there"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{answer, script};
    use super::*;
    use crate::model::ResourceType;

    const LIST: What = What::List(ResourceType::User);

    #[test]
    fn hints_name_what_to_mend() {
        let platform = |text: &str| {
            format!(r#"{{"error":{{"message":"{text}","detail":null}},"status":"failure"}}"#)
        };
        for (what, status, body, words) in [
            (LIST, 403, platform("User Not Authorized"), "`scim_admin`"),
            (
                LIST,
                403,
                platform("Missing required api access scope"),
                "scope",
            ),
            (
                LIST,
                400,
                platform("Requested URI does not represent any resource"),
                "com.snc.integration.scim2",
            ),
            (
                LIST,
                404,
                platform("Requested URI does not represent any resource"),
                "com.snc.integration.scim2",
            ),
            (LIST, 302, String::new(), "redirects are not followed"),
            (LIST, 429, String::new(), "`rate`"),
            (
                LIST,
                401,
                platform("User is not authenticated"),
                "access policy",
            ),
            (
                What::Credentials,
                401,
                r#"{"error":"server_error"}"#.into(),
                "client id and secret",
            ),
            (
                What::Credentials,
                302,
                String::new(),
                "redirects are not followed",
            ),
            (What::Credentials, 404, String::new(), "`auth.token_url`"),
        ] {
            let headers = [("content-type", "application/json")];
            let refusal = answer::refusal(&script::answer(status, &headers, body.as_bytes()));
            let hint = hint(what, &Fault::Status(refusal)).unwrap_or_default();
            assert!(hint.contains(words), "{status} {body}: {hint}");
        }
    }
}
