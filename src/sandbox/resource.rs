//! Requests for resources, once they are let in: lists, single ones, and writes (facts page, sections
//! 3, 4 and 10).

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::answer::{Core, not_allowed};
use super::effect::Effect;
use super::error::Refusal;
use super::headers;
use super::list::Listing;
use super::message::{Incoming, Reply};
use super::projection::Projection;
use super::query::Parameters;
use super::render::Renderer;
use super::row::User;
use super::shape::Shape;
use super::sight::Sight;
use super::table::{Table, place};
use super::write::{Verb, write};

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
    /// `/Users` and what is below it.
    pub(super) fn users(
        &mut self,
        id: Option<&str>,
        question: &Question<'_>,
    ) -> Result<Reply, Refusal> {
        match (question.incoming.method.as_str(), id) {
            ("GET", None) => self.list_users(question),
            ("GET", Some(id)) => self.get_user(id, question),
            ("POST", None) => self.write_user(Verb::Post, "", question),
            ("PUT", Some(id)) => self.write_user(Verb::Put, id, question),
            ("PATCH", Some(id)) => self.write_user(Verb::Patch, id, question),
            ("DELETE", Some(id)) if self.directory.delete(id, question.now) => {
                Ok(Reply::empty(204))
            }
            ("DELETE", Some(id)) => Err(Refusal::scim(404, None, format!("Invalid user id {id}"))),
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
        self.renderer(question, &projection)
            .named(table, row, &mut body);
        Ok(Reply::json(200, body))
    }

    fn list_users(&mut self, question: &Question<'_>) -> Result<Reply, Refusal> {
        let past = self.past(question);
        let listing = Listing {
            directory: &self.directory,
            base: &question.base,
            effects: question.effects,
        };
        let mut order = self.chance.fork();
        let mut shape = Shape {
            raw: &self.raw,
            effects: question.effects,
            rng: &mut order,
        };
        let rows = past.as_deref().unwrap_or(self.directory.users());
        let body = listing.users(rows, &question.parameters, &mut shape, &mut self.chance)?;
        Ok(Reply::json(200, body))
    }

    fn get_user(&mut self, id: &str, question: &Question<'_>) -> Result<Reply, Refusal> {
        let projection = question.parameters.projection()?;
        let past = self.past(question);
        let users = past.as_deref().unwrap_or(self.directory.users());
        let mut place = place(users, id);
        if question.effects.contains(&Effect::AnotherUser) && users.len() > 1 {
            // Who is not there would stand where the next one does.
            place = Ok(place.map_or_else(|next| next, |own| own + 1) % users.len());
        }
        let user = place
            .ok()
            .map(|place| &users[place])
            .filter(|user| Sight::of(question.effects).finds(user))
            .cloned()
            .ok_or_else(|| Refusal::scim(404, None, format!("User not found {id}")))?;
        Ok(Reply::json(200, self.shown(&user, question, &projection)))
    }

    fn write_user(
        &mut self,
        verb: Verb,
        id: &str,
        question: &Question<'_>,
    ) -> Result<Reply, Refusal> {
        if !headers::has_json_body(question.incoming) {
            return Err(Refusal::platform(415, "Unsupported media type", None));
        }
        let projection = question.parameters.projection()?;
        let body = &question.incoming.body;
        let user = write(
            verb,
            id,
            body,
            &mut self.directory,
            &mut self.ids,
            question.now,
        )?;
        let body = self.shown(&user, question, &projection);
        if verb != Verb::Post {
            return Ok(Reply::json(200, body));
        }
        let mut reply = Reply::json(201, body);
        let place = format!("{}/Users/{}", question.base, user.sys_id);
        reply.set("location", &place);
        Ok(reply)
    }

    /// A user as this request shows him.
    fn shown(&mut self, user: &User, question: &Question<'_>, projection: &Projection) -> Vec<u8> {
        let mut order = self.chance.fork();
        let mut shape = Shape {
            raw: &self.raw,
            effects: question.effects,
            rng: &mut order,
        };
        let mut body = Vec::new();
        shape.user(&self.renderer(question, projection), user, &mut body);
        body
    }

    fn renderer<'a>(
        &'a self,
        question: &'a Question<'_>,
        projection: &'a Projection,
    ) -> Renderer<'a> {
        Renderer {
            directory: &self.directory,
            base: &question.base,
            projection,
        }
    }

    /// The users as a node that lags behind shows them, if such a node answers.
    fn past(&self, question: &Question<'_>) -> Option<Vec<Arc<User>>> {
        question.effects.iter().find_map(|effect| match effect {
            Effect::NodeBehind { seconds } => {
                let seconds = i64::try_from(*seconds).unwrap_or(i64::MAX);
                let lag = SignedDuration::from_secs(seconds);
                let moment = question.now.checked_sub(lag).unwrap_or(Timestamp::MIN);
                Some(self.directory.users_at(moment))
            }
            _ => None,
        })
    }
}
