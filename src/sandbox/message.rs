//! One request and one answer, as the simulated instance sees them, however they travel.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::error::Refusal;

/// A request.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The method.
    pub method: Method,
    /// The path, percent-encoded as it arrived.
    pub path: String,
    /// What stands behind `?`.
    pub query: Option<String>,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// An answer, and how it gets there.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers, without those of the transport.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// How long the instance takes before it answers.
    pub delay: Duration,
    /// How the answer travels.
    pub delivery: Delivery,
}

/// How an answer travels.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Delivery {
    /// As it should.
    #[default]
    Whole,
    /// The connection is reset before the first byte (facts page, Q56).
    Reset,
    /// The connection is cut when so many bytes of the body are out.
    Cut(usize),
    /// Nothing more comes when so many bytes of the body are out.
    Stalled(usize),
    /// One byte after each such pause.
    Drip(Duration),
    /// The end of the compressed body is missing.
    GzipCut,
    /// In place of the body come so many megabytes of blanks, compressed to next to nothing.
    GzipBomb(u32),
}

impl Incoming {
    /// A header as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Reply {
    /// An answer with a body of this type.
    #[must_use]
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let mut reply = Self::empty(status);
        reply.body = body.into();
        reply.headers.insert(
            http::header::CONTENT_TYPE,
            HeaderValue::from_static(content_type),
        );
        reply
    }

    /// An answer without a body.
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            delay: Duration::ZERO,
            delivery: Delivery::Whole,
        }
    }

    /// A JSON answer.
    #[must_use]
    pub fn json(status: u16, body: impl Into<Bytes>) -> Self {
        Self::new(status, "application/json;charset=UTF-8", body)
    }

    /// An HTML page, as log-in, maintenance and hibernation have it.
    #[must_use]
    pub fn html(status: u16, title: &str, text: &str) -> Self {
        let page = format!(
            "<!DOCTYPE html>\n<html><head><title>{title}</title></head><body><h1>{title}</h1><p>{text}</p></body></html>\n"
        );
        Self::new(status, "text/html;charset=UTF-8", page)
    }

    /// Sets a header; a value that no header can carry is left out.
    pub fn set(&mut self, name: &str, value: &str) {
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_bytes(value.as_bytes()),
        ) {
            self.headers.insert(name, value);
        }
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        let mut reply = Self::json(refusal.status(), refusal.body());
        if let Refusal::Platform { headers, .. } = refusal {
            for (name, value) in headers {
                reply.set(name, &value);
            }
        }
        reply
    }
}
