//! A list answer: what was found, cut into its page and written down, and the ways in which it can
//! go wrong (facts page, sections 7 and 17).

use std::sync::Arc;

use super::directory::Directory;
use super::effect::Effect;
use super::error::Refusal;
use super::filter::Filter;
use super::json;
use super::query::{Found, ListRequest, Parameters, find, tie};
use super::render::Renderer;
use super::resource_type::Resource;
use super::row::Named;
use super::shape::Shape;
use super::sight::Sight;
use super::table::{Record, Table};

/// What a list answer needs beside its parameters.
pub(super) struct Listing<'a> {
    /// The tables.
    pub directory: &'a Directory,
    /// What links start with.
    pub base: &'a str,
    /// The effects that met the request.
    pub effects: &'a [Effect],
}

impl Listing<'_> {
    /// A page of users or groups.
    ///
    /// # Errors
    /// 400 for parameters that section 4 refuses.
    pub(super) fn page<T: Resource>(
        &self,
        parameters: &Parameters,
        shape: &mut Shape<'_>,
        rng: &mut fastrand::Rng,
    ) -> Result<Vec<u8>, Refusal> {
        let mut request = ListRequest::parse::<T>(parameters)?;
        let finds_nobody = self.twist::<T>(&mut request, parameters)?;
        let sight = Sight::of(self.effects);
        let lists = |row: &T| sight.lists(row);
        let visible = (!sight.is_full()).then_some(&lists as &dyn Fn(&T) -> bool);
        let filter = request.filter.as_ref();
        let mut found = T::find(self.directory, filter, request.sort, visible);
        if finds_nobody {
            found = Found::Picked(Vec::new());
        }
        let found = self.order(found, &request, rng);
        let mut page = Page::cut(&found, &request, self.effects);
        page.rows.retain(|row| sight.shows(row.as_ref()));
        page.twist(self.effects, rng);
        let doubles = self.doubles(&mut page, request.count);
        let renderer = Renderer::new(self.directory, self.base, &request.projection, self.effects);
        for (place, double) in doubles.iter().rev() {
            page.rows.insert(*place, double);
        }
        Ok(page.write(|row, out| shape.resource(&renderer, row, out)))
    }

    /// A page of a table of names.
    ///
    /// # Errors
    /// As [`Listing::page`].
    pub(super) fn named(&self, table: Table, parameters: &Parameters) -> Result<Vec<u8>, Refusal> {
        let request = ListRequest::parse::<Named>(parameters)?;
        let found = find(
            self.directory.named(table),
            self.directory,
            request.filter.as_ref(),
            request.sort,
            None,
        );
        let renderer = Renderer::new(self.directory, self.base, &request.projection, &[]);
        let page = Page::cut(&found, &request, &[]);
        Ok(page.write(|row, out| renderer.named(table, row, out)))
    }

    /// Changes what is asked for. Tells whether the filter finds nobody whatever it says.
    fn twist<T: Resource>(
        &self,
        request: &mut ListRequest,
        parameters: &Parameters,
    ) -> Result<bool, Refusal> {
        let filter = parameters.get("filter").map(str::to_ascii_lowercase);
        let meets = |attribute: &Option<String>| {
            filter.as_ref().is_some_and(|filter| {
                attribute
                    .as_ref()
                    .is_none_or(|name| filter.contains(&name.to_ascii_lowercase()))
            })
        };
        let mut finds_nobody = false;
        for effect in self.effects {
            match effect {
                Effect::FilterIgnored { attribute } if meets(attribute) => match attribute {
                    None => request.filter = None,
                    Some(name) => {
                        request.filter = request
                            .filter
                            .take()
                            .map(|filter| filter.without(T::filterable(name)));
                    }
                },
                Effect::FilterRefused { attribute } if meets(attribute) => {
                    return Err(Refusal::invalid_filter(
                        "Attribute cannot be used in a filter",
                    ));
                }
                Effect::FilterFindsNobody { attribute } if meets(attribute) => finds_nobody = true,
                Effect::FilterReversed { attribute } if meets(attribute) => {
                    request.filter = request.filter.take().map(Filter::reversed);
                }
                Effect::SortRefused if request.sort.is_some() => {
                    return Err(Refusal::invalid_value("Sorting is not supported"));
                }
                Effect::SortIgnored => request.sort = None,
                Effect::StartIndexIgnored => request.start_index = 1,
                _ => {}
            }
        }
        Ok(finds_nobody)
    }

    /// The other selves of rows that the page has, each with its place behind the first. They need room.
    fn doubles<T: Resource>(&self, page: &mut Page<'_, T>, count: usize) -> Vec<(usize, Arc<T>)> {
        let mut doubles = Vec::new();
        for effect in self.effects {
            if let Effect::SameIdTwice { id, title } = effect
                && let Some(place) = page.rows.iter().position(|row| row.sys_id() == id)
            {
                let double = page.rows[place].titled(title);
                doubles.push((place + 1, Arc::new(double)));
            }
        }
        if doubles.is_empty() {
            return doubles;
        }
        page.rows
            .truncate(count.saturating_sub(doubles.len()).max(1));
        doubles.retain(|(place, _)| *place <= page.rows.len());
        doubles.sort_by_key(|(place, _)| *place);
        doubles
    }

    /// Puts rows whose order nobody promised into another one.
    fn order<'r, T: Resource>(
        &self,
        found: Found<'r, T>,
        request: &ListRequest,
        rng: &mut fastrand::Rng,
    ) -> Found<'r, T> {
        let scrambled = request.sort.is_none() && self.effects.contains(&Effect::OrderScrambled);
        let shuffled = request.sort.is_some() && self.effects.contains(&Effect::TiesShuffled);
        if !scrambled && !shuffled {
            return found;
        }
        let mut rows = found.page(1, usize::MAX);
        if scrambled {
            rng.shuffle(&mut rows);
        } else {
            for run in rows.chunk_by_mut(|a, b| tie(&***a, &***b, request.sort, self.directory)) {
                rng.shuffle(run);
            }
        }
        Found::Picked(rows)
    }
}

