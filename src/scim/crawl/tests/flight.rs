//! Requests in flight: what is read ahead, what an interruption leaves, and that the rules hold over
//! the wire.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::model::{Base, Page, PageReport, Verdict};
use crate::scim::client::Session;
use crate::scim::crawl::{Crawl, CrawlOptions, Finished, Head};
use crate::scim::script::{self, Reply, Script, Sent, json};

/// An instance that takes 100 ms for an answer, and how to talk to it.
struct Wire {
    fake: Arc<Mutex<Fake>>,
    script: Arc<Script>,
    session: Session,
}

impl Wire {
    fn new(fake: Fake, concurrency: usize) -> Self {
        Self::with(fake, concurrency, |_| None)
    }

    /// `instead` may answer in the fake's place.
    fn with(
        fake: Fake,
        concurrency: usize,
        instead: impl Fn(&Sent) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        let fake = Arc::new(Mutex::new(fake));
        let served = Arc::clone(&fake);
        let script = Script::new(move |sent, _| {
            let reply = instead(sent).unwrap_or_else(|| served.lock().unwrap().serve(sent));
            Reply::Late(Duration::from_millis(100), Box::new(reply))
        });
        let folder = tempfile::tempdir().unwrap();
        let mut options = script::options(script::basic(), folder.path());
        options.page_size = 10;
        options.concurrency = concurrency;
        Self {
            fake,
            session: script::session(options, &script),
            script,
        }
    }

    fn crawl(&self, resume: Option<CrawlPosition>) -> Crawl {
        self.crawl_by(honest(), resume)
    }

    fn crawl_by(&self, capabilities: Capabilities, resume: Option<CrawlPosition>) -> Crawl {
        let options = CrawlOptions {
            resource: ResourceType::User,
            capabilities,
            since: None,
        };
        let seq = AtomicI64::new(0);
        let head: Head = Arc::new(move || Base {
            seq: seq.fetch_add(1, Ordering::Relaxed),
            tx: 0,
        });
        Crawl::start(self.session.clone(), options, head, resume)
    }
}

/// Takes the next page, and adds its ids to those seen.
async fn take(crawl: &mut Crawl, ids: &mut BTreeSet<String>) -> Result<Option<Page>, Error> {
    let page = crawl.next().await?;
    if let Some(page) = &page {
        let known = ids.len();
        ids.extend(page.rows.iter().map(|row| row.id.as_str().to_owned()));
        let salvaged = page.rejects.iter().filter_map(|reject| reject.id.as_ref());
        ids.extend(salvaged.map(|id| id.as_str().to_owned()));
        let new_ids = (ids.len() - known) as u64;
        crawl.report(PageReport { new_ids });
    }
    Ok(page)
}

