//! One request from arrival to answer: the recipe of the simulated instance.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::auth::{Door, access_denied};
use super::churn::Churn;
use super::directory::Directory;
use super::effect::Effect;
use super::error::Refusal;
use super::faults::{Fault, Faults};
use super::generate::{self, GroupOptions, group_rng};
use super::group::{Group, GroupValues};
use super::limits::{RateCount, RateRule};
use super::message::{Incoming, Reply};
use super::projection::Projection;
use super::query::Parameters;
use super::render::Renderer;
use super::requests::{Logged, RequestLog};
use super::resource::Question;
use super::resource_type::Resource;
use super::route::Target;
use super::row::{User, Values};
use super::table::place;
use super::{Options, discovery, headers, instead, mishap};

/// Where the interface is, below the host.
const SCIM_PATH: &str = "/api/now/scim";

/// The whole state of an instance.
pub(super) struct Core {
    pub(super) directory: Directory,
    pub(super) door: Door,
    pub(super) faults: Faults,
    pub(super) churn: Churn,
    pub(super) log: RequestLog,
    pub(super) raw: BTreeMap<String, Vec<u8>>,
    /// Ids and tokens.
    pub(super) ids: fastrand::Rng,
    /// What faults draw, so that they change nothing else.
    pub(super) chance: fastrand::Rng,
    limit: Option<RateCount>,
    options: Options,
    number: u64,
}

impl Core {
    /// A new instance.
    pub(super) fn new(options: Options, now: Timestamp) -> Self {
        let mut rng = fastrand::Rng::with_seed(options.seed);
        let organisation = generate::organisation(options.users, options.odd, now, &mut rng);
        let groups = GroupOptions {
            groups: options.groups,
            largest: options.largest_group,
            odd: options.odd,
        };
        let directory = organisation.into_directory(&groups, options.seed, now);
        Self {
            directory,
            door: Door::new(options.auth.clone()),
            faults: Faults::new(Vec::new(), now, rng.fork()),
            churn: Churn::new(
                options.churn_per_minute,
                now,
                rng.fork(),
                // Not the one that groups were made with: it starts from the same seed.
                group_rng(options.seed).fork(),
            ),
            log: RequestLog::default(),
            raw: BTreeMap::new(),
            ids: rng.fork(),
            chance: rng.fork(),
            limit: options.rate_limit.clone().map(RateCount::new),
            options,
            number: 0,
        }
    }

    /// Answers one request.
    pub(super) fn answer(&mut self, incoming: &Incoming, now: Timestamp) -> Reply {
        self.catch_up(now);
        let target = Target::of(&incoming.path);
        let kind = target.kind(incoming);
        let mut line = incoming.path.clone();
        if let Some(query) = &incoming.query {
            line.push('?');
            line.push_str(query);
        }
        let effects = self.faults.meet(kind, &target, &line, now);
        mishap::happen(
            &effects,
            &target,
            &mut self.directory,
            now,
            &mut self.chance,
        );
        self.disturb_the_door(&effects, now);
        let mut reply = instead::instead(&effects, kind, &self.door, now)
            .unwrap_or_else(|| self.respond(&target, incoming, &effects, now));
        self.number += 1;
        let logged_in = target.is_resource() && reply.status != http::StatusCode::UNAUTHORIZED;
        headers::dress(&mut reply, now, self.number, logged_in);
        reply.delay = self.options.latency;
        instead::spoil(&mut reply, &effects);
        self.log.note(Logged {
            at: now,
            kind,
            line: format!("{} {line}", incoming.method),
            status: reply.status.as_u16(),
            has_cookie: incoming.headers.contains_key(http::header::COOKIE),
        });
        reply
    }

