//! The server: accepts, limits, hands each connection to the pages, and ends without breaking off an answer.
//!
//! HTTP/1 only, and the connection is served by hyper itself: a server that first sniffs the protocol version waits for
//! the first bytes without a limit.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::ensure;
use axum::Router;
use futures_util::future::BoxFuture;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::metrics::Collectors;

use super::{
    pages,
    requests::Requests,
    seats::{Seats, Taking},
    snapshot::{Hold, Read},
    stream::Stream,
};

/// Renders the metrics of these collectors. What an error says goes to the log; the client only learns that there was one.
pub type Metrics = Arc<dyn Fn(Collectors) -> BoxFuture<'static, Result<Vec<u8>, String>> + Send + Sync>;

/// Whether the agent is ready, or why not. The reason is shown to whoever can reach the port: no paths of the host.
pub type Ready = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What is served.
#[derive(Clone)]
pub struct App {
    /// `/metrics`.
    pub metrics: Metrics,
    /// The collectors that are switched on.
    pub collectors: Collectors,
    /// What the page and its API show.
    pub snapshot: Read,
    /// Who holds a namespace.
    pub hold: Hold,
    /// `/-/ready`.
    pub ready: Ready,
    /// Where answers are counted.
    pub requests: Arc<Requests>,
    /// What clients may ask of the server.
    pub limits: Limits,
}

/// What clients may ask of the server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From a connection's start, or the end of an answer on it, to the end of the next request's header. A
    /// connection kept alive without a request ends then too.
    pub header: Duration,
    /// From a request's header to its answer.
    pub answer: Duration,
    /// From the first byte of an answer to its last.
    pub write: Duration,
    /// From the call to stop to the end of the last answer in progress.
    pub shutdown: Duration,
    /// Connections at one time, over all listeners.
    pub connections: usize,
    /// Scrapes being rendered at one time.
    pub scrapes: usize,
    /// Clients of `/api/v1/events` at one time.
    pub watchers: usize,
    /// From one reading for the page and its API to the next, at least.
    pub reading: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header: Duration::from_secs(5),
            answer: Duration::from_secs(10),
            write: Duration::from_secs(10),
            shutdown: Duration::from_secs(10),
            connections: 64,
            scrapes: 40,
            watchers: 16,
            reading: Duration::from_secs(1),
        }
    }
}

/// Serves on all listeners until `shutdown` is ready and the answers then in progress are written.
///
/// # Errors
/// When there is no listener. Trouble with a connection ends that connection only; trouble with accepting is logged and
/// tried again.
pub async fn serve(
    listeners: Vec<TcpListener>,
    app: App,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    ensure!(!listeners.is_empty(), "no address to listen on");
    let (stop, stopping) = watch::channel(());
    let server = Arc::new(Server {
        limits: app.limits,
        seats: Seats::new(app.limits.connections),
        router: pages::router(app, stopping.clone()),
    });
    let mut accepting = JoinSet::new();
    for listener in listeners {
        accepting.spawn(accept(listener, server.clone(), stopping.clone()));
    }
    drop(stopping);
    shutdown.await;
    drop(stop);
    while accepting.join_next().await.is_some() {}
    Ok(())
}

struct Server {
    limits: Limits,
    seats: Arc<Seats>,
    router: Router,
}

/// Accepts until told to stop (`stopping` closes), then waits for the connections it accepted.
async fn accept(listener: TcpListener, server: Arc<Server>, mut stopping: watch::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = stopping.changed() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                // With every seat busy the connection is closed at once.
                Ok((tcp, _)) => if let Some(taking) = server.seats.take() {
                    connections.spawn(connection(tcp, taking, server.clone(), stopping.clone()));
                },
                Err(error) => if let Some(pause) = pause(&error) {
                    tracing::warn!("accept a connection: {error}; trying again in {pause:?}");
                    tokio::select! { _ = stopping.changed() => break, () = sleep(pause) => {} }
                },
            },
        }
    }
    drop(listener);
    let drained = timeout(server.limits.shutdown, async { while connections.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!("broke off {} connections that did not end in time", connections.len());
    }
}

/// How long to wait after accepting failed. Without descriptors or memory it fails again at once, so a pause keeps
/// the loop from spinning; every other error (accept(2)) is one of the connection that was about to be accepted.
fn pause(error: &io::Error) -> Option<Duration> {
    let out_of = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    error.raw_os_error().filter(|code| out_of.contains(code)).map(|_| Duration::from_millis(250))
}

async fn connection(tcp: TcpStream, taking: Taking, server: Arc<Server>, mut stopping: watch::Receiver<()>) {
    let seat = taking.seat.clone();
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!("TCP_NODELAY: {error}");
    }
    let stream = TokioIo::new(Stream::new(tcp, seat.clone(), server.limits.write));
    let busy = seat.clone();
    let service = TowerToHyperService::new(server.router.clone());
    let service = hyper::service::service_fn(move |request| {
        busy.busy.store(true, Ordering::Relaxed);
        hyper::service::Service::call(&service, request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(server.limits.header)
        .max_headers(64)
        .max_buf_size(32 * 1024)
        .serve_connection(stream, service);
    tokio::pin!(served);
    let mut told = false;
    loop {
        tokio::select! {
            ended = &mut served => {
                if let Err(error) = ended {
                    tracing::debug!("a connection ended early: {error}");
                }
                break;
            }
            () = seat.give_up.notified() => break,
            _ = stopping.changed(), if !told => {
                if !seat.busy.load(Ordering::Relaxed) {
                    break;
                }
                served.as_mut().graceful_shutdown();
                told = true;
            }
        }
    }
    drop(taking);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepting_pauses_without_descriptors_and_goes_on_after_a_broken_connection() {
        let after = |code| pause(&io::Error::from_raw_os_error(code));
        assert_eq!(after(libc::EMFILE), Some(Duration::from_millis(250)));
        assert_eq!(after(libc::ECONNABORTED), None);
    }
}
