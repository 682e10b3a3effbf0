//! Refusals in the two shapes that the platform has: SCIM's, and its own for whatever is refused
//! before SCIM code runs (facts page, section 11).

use super::json;

/// Why a request is refused, in the words of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// SCIM-shaped (section 11.1).
    Scim {
        /// The status.
        status: u16,
        /// `scimType`.
        scim_type: Option<&'static str>,
        /// `detail`.
        detail: String,
    },
    /// Platform-shaped (section 11.2).
    Platform {
        /// The status.
        status: u16,
        /// `error.message`.
        message: &'static str,
        /// `error.detail`; `null` without one.
        detail: Option<String>,
        /// Headers that belong to it.
        headers: Vec<(&'static str, String)>,
    },
}

impl Refusal {
    /// A SCIM-shaped refusal.
    pub fn scim(status: u16, scim_type: Option<&'static str>, detail: impl Into<String>) -> Self {
        Self::Scim {
            status,
            scim_type,
            detail: detail.into(),
        }
    }

    /// A platform-shaped refusal.
    pub fn platform(status: u16, message: &'static str, detail: Option<&str>) -> Self {
        Self::Platform {
            status,
            message,
            detail: detail.map(str::to_owned),
            headers: Vec::new(),
        }
    }

    /// 400 with `invalidValue`.
    pub fn invalid_value(detail: impl Into<String>) -> Self {
        Self::scim(400, Some("invalidValue"), detail)
    }

    /// 400 with `invalidFilter`; the detail starts as ServiceNow's does.
    pub fn invalid_filter(detail: impl std::fmt::Display) -> Self {
        Self::scim(
            400,
            Some("invalidFilter"),
            format!("Invalid filter: {detail}"),
        )
    }

    /// What a path that no interface has is answered (section 11.2).
    #[must_use]
    pub fn no_such_uri() -> Self {
        Self::platform(400, "Requested URI does not represent any resource", None)
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Scim { status, .. } | Self::Platform { status, .. } => *status,
        }
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Scim {
                status,
                scim_type,
                detail,
            } => json::object(&mut out, |o| {
                o.texts("schemas", &["urn:ietf:params:scim:api:messages:2.0:Error"]);
                o.text("status", &status.to_string());
                o.text("scimType", scim_type.unwrap_or_default());
                o.text("detail", detail);
            }),
            Self::Platform {
                message, detail, ..
            } => json::object(&mut out, |o| {
                o.object("error", |e| {
                    e.text("message", message);
                    match detail {
                        Some(detail) => e.text("detail", detail),
                        None => e.literal("detail", "null"),
                    }
                });
                o.text("status", "failure");
            }),
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_those_of_the_facts_page() {
        let unknown = Refusal::scim(404, None, "User not found 00000000000000000000000000000bad");
        assert_eq!(
            String::from_utf8(unknown.body()).unwrap(),
            r#"{"schemas":["urn:ietf:params:scim:api:messages:2.0:Error"],"status":"404","detail":"User not found 00000000000000000000000000000bad"}"#
        );
        let refused = Refusal::platform(
            401,
            "User is not authenticated",
            Some("Required to provide Auth information"),
        );
        assert_eq!(
            String::from_utf8(refused.body()).unwrap(),
            r#"{"error":{"message":"User is not authenticated","detail":"Required to provide Auth information"},"status":"failure"}"#
        );
        assert!(
            String::from_utf8(Refusal::no_such_uri().body())
                .unwrap()
                .contains(r#""detail":null"#)
        );
    }
}
