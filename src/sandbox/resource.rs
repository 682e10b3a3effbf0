//! Requests for resources, once they are let in: lists, single ones, and writes (facts page, sections
//! 3, 4 and 10).

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::answer::{Core, not_allowed};
use super::directory::Directory;
use super::effect::Effect;
use super::error::Refusal;
use super::headers;
use super::list::Listing;
use super::message::{Incoming, Reply};
use super::query::Parameters;
use super::render::Renderer;
use super::resource_type::Resource;
use super::shape::Shape;
use super::sight::{Sight, not_found};
use super::table::{Table, place};
use super::write::{Draft, Verb};

/// A request with what was read from it.
pub(super) struct Question<'a> {
    /// The request.
    pub(super) incoming: &'a Incoming,
    /// Its query parameters.
    pub(super) parameters: Parameters,
    /// What links start with.
    pub(super) base: String,
    /// The effects that met it.
    pub(super) effects: &'a [Effect],
    /// When it came.
    pub(super) now: Timestamp,
}

impl Core {
    /// `/Users` or `/Groups`, and what is below it.
    pub(super) fn resources<T: Resource>(
        &mut self,
        id: Option<&str>,
        question: &Question<'_>,
    ) -> Result<Reply, Refusal> {
        match (question.incoming.method.as_str(), id) {
            ("GET", None) => self.list::<T>(question),
            ("GET", Some(id)) => self.get::<T>(id, question),
            ("POST", None) => self.write::<T>(Verb::Post, "", question),
            ("PUT", Some(id)) => self.write::<T>(Verb::Put, id, question),
            ("PATCH", Some(id)) => self.write::<T>(Verb::Patch, id, question),
            ("DELETE", Some(id)) if T::delete(&mut self.directory, id, question.now) => {
                Ok(Reply::empty(204))
            }
            ("DELETE", Some(id)) => {
                let what = T::TYPE.to_ascii_lowercase();
                let detail = format!("Invalid {what} id {id}");
                Err(Refusal::scim(404, None, detail))
            }
            (_, None) => Err(not_allowed("GET, POST")),
            (_, Some(_)) => Err(not_allowed("GET, PUT, PATCH, DELETE")),
        }
    }

    /// `/Departments` and its like: read-only.
    pub(super) fn named(
        &self,
        table: Table,
        id: Option<&str>,
        question: &Question<'_>,
    ) -> Result<Reply, Refusal> {
        if question.incoming.method != http::Method::GET {
            return Err(not_allowed("GET"));
        }
        let Some(id) = id else {
            let listing = Listing {
                directory: &self.directory,
                base: &question.base,
                effects: &[],
            };
            let body = listing.named(table, &question.parameters)?;
            return Ok(Reply::json(200, body));
        };
        let row = self.directory.name(table, id).ok_or_else(|| {
            let what = table.resource_type();
            Refusal::scim(404, None, format!("{what} not found {id}"))
        })?;
        let projection = question.parameters.projection()?;
        let mut body = Vec::new();
        Renderer::new(&self.directory, &question.base, &projection, &[])
            .named(table, row, &mut body);
        Ok(Reply::json(200, body))
    }

    fn list<T: Resource>(&mut self, question: &Question<'_>) -> Result<Reply, Refusal> {
        let directory = node(&self.directory, question);
        let listing = Listing {
            directory: &directory,
            base: &question.base,
            effects: question.effects,
        };
        let mut order = self.chance.fork();
        let mut shape = Shape {
            raw: &self.raw,
            effects: question.effects,
            rng: &mut order,
        };
        let body = listing.page::<T>(&question.parameters, &mut shape, &mut self.chance)?;
        Ok(Reply::json(200, body))
    }

    fn get<T: Resource>(&mut self, id: &str, question: &Question<'_>) -> Result<Reply, Refusal> {
        let projection = question.parameters.projection()?;
        let directory = node(&self.directory, question);
        let rows = T::rows(&directory);
        let mut place = place(rows, id);
        if question.effects.contains(&Effect::AnotherUser) && rows.len() > 1 {
            // What is not there would stand where the next one does.
            place = Ok(place.map_or_else(|next| next, |own| own + 1) % rows.len());
        }
        let row = place.map_err(|_| not_found::<T>(id))?;
        let row = rows[row].as_ref();
        if let Some(refusal) = Sight::of(question.effects).refusal(row, id) {
            return Err(refusal);
        }
        let renderer = Renderer::new(&directory, &question.base, &projection, question.effects);
        let mut order = self.chance.fork();
        let body = shown(row, &renderer, question, &self.raw, &mut order);
        Ok(Reply::json(200, body))
    }

    fn write<T: Resource>(
        &mut self,
        verb: Verb,
        id: &str,
        question: &Question<'_>,
    ) -> Result<Reply, Refusal> {
        if !headers::has_json_body(question.incoming) {
            return Err(Refusal::platform(415, "Unsupported media type", None));
        }
        let projection = question.parameters.projection()?;
        let row = T::write(Draft {
            verb,
            id,
            body: &question.incoming.body,
            directory: &mut self.directory,
            ids: &mut self.ids,
            now: question.now,
        })?;
        let directory = &self.directory;
        let renderer = Renderer::new(directory, &question.base, &projection, question.effects);
        let mut order = self.chance.fork();
        let body = shown(row.as_ref(), &renderer, question, &self.raw, &mut order);
        match verb {
            Verb::Post => {
                let mut reply = Reply::json(201, body);
                let place = format!("{}/{}/{}", question.base, T::ENDPOINT, row.sys_id());
                reply.set("location", &place);
                Ok(reply)
            }
            Verb::Patch if T::patches_in_silence(self.options()) => Ok(Reply::empty(204)),
            Verb::Put | Verb::Patch => Ok(Reply::json(200, body)),
        }
    }
}

/// A resource as this request shows it.
fn shown<T: Resource>(
    row: &T,
    renderer: &Renderer<'_>,
    question: &Question<'_>,
    raw: &BTreeMap<String, Vec<u8>>,
    order: &mut fastrand::Rng,
) -> Vec<u8> {
    let mut shape = Shape {
        raw,
        effects: question.effects,
        rng: order,
    };
    let mut body = Vec::new();
    shape.resource(renderer, row, &mut body);
    body
}

/// The tables as the node that answers knows them: one may lag behind (Q6).
fn node<'a>(directory: &'a Directory, question: &Question<'_>) -> Cow<'a, Directory> {
    let lag = question.effects.iter().find_map(|effect| match effect {
        Effect::NodeBehind { seconds } => Some(i64::try_from(*seconds).unwrap_or(i64::MAX)),
        _ => None,
    });
    lag.map_or(Cow::Borrowed(directory), |lag| {
        let lag = SignedDuration::from_secs(lag);
        let moment = question.now.checked_sub(lag).unwrap_or(Timestamp::MIN);
        Cow::Owned(directory.at(moment))
    })
}