/// One page, before it is written.
struct Page<'a, T> {
    total: usize,
    rows: Vec<&'a Arc<T>>,
    start_index: usize,
    has_resources: bool,
}

impl<'a, T: Record> Page<'a, T> {
    fn cut(found: &Found<'a, T>, request: &ListRequest, effects: &[Effect]) -> Self {
        let mut start_index = request.start_index;
        if start_index > found.total() && effects.contains(&Effect::FirstPageAgain) {
            start_index = 1;
        }
        let count = effects
            .iter()
            .fold(request.count, |count, effect| match effect {
                Effect::ShortPage { rows } => count.min(*rows),
                _ => count,
            });
        Self {
            total: found.total(),
            rows: found.page(start_index, count),
            start_index,
            has_resources: true,
        }
    }

    fn twist(&mut self, effects: &[Effect], rng: &mut fastrand::Rng) {
        for effect in effects {
            match effect {
                Effect::EmptyPage => self.rows.clear(),
                Effect::RepeatedRow if !self.rows.is_empty() => {
                    let again = self.rows[rng.usize(..self.rows.len())];
                    self.rows.push(again);
                }
                Effect::RowDropped if !self.rows.is_empty() => {
                    self.rows.remove(rng.usize(..self.rows.len()));
                }
                Effect::ResourcesMissing => {
                    self.rows.clear();
                    self.has_resources = false;
                }
                Effect::EmptyWithoutResources => self.has_resources = !self.rows.is_empty(),
                Effect::TotalOff { by } => {
                    let by_at_most = isize::try_from(*by).unwrap_or(isize::MAX);
                    self.total = self.total.saturating_add_signed(by_at_most);
                }
                _ => {}
            }
        }
    }

