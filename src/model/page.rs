//! What a crawl hands on: pages of resources as they arrived, and what became of each of them.

use bytes::Bytes;
use jiff::Timestamp;

use super::base::Base;
use super::id::{ResourceId, ResourceType};
use super::membership::MemberList;
use super::user::TextColumns;

/// One answer of a list request, judged and cut into its resources, not yet decoded.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Where the mirror stood when the request was sent (promise P6).
    pub base: Base,
    /// The resources of the page in the order they arrived.
    pub rows: Vec<Row>,
    /// What could not even be cut out with an id.
    pub rejects: Vec<Reject>,
}

/// One resource as raw text, with the little that is read before it is decoded.
#[derive(Clone, Debug)]
pub struct Row {
    /// The `id`.
    pub id: ResourceId,
    /// `meta.lastModified`, where it could be read.
    pub modified_at: Option<Timestamp>,
    /// The JSON object, a slice of its page. Valid UTF-8 by construction.
    pub raw: Bytes,
}

/// 16 bytes of SHA-256 over what arrived and the mapping's version.
pub type Fingerprint = [u8; 16];

/// A resource decoded into canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Which kind of resource.
    pub resource: ResourceType,
    /// Its id.
    pub id: ResourceId,
    /// The canonical text: without `meta`, `groups` and `members`, every value in its one spelling. `active`
    /// is in it only if the instance sent it.
    pub canonical: String,
    /// `meta.created`, the instance's.
    pub created_at: Option<Timestamp>,
    /// `meta.lastModified`, the instance's; `None` when missing or unreadable.
    pub modified_at: Option<Timestamp>,
    /// The columns that its text has in the mirror, whatever becomes of `active`.
    pub columns: TextColumns,
    /// Who is in it, of a group.
    pub members: Option<MemberList>,
    /// Of the raw text that this came from.
    pub fingerprint: Fingerprint,
}

/// A resource that could not be understood (promise P9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The id, where it could be read: such a user counts as seen.
    pub id: Option<ResourceId>,
    /// What could not be understood, with the JSON path.
    pub reason: String,
    /// The text as it arrived, made valid UTF-8, cut to [`Reject::MAX_BODY_BYTES`].
    pub body: String,
}

impl Reject {
    /// How much of a body is kept: enough to see what is wrong, too little to fill a disk.
    pub const MAX_BODY_BYTES: usize = 4096;

    /// Makes a reject from the bytes that arrived, which need not be UTF-8.
    #[must_use]
    pub fn new(id: Option<ResourceId>, reason: impl Into<String>, body: &[u8]) -> Self {
        let mut text =
            String::from_utf8_lossy(&body[..body.len().min(Self::MAX_BODY_BYTES)]).into_owned();
        text.truncate(text.floor_char_boundary(Self::MAX_BODY_BYTES));
        Self {
            id,
            reason: reason.into(),
            body: text,
        }
    }
}

/// What a page added, told back to the crawl.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageReport {
    /// Ids of the page that this crawl had not seen before, rejects with an id included.
    pub new_ids: u64,
}