async fn finish(crawl: Crawl, ids: &BTreeSet<String>) -> Finished {
    crawl.finish(ids.len() as u64, 0).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn four_requests_at_a_time_take_about_a_quarter_of_the_time() {
    for capabilities in [honest(), Capabilities::default()] {
        let mut took = Vec::new();
        for concurrency in [1, 4] {
            let wire = Wire::new(Fake::of_size(2_000), concurrency);
            let mut crawl = wire.crawl_by(capabilities.clone(), None);
            let mut ids = BTreeSet::new();
            let start = Instant::now();
            while take(&mut crawl, &mut ids).await.unwrap().is_some() {}
            let finished = finish(crawl, &ids).await;
            took.push(start.elapsed().as_secs_f64());
            assert_eq!(finished.certificate.verdict, Verdict::Complete);
            assert_eq!(ids, wire.fake.lock().unwrap().ids());
        }
        assert!(took[1] / took[0] < 0.35, "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_page_is_on_its_way_while_one_is_reconciled() {
    let wire = Wire::new(Fake::of_size(60), 1);
    let mut crawl = wire.crawl(None);
    let mut ids = BTreeSet::new();
    let mut feed = Vec::new();
    while let Some(page) = take(&mut crawl, &mut ids).await.unwrap() {
        feed.push(page.base.seq);
        // Reconciling takes longer than the instance: its answer has come by then.
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_eq!(wire.script.sent().len(), feed.len() + 2);
    }
    // Where the feed stood is asked before each request that gives a page.
    assert_eq!(feed, [0, 1, 2, 3, 4, 5]);
    assert_eq!(
        finish(crawl, &ids).await.certificate.verdict,
        Verdict::Complete
    );
}

#[tokio::test(start_paused = true)]
async fn an_outage_leaves_a_position_from_which_the_crawl_goes_on() {
    let outage = Duration::from_millis(600)..Duration::from_secs(1800);
    let down = move |sent: &Sent| outage.contains(&sent.at).then(|| json(503, "{}"));
    let wire = Wire::with(Fake::of_size(1_000), 4, down);
    let mut crawl = wire.crawl(None);
    let mut ids = BTreeSet::new();
    let error = loop {
        match take(&mut crawl, &mut ids).await {
            Ok(page) => assert!(page.is_some()),
            Err(error) => break error,
        }
    };
    assert!(error.is_transient());
    let position = CrawlPosition::parse(&crawl.position().to_text()).unwrap();
    drop(crawl);
    let read = ids.len();
    assert!((100..=200).contains(&read), "{read}");

    tokio::time::sleep(Duration::from_secs(3600)).await;
    let before = wire.script.sent().len();
    let mut crawl = wire.crawl(Some(position));
    while take(&mut crawl, &mut ids).await.unwrap().is_some() {}
    let finished = finish(crawl, &ids).await;
    assert_eq!(
        finished.certificate.verdict,
        Verdict::Complete,
        "{finished:?}"
    );
    assert!(finished.certificate.resumed);
    assert_eq!(ids, wire.fake.lock().unwrap().ids());
    assert!(wire.script.sent().len() - before < 120);
}

#[tokio::test(start_paused = true)]
async fn a_crawl_that_is_told_to_stop_stops() {
    let wire = Wire::new(Fake::of_size(1_000), 4);
    let mut crawl = wire.crawl(None);
    let mut ids = BTreeSet::new();
    take(&mut crawl, &mut ids).await.unwrap();
    wire.session.cancel.cancel();
    let error = loop {
        match crawl.next().await {
            Ok(page) => assert!(page.is_some()),
            Err(error) => break error,
        }
    };
    assert!(error.is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn a_crawl_that_is_dropped_asks_nothing_more() {
    let wire = Wire::new(Fake::of_size(1_000), 4);
    let mut crawl = wire.crawl(None);
    take(&mut crawl, &mut BTreeSet::new()).await.unwrap();
    drop(crawl);
    let sent = wire.script.sent().len();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(wire.script.sent().len(), sent);
}

#[tokio::test(start_paused = true)]
async fn one_bad_byte_costs_one_record() {
    for (k, id_is_known) in [(0, true), (7, false), (24, true)] {
        let mut fake = Fake::of_size(25);
        let spoilt = fake.ids().into_iter().nth(k).unwrap();
        fake.poisoned.insert(spoilt.clone(), id_is_known);
        let wire = Wire::new(fake, 2);
        let mut crawl = wire.crawl(None);
        let mut ids = BTreeSet::new();
        let mut rejects = Vec::new();
        while let Some(page) = take(&mut crawl, &mut ids).await.unwrap() {
            rejects.extend(page.rejects);
        }
        let finished = finish(crawl, &ids).await;
        assert_eq!(rejects.len(), 1);
        assert_eq!(ids.contains(&spoilt), id_is_known);
        assert_eq!(
            rejects[0].id.as_ref().map(ResourceId::as_str),
            id_is_known.then_some(&*spoilt)
        );
        assert_eq!(ids.len(), if id_is_known { 25 } else { 24 });
        assert!(finished.certificate.read_every_row(), "{finished:?}");
    }
}
