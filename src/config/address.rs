//! What may be the address of an instance. Credentials are sent there, so that nothing is guessed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

use super::value::Wrong;

/// What an instance's url looks like.
pub(super) const EXPECTED_ORIGIN: &str =
    "scheme and host with nothing after them, such as \"https://acme.service-now.com\"";

/// What a SCIM path looks like.
pub(super) const EXPECTED_SCIM_PATH: &str = "a path such as \"/api/now/scim\"";

/// What a token url looks like.
pub(super) const EXPECTED_TOKEN_URL: &str =
    "an address on the instance itself, such as its url with \"/oauth_token.do\"";

/// Reads an instance's url: scheme, host and port alone.
pub(super) fn parse_origin(text: &str) -> Result<Url, Wrong> {
    let url = parse(text)?;
    if url.path() != "/" {
        return Err(Wrong::new("has a path").hint("the path of SCIM belongs into `scim_path`"));
    }
    Ok(url)
}

/// Reads the address that tokens come from. Credentials go to no other origin than the instance's.
pub(super) fn parse_token_url(text: &str, instance: Option<&Url>) -> Result<Url, Wrong> {
    let url = parse(text)?;
    if instance.is_some_and(|instance| instance.origin() != url.origin()) {
        return Err(Wrong::new("is not on the instance's own host")
            .hint("the credentials of an instance are sent to its `url` only"));
    }
    if url.path() == "/" {
        return Err(Wrong::new("has no path"));
    }
    Ok(url)
}

/// Reads the path that SCIM is below, without a slash at its end: `/` becomes empty.
pub(super) fn parse_scim_path(text: &str) -> Result<String, Wrong> {
    if !text.starts_with('/') {
        return Err(Wrong::new("does not begin with `/`"));
    }
    let path = text.strip_suffix('/').unwrap_or(text);
    let is_plain = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~'))
    };
    if !path.split('/').skip(1).all(is_plain) {
        return Err(Wrong::new("has a part that is no plain name"));
    }
    Ok(path.to_owned())
}

/// Why a text cannot be the URL of a heartbeat. Without any of that text: a part of it is a secret, as a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct NotAnAddress {
    what: String,
    /// What to do about it.
    pub hint: String,
}

/// Reads the URL of a heartbeat: `https`, or `http` on this machine. Path and query may hold anything.
///
/// # Errors
/// What is wrong with it, without a word of what is written there.
pub fn heartbeat_url(text: &str) -> Result<Url, NotAnAddress> {
    const HINT: &str =
        "it is an address such as \"https://hc-ping.com/UUID\", alone on one line of text";
    let refused = |what: String, hint: Option<String>| NotAnAddress {
        what,
        hint: hint.unwrap_or_else(|| HINT.to_owned()),
    };
    let url = parse_any(text).map_err(|wrong| refused(wrong.what, wrong.hint))?;
    if url.fragment().is_some() {
        return Err(refused(
            "has a fragment, which is never sent".to_owned(),
            None,
        ));
    }
    Ok(url)
}

fn parse(text: &str) -> Result<Url, Wrong> {
    let url = parse_any(text)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Wrong::new("has a query or a fragment").shown(without_secrets(text)));
    }
    Ok(url)
}