    /// Lets what happens to tokens and to the account happen.
    fn disturb_the_door(&mut self, effects: &[Effect], now: Timestamp) {
        for effect in effects {
            match effect {
                Effect::TokenEnds | Effect::Cloned { .. } => self.door.forget_access(),
                Effect::TokenShared { seconds } => {
                    let left = std::time::Duration::from_secs(*seconds);
                    self.door.share_access(left, now, &mut self.ids);
                }
                Effect::AccountLocked => self.door.lock(now),
                _ => {}
            }
        }
    }

    /// Lets everything happen that was due by now.
    pub(super) fn catch_up(&mut self, now: Timestamp) {
        self.churn.catch_up(&mut self.directory, now);
        self.directory.settle(now);
    }

    /// Puts faults in force.
    pub(super) fn set_faults(&mut self, faults: Vec<Fault>, now: Timestamp) {
        self.faults = Faults::new(faults, now, self.chance.fork());
    }

    /// Puts a rate limit rule in force.
    pub(super) fn set_rate_limit(&mut self, rule: Option<RateRule>) {
        self.limit = rule.map(RateCount::new);
    }

    /// Creates a user, or replaces the one with this id.
    pub(super) fn create(&mut self, id: &str, values: &Values, now: Timestamp) {
        let mut user = User::new(id, now);
        user.set(values);
        self.directory.insert(user, now);
    }

    /// Creates a group, or replaces the one with this id.
    pub(super) fn create_group(&mut self, id: &str, values: &GroupValues, now: Timestamp) {
        let mut group = Group::new(id, now);
        group.set(values);
        self.directory.insert_group(group, now);
    }

    /// A living access token.
    pub(super) fn issue_token(&mut self, now: Timestamp) -> String {
        self.door.issue(now, &mut self.ids)
    }

    /// A user or a group as it is shown when nothing goes wrong.
    pub(super) fn json<T: Resource>(&self, id: &str) -> Option<String> {
        let rows = T::rows(&self.directory);
        let row = &rows[place(rows, id).ok()?];
        let mut out = Vec::new();
        let base = self.base(&[]);
        let renderer = Renderer::new(&self.directory, &base, &Projection::All, &[]);
        row.show(&renderer, &mut out);
        String::from_utf8(out).ok()
    }

    /// What kind of instance it is.
    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    fn respond(
        &mut self,
        target: &Target,
        incoming: &Incoming,
        effects: &[Effect],
        now: Timestamp,
    ) -> Reply {
        let question = Question {
            incoming,
            parameters: Parameters::parse(incoming.query.as_deref()),
            base: self.base(effects),
            effects,
            now,
        };
        let is_read = incoming.method == http::Method::GET;
        let answer = match target {
            Target::Token => return self.token(incoming, now),
            Target::Revoke => {
                let token = question.parameters.get("token");
                self.door.revoke(token.unwrap_or_default());
                return Reply::empty(200);
            }
            Target::Page => return Reply::html(200, "Log in | ServiceNow", "Please log in."),
            Target::Users(_) | Target::Groups(_) | Target::Named(..) => {
                return self.scim(target, &question);
            }
            Target::NoApi => Err(Refusal::no_such_uri()),
            _ if !is_read => Err(not_allowed("GET")),
            Target::Config => Ok(discovery::config()),
            Target::ResourceTypes(name) => {
                discovery::resource_types(name.as_deref(), &question.base)
            }
            Target::Schemas(urn) => discovery::schemas(urn.as_deref(), &question.base),
        };
        in_media_type(answer.map(|body| Reply::json(200, body)), incoming)
    }

    /// Behind the door: who may come in, how often, and what he gets.
    fn scim(&mut self, target: &Target, question: &Question<'_>) -> Reply {
        let authorization = question.incoming.header("authorization");
        if let Err(refusal) = self.door.admit(authorization, question.now) {
            return refusal.into();
        }
        let (limit_headers, admitted) = self
            .limit
            .as_mut()
            .map_or((Vec::new(), Ok(())), |limit| limit.count(question.now));
        let answer = admitted.and_then(|()| match target {
            Target::Users(id) => self.resources::<User>(id.as_deref(), question),
            Target::Groups(id) => self.resources::<Group>(id.as_deref(), question),
            Target::Named(table, id) => self.named(*table, id.as_deref(), question),
            _ => Err(Refusal::no_such_uri()),
        });
        let mut reply = in_media_type(answer, question.incoming);
        for (name, value) in limit_headers {
            reply.set(name, &value);
        }
        reply
    }

