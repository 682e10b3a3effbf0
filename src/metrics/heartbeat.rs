//! Calls a URL after syncs that succeeded, so that a service elsewhere notices when the calls stay away. The URL is a
//! secret: no message here has any of it.

use std::time::Duration;

use http::{Method, StatusCode};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use url::Url;

use crate::scim::client::{Exchange, Request};
use crate::scim::error::ExchangeError;

/// One call at most in so long.
pub const EVERY: Duration = Duration::from_secs(60);

/// How long one call may take.
const WITHIN: Duration = Duration::from_secs(10);

/// Why a call did not arrive. Says nothing of where it went.
#[derive(Debug, thiserror::Error)]
pub enum Missed {
    /// The URL cannot be had; says why.
    #[error("its URL cannot be used: {0}")]
    Address(String),
    /// No answer came. (What is below this error may name the host.)
    #[error("{0}")]
    Exchange(ExchangeError),
    /// It was no success.
    #[error("answered {0}")]
    Status(StatusCode),
}

/// Calls once.
///
/// # Errors
/// Why it did not arrive.
pub async fn call(exchange: &dyn Exchange, url: Url) -> Result<(), Missed> {
    let request = Request {
        method: Method::GET,
        url,
        authorization: None,
        form: Vec::new(),
    };
    let answer = tokio::time::timeout(WITHIN, exchange.exchange(request))
        .await
        .unwrap_or(Err(ExchangeError::TimedOut(WITHIN)))
        .map_err(Missed::Exchange)?;
    if answer.status.is_success() {
        Ok(())
    } else {
        Err(Missed::Status(answer.status))
    }
}

/// Beats after syncs that succeeded, whose number is in `succeeded`, until told to stop. A success within a minute of
/// a beat is told when that minute is over: a schedule of one minute, now a little early and now a little late, would
/// be told every second time otherwise. `beat` calls, or returns `None` where nobody asks for it.
pub async fn keep<B, F>(mut succeeded: watch::Receiver<u64>, beat: B, stop: CancellationToken)
where
    B: Fn() -> F,
    F: Future<Output = Option<Result<(), Missed>>>,
{
    let mut is_missed = false;
    let beats = async {
        while succeeded.changed().await.is_ok() {
            let began = Instant::now();
            let Some(beaten) = beat().await else {
                continue;
            };
            match &beaten {
                Ok(()) if is_missed => info!("heartbeats arrive again"),
                Ok(()) => debug!("heartbeat arrived"),
                Err(missed) if is_missed => debug!(error = %missed, "heartbeat did not arrive"),
                Err(missed) => warn!(
                    error = %missed,
                    "heartbeats do not arrive: whoever waits for them will raise an alarm, syncs go on"
                ),
            }
            is_missed = beaten.is_err();
            tokio::time::sleep_until(began + EVERY).await;
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        // Whoever counted is gone.
        () = beats => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use bytes::Bytes;

    use super::*;
    use crate::scim::client::{Answer, BoxFuture};

    /// Answers with a status, and keeps what it was asked.
    struct Scripted(StatusCode, Mutex<Vec<Request>>);

    impl Exchange for Scripted {
        fn exchange(&self, request: Request) -> BoxFuture<'_, Result<Answer, ExchangeError>> {
            self.1.lock().unwrap().push(request);
            let answer = Answer {
                status: self.0,
                headers: http::HeaderMap::new(),
                body: Bytes::new(),
            };
            Box::pin(async { Ok(answer) })
        }
    }

    struct Silent;

    impl Exchange for Silent {
        fn exchange(&self, _: Request) -> BoxFuture<'_, Result<Answer, ExchangeError>> {
            Box::pin(std::future::pending())
        }
    }

    fn url() -> Url {
        "https://beats.example/canary".parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_one_get_without_credentials_and_only_a_success_is_one() {
        for (status, arrives) in [
            (200, true),
            (204, true),
            (301, false),
            (404, false),
            (500, false),
        ] {
            let scripted = Scripted(StatusCode::from_u16(status).unwrap(), Mutex::default());
            let called = call(&scripted, url()).await;
            assert_eq!(called.is_ok(), arrives, "{status}");
            let asked = scripted.1.into_inner().unwrap();
            assert_eq!((asked.len(), &asked[0].method), (1, &Method::GET));
            assert!(asked[0].authorization.is_none() && asked[0].form.is_empty());
            assert_eq!(asked[0].url, url());
        }
        let began = Instant::now();
        let missed = call(&Silent, url()).await.unwrap_err();
        assert_eq!(began.elapsed(), WITHIN);
        assert!(!missed.to_string().contains("example"), "{missed}");
    }

    #[tokio::test(start_paused = true)]
    async fn it_beats_after_successes_and_at_most_once_a_minute() {
        let (succeeded, seen) = watch::channel(0);
        let began = Instant::now();
        let beats = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&beats);
        let beat = move || {
            told.lock().unwrap().push(began.elapsed().as_secs());
            async { Some(Ok(())) }
        };
        let stop = CancellationToken::new();
        let keeper = tokio::spawn(keep(seen, beat, stop.clone()));
        let pass = |secs| tokio::time::sleep(Duration::from_secs(secs));
        pass(100).await;
        assert_eq!(*beats.lock().unwrap(), [0; 0], "nothing has succeeded yet");
        // Ten successes in ten seconds are one beat at once, and one when the minute is over.
        for _ in 0..10 {
            succeeded.send_modify(|n| *n += 1);
            pass(1).await;
        }
        pass(90).await;
        assert_eq!(*beats.lock().unwrap(), [100, 160]);
        pass(1000).await;
        assert_eq!(beats.lock().unwrap().len(), 2, "and none without a success");
        stop.cancel();
        keeper.await.unwrap();
    }
}