/// An address that something may be sent to, whatever its path and query are.
fn parse_any(text: &str) -> Result<Url, Wrong> {
    let odd = |c: char| c.is_whitespace() || c.is_control() || c == '\\';
    // The parser would drop or turn these in silence.
    if text.chars().any(odd) {
        return Err(Wrong::new(
            "has a blank, a control character or a backslash in it",
        ));
    }
    let shown = without_secrets(text);
    let url = Url::parse(text)
        .map_err(|error| Wrong::new(format!("is not an address: {error}")).shown(&shown))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Wrong::new("names a user")
            .shown(shown)
            .hint("credentials belong into `auth`"));
    }
    let Some(host) = url.host() else {
        return Err(Wrong::new("has no host").shown(shown));
    };
    let address = match host {
        Host::Domain(_) => None,
        Host::Ipv4(v4) => Some(IpAddr::V4(v4)),
        Host::Ipv6(v6) => Some(embedded_v4(v6).map_or(IpAddr::V6(v6), IpAddr::V4)),
    };
    match address {
        Some(address) if is_link_local(address) => {
            return Err(Wrong::new("is a link-local address")
                .hint("such addresses belong to the host's own network, not to an instance"));
        }
        Some(address) if address.is_unspecified() || address.is_multicast() => {
            return Err(Wrong::new("is not the address of one host"));
        }
        _ => {}
    }
    if url.port() == Some(0) {
        return Err(Wrong::new("has the port 0"));
    }
    let is_loopback = match (host, address) {
        (Host::Domain(name), _) => name == "localhost",
        (_, address) => address.is_some_and(|address| address.is_loopback()),
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback => Ok(url),
        "http" => Err(Wrong::new("is not encrypted")
            .hint("`http://` is accepted for loopback addresses only; write `https://`")),
        _ => Err(Wrong::new("is not an address of the web").shown(shown)),
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped, compatible, or behind NAT64 (RFC 4291
/// section 2.5.5, RFC 6052).
fn embedded_v4(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let [.., high, low] = v6.segments();
    let embeds = match v6.segments() {
        [0, 0, 0, 0, 0, 0, ..] => high != 0,
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => true,
        _ => false,
    };
    embeds.then(|| Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low)))
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// An address as it may be shown: no user information, and nothing from the query on.
fn without_secrets(text: &str) -> String {
    let end = text.find(['?', '#']).unwrap_or(text.len());
    let cut = if end < text.len() { "…" } else { "" };
    let text = &text[..end];
    match (text.find("//"), text.rfind('@')) {
        (Some(slashes), Some(at)) if slashes < at => {
            format!("{}…{}{cut}", &text[..slashes + 2], &text[at..])
        }
        (None, Some(at)) => format!("…{}{cut}", &text[at..]),
        _ => format!("{text}{cut}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(text: &str) -> String {
        parse_origin(text).map_or_else(|wrong| wrong.what, |url| panic!("{text} became {url}"))
    }

    #[test]
    fn an_instance_is_reached_over_https_or_on_this_machine() {
        for good in [
            "https://acme.service-now.com",
            "https://acme.service-now.com/",
            "https://acme.example:8443",
            "https://10.0.0.7",
            "https://[2001:db8::7]",
            "http://127.0.0.1:8080",
            "http://127.8.9.10",
            "http://localhost:1",
            "http://[::1]:8080",
            "http://[::ffff:127.0.0.1]",
        ] {
            assert!(parse_origin(good).is_ok(), "{good}");
        }
        for bad in [
            "http://acme.service-now.com",
            "http://10.0.0.7",
            "http://localhost.acme.example",
            "http://[2001:db8::7]",
        ] {
            assert_eq!(refused(bad), "is not encrypted", "{bad}");
        }
    }

    #[test]
    fn metadata_addresses_are_refused_however_they_are_written() {
        for bad in [
            "http://169.254.169.254",
            "https://169.254.169.254",
            "https://2852039166",
            "https://0xa9.0xfe.0xa9.0xfe",
            "https://[fe80::1]",
            "https://[::ffff:169.254.169.254]",
            "https://[::169.254.169.254]",
            "https://[64:ff9b::a9fe:a9fe]",
        ] {
            assert_eq!(refused(bad), "is a link-local address", "{bad}");
        }
        for bad in [
            "https://0.0.0.0",
            "https://[::]",
            "https://[ff02::1]",
            "https://224.0.0.1",
        ] {
            assert_eq!(refused(bad), "is not the address of one host", "{bad}");
        }
    }

    #[test]
    fn a_url_is_an_origin_and_nothing_else() {
        assert_eq!(refused("https://acme.example/api"), "has a path");
        assert_eq!(
            refused("https://acme.example?a=b"),
            "has a query or a fragment"
        );
        assert_eq!(
            refused("https://acme.example#a"),
            "has a query or a fragment"
        );
        assert_eq!(refused("https://u@acme.example"), "names a user");
        assert_eq!(refused("https://:p@acme.example"), "names a user");
        assert_eq!(
            refused("ftp://acme.example"),
            "is not an address of the web"
        );
        assert_eq!(refused("unix:/run/acme"), "has no host");
        for bad in [
            "",
            "acme",
            "https://",
            "https:// acme",
            "https://a\tb",
            "https://a\\b",
        ] {
            refused(bad);
        }
    }

    #[test]
    fn tokens_come_from_the_instance_itself() {
        let instance = parse_origin("https://acme.example").unwrap();
        let parse = |text| parse_token_url(text, Some(&instance));
        assert!(parse("https://acme.example/oauth_token.do").is_ok());
        assert!(parse("https://acme.example:443/oauth_token.do").is_ok());
        for bad in [
            "https://evil.example/oauth_token.do",
            "https://sub.acme.example/oauth_token.do",
            "https://acme.example.evil.example/oauth_token.do",
            "https://acme.example:8443/oauth_token.do",
            "http://acme.example/oauth_token.do",
            "https://acme.example@evil.example/oauth_token.do",
            "https://acme.example",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_scim_path_has_one_spelling() {
        let read = |text| parse_scim_path(text).ok();
        assert_eq!(read("/").as_deref(), Some(""));
        assert_eq!(read("/api/now/scim/").as_deref(), Some("/api/now/scim"));
        assert_eq!(
            read("/api/now/v1/scim").as_deref(),
            Some("/api/now/v1/scim")
        );
        for bad in [
            "",
            "//",
            "api",
            "/a//b",
            "/a/../b",
            "/a?b",
            "/a#b",
            "/a b",
            "/%2e%2e/a",
        ] {
            assert!(read(bad).is_none(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_of_an_address_has_no_password(
            user in "[a-z:@/]{0,6}",
            host in "[a-z.]{0,6}",
        ) {
            for text in [format!("https://{user}:canary@{host}"), format!("{user}canary@{host}?canary")] {
                prop_assert!(!without_secrets(&text).contains("canary"), "{text}");
            }
        }
    }
}