    fn token(&mut self, incoming: &Incoming, now: Timestamp) -> Reply {
        let is_form = incoming.header("content-type").is_some_and(|given| {
            given
                .to_ascii_lowercase()
                .starts_with("application/x-www-form-urlencoded")
        });
        let answer = if incoming.method == http::Method::POST && is_form {
            let form = url::form_urlencoded::parse(&incoming.body)
                .into_owned()
                .collect();
            self.door.token(&form, now, &mut self.ids)
        } else {
            access_denied()
        };
        Reply::json(answer.status, answer.body)
    }

    /// What links start with: an instance knows its own name, whatever host was asked.
    fn base(&self, effects: &[Effect]) -> String {
        let elsewhere = effects.iter().find_map(|effect| match effect {
            Effect::LinksElsewhere { base } => Some(base.clone()),
            _ => None,
        });
        let own = self.options.public_url.trim_end_matches('/');
        elsewhere.unwrap_or_else(|| format!("{own}{SCIM_PATH}"))
    }
}

/// 405, with the methods that there are.
pub(super) fn not_allowed(allowed: &str) -> Refusal {
    Refusal::Platform {
        status: 405,
        message: "Method not supported",
        detail: None,
        headers: vec![("allow", allowed.to_owned())],
    }
}

/// An answer in the media type that was asked for, or 406; a refusal as it is.
fn in_media_type(answer: Result<Reply, Refusal>, incoming: &Incoming) -> Reply {
    match (answer, headers::media_type(incoming)) {
        (Err(refusal), _) => refusal.into(),
        (Ok(_), None) => Refusal::platform(406, "Not acceptable", None).into(),
        (Ok(mut reply), Some(media_type)) => {
            if !reply.body.is_empty() {
                reply.set("content-type", media_type);
            }
            reply
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::super::testbed::Testbed;
    use super::super::{Options, RateRule, RequestKind};

    #[test]
    fn only_discovery_is_open_to_everybody() {
        let bed = Testbed::of(3);
        let open = |target: &str| {
            let answered = bed.send(Method::GET, target, HeaderMap::new(), "");
            (answered.status, answered.json["error"]["message"].clone())
        };
        for target in [
            "ServiceProviderConfig",
            "ResourceTypes",
            "Schemas",
            "Schemas/x",
        ] {
            let (status, _) = open(&format!("/api/now/scim/{target}"));
            assert!(status == 200 || target == "Schemas/x", "{target}");
        }
        for target in ["Users", "Users/x", "Departments"] {
            let refused = open(&format!("/api/now/scim/{target}"));
            assert_eq!(refused, (401, "User is not authenticated".into()));
        }
        assert_eq!(open("/api/now/scim/Bulk").0, 400);
        assert_eq!(open("/api/now/table/sys_user").0, 400);
        assert_eq!(open("/").0, 200);
    }

    #[test]
    fn answers_are_dressed_as_the_platform_dresses_them() {
        let bed = Testbed::of(3);
        bed.pass(59);
        let answered = bed.get("/Users");
        let header = |name: &str| answered.reply.headers[name].to_str().unwrap();
        assert_eq!(header("content-type"), "application/json;charset=UTF-8");
        assert_eq!(header("date"), "Sun, 01 Mar 2026 08:00:59 GMT");
        assert_eq!(header("server"), "snow_adc");
        assert_eq!(header("x-is-logged-in"), "true");
        assert!(answered.reply.headers.get_all("set-cookie").iter().count() > 1);
        for absent in [
            "etag",
            "last-modified",
            "x-total-count",
            "link",
            "x-ratelimit-limit",
        ] {
            assert!(answered.reply.headers.get(absent).is_none(), "{absent}");
        }
        let scim = bed.ask(
            Method::GET,
            "/Users",
            &[("accept", "application/scim+json")],
            "",
        );
        assert_eq!(
            scim.reply.headers["content-type"],
            "application/scim+json;charset=UTF-8"
        );
        let xml = bed.ask(Method::GET, "/Users", &[("accept", "application/xml")], "");
        assert_eq!(xml.status, 406);
        for (method, target) in [
            (Method::PUT, "/Users"),
            (Method::POST, "/Users/x"),
            (Method::DELETE, "/Departments/x"),
            (Method::POST, "/Schemas"),
        ] {
            assert_eq!(bed.ask(method, target, &[], "{}").status, 405, "{target}");
        }
    }

    #[test]
    fn a_rate_limit_rule_shows_itself_on_every_answer_and_then_refuses() {
        let bed = Testbed::with(Options {
            users: 3,
            rate_limit: Some(RateRule {
                flush_every: std::time::Duration::ZERO,
                ..RateRule::per_hour(2)
            }),
            ..Options::default()
        });
        for status in [200, 200, 429] {
            let answered = bed.get("/Users");
            assert_eq!(answered.status, status);
            assert_eq!(answered.reply.headers["x-ratelimit-limit"], "2");
            assert!(
                answered
                    .reply
                    .headers
                    .get("x-ratelimit-remaining")
                    .is_none()
            );
        }
        bed.sandbox.set_rate_limit(None);
        assert_eq!(bed.get("/Users").status, 200);
    }

    #[test]
    fn requests_are_counted_by_kind_and_kept_with_their_time() {
        let bed = Testbed::of(3);
        bed.get("/Users?count=2");
        bed.pass(2);
        bed.get("/Users/a%2Fb");
        let log = bed.sandbox.requests();
        assert_eq!(log[1].at.duration_since(log[0].at).as_secs(), 2);
        assert_eq!(log[1].line, "GET /api/now/scim/Users/a%2Fb");
        assert_eq!((log[1].kind, log[1].status), (RequestKind::Get, 404));
        assert_eq!(bed.sandbox.count(RequestKind::List), 1);
        bed.sandbox.forget_requests();
        assert_eq!(bed.sandbox.count(RequestKind::List), 0);
    }

    /// Seeds that failed are kept and must go on meaning the same people and the same token, whatever else an
    /// instance comes to have.
    #[test]
    fn a_seed_means_the_same_users_for_ever() {
        use sha2::Digest as _;

        for (groups, largest_group) in [(40, 0), (0, 0), (7, 100)] {
            let bed = Testbed::with(Options {
                users: 400,
                groups,
                largest_group,
                seed: 7,
                churn_per_minute: 6,
                ..Options::default()
            });
            let mut sum = sha2::Sha256::new();
            for _ in 0..3 {
                bed.pass(1_200);
                let page = bed.get("/Users?count=500&sortBy=id&sortOrder=ascending");
                sum.update(&page.reply.body);
            }
            sum.update(bed.sandbox.issue_token());
            let sum = sum.finalize();
            let sum: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(
                sum,
                "c3edcfca7f35eea346edbcef7680726a48791457e4120a839b56609a10756c01"
            );
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_traffic() {
        let answers = |seed: u64| {
            let bed = Testbed::with(Options {
                users: 60,
                seed,
                churn_per_minute: 6,
                ..Options::default()
            });
            let mut bodies = Vec::new();
            for _ in 0..20 {
                bed.pass(47);
                bodies.push(bed.get("/Users?count=100").reply.body);
            }
            (bodies, bed.sandbox.issue_token(), bed.sandbox.churned())
        };
        assert_eq!(answers(5), answers(5));
        assert_ne!(answers(5).0, answers(6).0);
    }
}
