//! The live view of a demo: a bar while the baseline arrives, its sum, then the feed as it grows.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::feed::{FeedReader, Filter, Next};
use super::output::Output;
use super::progress::Bars;
use super::{record, words};
use crate::clock::{Clock as _, SystemClock};
use crate::mirror::Reader;
use crate::model::{InstanceName, ResourceType};
use crate::sync::Progress;

/// What is shown, and where.
pub(crate) struct LiveView {
    /// The mirror's file.
    pub(crate) mirror: PathBuf,
    /// The instance that is new in it.
    pub(crate) instance: InstanceName,
    /// What the daemon tells of the sync that it is in.
    pub(crate) progress: watch::Receiver<Option<Progress>>,
    /// Where lines go.
    pub(crate) out: Output,
}

impl LiveView {
    /// Shows how the baseline arrives, until it is there.
    ///
    /// # Errors
    /// When nobody is left to show it to, or the mirror cannot be read.
    pub(crate) async fn baseline(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        let reader = Reader::open(&self.mirror)?;
        let bars = Bars::on_a_terminal();
        let mut poll = tokio::time::interval(Duration::from_millis(100));
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while reader
            .source(&self.instance, ResourceType::User)?
            .baseline_at
            .is_none()
        {
            tokio::select! {
                Ok(()) = self.progress.changed() => {
                    if let Some(progress) = &*self.progress.borrow_and_update() {
                        bars.show(progress);
                    }
                }
                _ = poll.tick() => {}
            }
        }
        bars.clear();
        let seconds = started.elapsed().as_secs_f64();
        for row in reader.health(SystemClock.now())? {
            let (users, active) = (words::count(row.users, "user"), words::number(row.active));
            self.out.text(&format!(
                "The baseline took {seconds:.1} s: {users}, {active} of them active.\nFrom here on, what changes:\n\n"
            ))?;
        }
        self.out.flush()?;
        Ok(())
    }

    /// Shows every record after those of the baseline, as it comes.
    ///
    /// # Errors
    /// Ends only with one, as above.
    pub(crate) async fn feed(mut self) -> anyhow::Result<Infallible> {
        let reader = Reader::open(&self.mirror)?;
        let epoch = reader.feed()?.epoch;
        let mut feed = FeedReader::new(reader, &self.mirror, Filter::default(), epoch, 0)?;
        loop {
            match feed.next(usize::MAX)? {
                Next::Records(rows) => {
                    for row in rows.iter().filter(|row| row.reason != "baseline") {
                        self.out.text(&record::line(row))?;
                    }
                }
                Next::End => {
                    self.out.flush()?;
                    feed.committed().await?;
                }
                Next::ReadAgain(why) => anyhow::bail!("{why}"),
            }
        }
    }
}