    /// The order of members is that of samples (section 7).
    fn write(&self, mut row: impl FnMut(&T, &mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + self.rows.len() * 1_536);
        json::object(&mut out, |o| {
            o.texts(
                "schemas",
                &["urn:ietf:params:scim:api:messages:2.0:ListResponse"],
            );
            o.literal("totalResults", self.total);
            if self.has_resources {
                o.array("Resources", |array| {
                    for one in &self.rows {
                        array.item(|out| row(one, out));
                    }
                });
            }
            o.literal("startIndex", self.start_index);
            o.literal("itemsPerPage", self.rows.len());
        });
        out
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::testbed::Testbed;
    use super::super::{Column, Values};
    use super::*;

    const BY_KEY: &str = "sortBy=id&sortOrder=ascending";

    #[test]
    fn orders_that_nobody_promised_are_broken_and_others_are_not() {
        let bed = Testbed::of(60);
        let straight = bed.list(&format!("count=60&{BY_KEY}"));
        bed.fault(Effect::OrderScrambled);
        assert_ne!(bed.list("count=60").ids(), straight.ids());
        assert_ne!(bed.list("count=60").ids(), bed.list("count=60").ids());
        assert_eq!(
            bed.list(&format!("count=60&{BY_KEY}")).ids(),
            straight.ids()
        );

        bed.fault(Effect::SortIgnored);
        let unsorted = bed.list("count=60&sortBy=title&sortOrder=ascending");
        assert_eq!(unsorted.ids(), straight.ids());

        bed.fault(Effect::TiesShuffled);
        let by_title = "count=60&sortBy=title&sortOrder=ascending";
        let (one, two) = (bed.list(by_title), bed.list(by_title));
        assert_ne!(one.ids(), two.ids());
        let titles = |answered: &super::super::testbed::Answered| -> Vec<String> {
            let titles = answered.rows().iter().map(|user| user["title"].to_string());
            titles.collect()
        };
        assert_eq!(titles(&one), titles(&two));
        assert_eq!(
            bed.list(&format!("count=60&{BY_KEY}")).ids(),
            straight.ids()
        );

        bed.fault(Effect::SortRefused);
        assert_eq!(bed.get(&format!("/Users?{BY_KEY}")).status, 400);
    }

    #[test]
    fn filters_are_ignored_refused_or_find_nobody() {
        let bed = Testbed::of(20);
        bed.pass(3_600);
        let id = bed.sandbox.ids()[3].clone();
        bed.sandbox.touch(&id);
        let recent = r#"filter=meta.lastModified ge "2026-03-01T08:30:00Z""#;
        let both = format!(r#"{recent} and id gt "{}""#, bed.sandbox.ids()[10]);
        let by_name = r#"filter=userName eq "nobody""#;
        assert_eq!(bed.list(recent).ids(), [id.as_str()]);
        assert_eq!(bed.list(&both).total(), 0);

        bed.fault(Effect::FilterIgnored { attribute: None });
        assert_eq!(bed.list(recent).total(), 20);
        let stamps = || Some("meta.lastModified".to_owned());
        bed.fault(Effect::FilterIgnored {
            attribute: stamps(),
        });
        assert_eq!(bed.list(recent).total(), 20);
        assert_eq!(bed.list(&both).total(), 9);
        assert_eq!(bed.list(by_name).total(), 0);

        bed.fault(Effect::FilterFindsNobody {
            attribute: stamps(),
        });
        assert_eq!(bed.list(recent).total(), 0);
        assert_eq!(bed.list(r#"filter=id gt """#).total(), 20);

        bed.fault(Effect::FilterReversed {
            attribute: stamps(),
        });
        let others = bed.list(&format!("count=20&{recent}"));
        assert!(others.total() == 19 && !others.ids().contains(&id.as_str()));
        assert_eq!(bed.list(by_name).total(), 0);

        bed.fault(Effect::FilterRefused {
            attribute: stamps(),
        });
        let refused = bed.get(&format!("/Users?{recent}"));
        assert_eq!(
            (refused.status, &refused.json["scimType"]),
            (400, &"invalidFilter".into())
        );
        assert_eq!(bed.list(by_name).total(), 0);
        assert_eq!(bed.list("").total(), 20);
    }

    #[test]
    fn pages_are_short_empty_repeated_or_lie_about_the_total() {
        let bed = Testbed::of(30);
        let first = bed.list("count=10");
        let page = |effect: Effect, query: &str| {
            bed.fault(effect);
            let answered = bed.list(query);
            assert_eq!(bed.sandbox.fired()[0].times, 1);
            answered
        };
        let short = page(Effect::ShortPage { rows: 4 }, "count=10");
        assert_eq!(
            (short.ids(), short.total()),
            (first.ids()[..4].to_vec(), 30)
        );
        assert_eq!(short.json["itemsPerPage"], 4);
        let empty = page(Effect::EmptyPage, "count=10");
        assert_eq!((empty.rows().len(), empty.total()), (0, 30));
        assert!(empty.json["Resources"].is_array());
        let missing = page(Effect::ResourcesMissing, "count=10");
        assert!(missing.json.get("Resources").is_none() && missing.total() == 30);
        let past = page(Effect::EmptyWithoutResources, "startIndex=31");
        assert!(past.json.get("Resources").is_none() && past.total() == 30);
        let full = page(Effect::EmptyWithoutResources, "count=10");
        assert_eq!(full.rows().len(), 10);
        let again = page(Effect::RepeatedRow, "count=10");
        assert_eq!(again.rows().len(), 11);
        assert_eq!(again.ids().into_iter().collect::<BTreeSet<_>>().len(), 10);
        let dropped = page(Effect::RowDropped, "count=10");
        assert_eq!((dropped.rows().len(), dropped.total()), (9, 30));
        let low = page(Effect::TotalOff { by: -12 }, "count=10");
        assert_eq!((low.rows().len(), low.total()), (10, 18));
        assert_eq!(
            page(Effect::TotalOff { by: i64::MIN }, "count=10").total(),
            0
        );
        assert_eq!(page(Effect::TotalOff { by: 7 }, "count=10").total(), 37);
        let start = page(Effect::StartIndexIgnored, "startIndex=11&count=10");
        assert_eq!(start.ids(), first.ids());
        let beyond = page(Effect::FirstPageAgain, "startIndex=31&count=10");
        assert_eq!(beyond.ids(), first.ids());
        let within = page(Effect::FirstPageAgain, "startIndex=11&count=10");
        assert_ne!(within.ids(), first.ids());
    }

    /// Reading by key must not miss anybody, by the plain rules of the instance.
    #[test]
    fn a_walk_by_key_sees_every_odd_record_once() {
        let bed = Testbed::with(super::super::Options {
            users: 777,
            ..super::super::Options::default()
        });
        bed.sandbox
            .create_as("\"quoted\\id\"", &Values::new().with(Column::UserName, "q"));
        let mut seen = Vec::new();
        let mut filter = String::new();
        loop {
            let page = bed.list(&format!("count=100&{BY_KEY}{filter}"));
            let Some(last) = page.ids().last().map(|id| (*id).to_owned()) else {
                assert_eq!(page.total(), 0);
                break;
            };
            seen.extend(page.ids().into_iter().map(str::to_owned));
            let literal = serde_json::to_string(&last).unwrap();
            filter = format!("&filter=id gt {literal}");
        }
        assert_eq!(seen, bed.sandbox.ids());
        assert_eq!(seen.len(), 778);
    }
}
