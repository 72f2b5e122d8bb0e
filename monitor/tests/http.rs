//! The server over real loopback sockets, with closures in place of the agent: no kernel feature, no privilege.

#[path = "support/server.rs"]
mod server;

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use flate2::read::GzDecoder;
use monitor::export::{Limits, Metrics, Ready, serve};
use tokio::{runtime::Runtime, sync::Semaphore};

use server::{Client, PATIENCE, Server, app, drained, fixed, listener};

const SHORT: Duration = Duration::from_millis(200);

#[test]
fn a_scrape_is_the_text_format_and_the_body_to_the_byte() {
    let server = Server::start(fixed("up 1\n"), Limits::default());
    let answer = server.client().ask("GET /metrics HTTP/1.1\r\nAccept-Encoding: gzip");
    assert_eq!(answer.code, 200);
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(answer.header("vary"), Some("Accept, Accept-Encoding"));
    // Too small to be worth compressing.
    assert_eq!((answer.header("content-encoding"), answer.body.as_slice()), (None, b"up 1\n".as_slice()));
}

#[test]
fn a_large_scrape_is_compressed_when_asked_for_and_only_then() {
    let body = "a_metric{with=\"labels\"} 12345\n".repeat(1000);
    let server = Server::start(fixed(&body), Limits::default());
    let mut client = server.client();
    let asked = client.ask("GET /metrics HTTP/1.1\r\nAccept-Encoding: deflate, gzip;q=0.9");
    assert_eq!(asked.header("content-encoding"), Some("gzip"));
    assert!(asked.body.len() < body.len() / 10, "{} bytes", asked.body.len());
    let mut decoded = String::new();
    GzDecoder::new(asked.body.as_slice()).read_to_string(&mut decoded).expect("gzip");
    assert_eq!(decoded, body);
    for refused in ["", "\r\nAccept-Encoding: gzip;q=0", "\r\nAccept-Encoding: br"] {
        let answer = client.ask(&format!("GET /metrics HTTP/1.1{refused}"));
        assert_eq!((answer.header("content-encoding"), answer.body.len()), (None, body.len()));
    }
}

#[test]
fn head_has_the_headers_of_get_and_no_body() {
    let server = Server::start(fixed("up 1\n"), Limits::default());
    let mut client = server.client();
    let head = client.ask("HEAD /metrics HTTP/1.1");
    assert_eq!((head.code, head.header("content-length"), head.body.len()), (200, Some("5"), 0));
    // The connection goes on exactly behind it.
    assert_eq!(client.ask("GET /metrics HTTP/1.1").body, b"up 1\n");
}

#[test]
fn what_is_not_served_is_404_and_what_is_not_read_is_405() {
    let server = Server::start(fixed(""), Limits::default());
    let mut client = server.client();
    for path in ["/metrics/", "/nothing", "/-/reload", "/debug/pprof", "/..%2fetc", "//"] {
        assert_eq!(client.ask(&format!("GET {path} HTTP/1.1")).code, 404, "{path}");
    }
    for path in ["/", "/metrics", "/-/healthy", "/-/ready"] {
        let answer = client.ask(&format!("POST {path} HTTP/1.1\r\nContent-Length: 0"));
        assert_eq!((answer.code, answer.header("allow")), (405, Some("GET,HEAD")), "{path}");
    }
    let counts = server.requests.counts();
    assert_eq!(counts.get(&("other", 404)), Some(&6), "one label for all paths: {counts:?}");
    assert_eq!(counts.get(&("/metrics", 405)), Some(&1));
}

#[test]
fn a_scrape_may_ask_for_some_collectors_and_an_unknown_one_is_refused_in_one_line() {
    let metrics: Metrics = Arc::new(|collectors| {
        let names: Vec<_> = collectors.table().iter().map(|collector| collector.name).collect();
        Box::pin(async move { Ok(names.join(" ").into_bytes()) })
    });
    let server = Server::start(metrics, Limits::default());
    let ask = |query: &str| {
        let answer = server.client().ask(&format!("GET /metrics{query} HTTP/1.1"));
        (answer.code, answer.text())
    };
    assert_eq!(ask("?collect[]=tcp&collect[]=traffic"), (200, "traffic tcp".into()));
    assert_eq!(ask("?collect%5B%5D=tcp"), (200, "tcp".into()), "as Prometheus writes it");
    assert_eq!(ask("?exclude[]=tcp"), (200, ask("").1.replace(" tcp ", " ")));
    assert_eq!(ask("?name=other"), ask(""), "what else is asked is not our business");
    let (code, said) = ask("?collect[]=tcpp%0Ax");
    assert!(code == 400 && said.starts_with("collector \"tcpp\\nx\" is not known; there are: "), "{said}");
    assert_eq!(said.lines().count(), 1);
    assert_eq!(ask("?collect[]=tcp&exclude[]=size").0, 400);
    assert_eq!(server.requests.counts().get(&("/metrics", 400)), Some(&2));
}

#[test]
fn ready_says_why_not() {
    let ready: Ready = Arc::new(|| Err("3 interfaces are not attached".to_owned()));
    let server = Server::start_with(fixed(""), ready, Limits::default());
    let answer = server.client().ask("GET /-/ready HTTP/1.1");
    assert_eq!(
        (answer.code, answer.text()),
        (503, "The agent is not ready: 3 interfaces are not attached\n".into())
    );
    assert_eq!(server.client().ask("GET /-/healthy HTTP/1.1").code, 200);
    let ready = Server::start(fixed(""), Limits::default());
    assert_eq!(ready.client().ask("GET /-/ready HTTP/1.1").code, 200);
}

#[test]
fn who_takes_html_gets_the_page_and_who_does_not_a_list_of_what_there_is() {
    let server = Server::start(fixed(""), Limits::default());
    let list = server.client().ask("GET / HTTP/1.1\r\nAccept: */*");
    assert_eq!(list.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(list.header("vary"), Some("Accept, Accept-Encoding"));
    let list = list.text();
    assert!(list.contains("netns-monitor") && list.contains(env!("CARGO_PKG_VERSION")));
    let paths = list.lines().filter(|line| line.starts_with('/')).filter_map(|line| line.split(' ').next());
    let paths: Vec<_> = paths.filter(|path| !path.contains("NETNS") && !path.ends_with("events")).collect();
    assert!(paths.len() >= 8, "{paths:?}");
    for path in paths {
        assert_eq!(server.client().ask(&format!("GET {path} HTTP/1.1")).code, 200, "{path}");
    }
    let page = server.client().ask("GET / HTTP/1.1\r\nAccept: application/xml;q=0.9, text/html");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
}

#[test]
fn the_page_loads_only_what_the_server_has_and_runs_no_script_within() {
    let server = Server::start(fixed(""), Limits::default());
    let page = server.client().ask("GET / HTTP/1.1\r\nAccept: text/html");
    let csp = page.header("content-security-policy").expect("a policy").to_owned();
    assert!(
        csp.starts_with("default-src 'none'; ") && !csp.contains("unsafe") && !csp.contains('*'),
        "{csp}"
    );
    let page = page.text();
    let mut loads: Vec<_> = ["src=\"", "href=\""]
        .iter()
        .flat_map(|start| {
            page.split(start).skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()))
        })
        .filter(|path| !path.starts_with('#'))
        .collect();
    assert!(loads.iter().any(|path| path == "/page/main.js"), "{loads:?}");
    let mut seen = Vec::new();
    while let Some(path) = loads.pop() {
        assert!(path.starts_with('/') && !path.starts_with("//"), "{path}");
        let answer = server.client().ask(&format!("GET {path} HTTP/1.1"));
        assert_eq!(answer.code, 200, "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        let text = answer.text();
        if path.ends_with(".js") {
            assert_eq!(answer.header("content-type"), Some("text/javascript; charset=utf-8"), "{path}");
            for danger in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"]
            {
                assert!(!text.contains(danger), "{danger} in {path}");
            }
            let imports = text.split("from \"./").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0));
            loads.extend(imports.map(|name| format!("/page/{name}")).filter(|path| !seen.contains(path)));
        }
        seen.push(path);
    }
    for within in ["<script>", "<style", " style=", " onclick", " onload", "javascript:"] {
        assert!(!page.contains(within), "{within}");
    }
    assert_eq!(server.client().ask("GET /page/nothing.js HTTP/1.1").code, 404);
}

#[test]
fn an_error_is_told_to_the_log_and_not_to_the_client() {
    let metrics: Metrics =
        Arc::new(|_| Box::pin(async { Err("open /sys/fs/bpf/netns-monitor: denied".to_owned()) }));
    let server = Server::start(metrics, Limits::default());
    let answer = server.client().ask("GET /metrics HTTP/1.1");
    assert_eq!(
        (answer.code, answer.text()),
        (500, "The metrics could not be rendered; the agent's log says why.\n".into())
    );
    let panics: Metrics = Arc::new(|_| Box::pin(async { panic!("as meant") }));
    assert_eq!(Server::start(panics, Limits::default()).client().ask("GET /metrics HTTP/1.1").code, 500);
}

#[test]
fn requests_are_counted_by_path_and_code() {
    let server = Server::start(fixed(""), Limits::default());
    assert_eq!(server.requests.counts().get(&("/metrics", 200)), Some(&0), "known ones start at 0");
    let mut client = server.client();
    for _ in 0..3 {
        client.ask("GET /metrics HTTP/1.1");
    }
    client.ask("GET /-/ready HTTP/1.1");
    let counts = server.requests.counts();
    let rose: Vec<_> = counts.into_iter().filter(|(_, count)| *count > 0).collect();
    assert_eq!(rose, [(("/-/ready", 200), 1), (("/metrics", 200), 3)]);
}

#[test]
fn a_header_that_does_not_end_closes_the_connection() {
    let server = Server::start(fixed(""), Limits { header: SHORT, ..Limits::default() });
    let mut slow = server.connect();
    slow.write_all(b"GET /metrics HTTP/1.1\r\nX-Slow: ").expect("send");
    let start = Instant::now();
    assert_eq!(drained(&mut slow), 0, "no answer");
    assert!(start.elapsed() >= SHORT / 2 && start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    // The twin: with the usual limit, the same header may end later than that.
    let patient = Server::start(fixed("up 1\n"), Limits::default());
    let mut slow = patient.connect();
    slow.write_all(b"GET /metrics HTTP/1.1\r\nX-Slow: ").expect("send");
    slow.set_read_timeout(Some(SHORT * 2)).expect("timeout");
    let waited = slow.read(&mut [0]).expect_err("nothing to read");
    assert!(matches!(waited.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{waited}");
    slow.write_all(b"now\r\n\r\n").expect("send");
    slow.set_read_timeout(Some(PATIENCE)).expect("timeout");
    assert_eq!(Client::on(slow).answer(true).code, 200);
}

#[test]
fn a_connection_without_a_single_byte_is_closed_too() {
    let server = Server::start(fixed(""), Limits { header: SHORT, ..Limits::default() });
    assert_eq!(drained(&mut server.connect()), 0);
}

#[test]
fn five_hundred_clients_that_never_finish_do_not_lock_the_scraper_out() {
    let server = Server::start(fixed("up 1\n"), Limits::default());
    let slow: Vec<_> = (0..500)
        .map(|_| {
            let mut slow = server.connect();
            // Those that gave up their seat may already be closed.
            let _closed = slow.write_all(b"GET /metrics HTTP/1.1\r\n");
            slow
        })
        .collect();
    let start = Instant::now();
    assert_eq!(server.client().ask("GET /metrics HTTP/1.1").code, 200);
    // The header limit alone would have kept all seats taken for 5 seconds.
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    drop(slow);
}

#[test]
fn a_connection_beyond_the_limit_takes_the_seat_of_the_oldest_idle_one() {
    let server = Server::start(fixed("up 1\n"), Limits { connections: 2, ..Limits::default() });
    let mut oldest = server.client();
    assert_eq!(oldest.ask("GET /metrics HTTP/1.1").code, 200);
    let mut younger = server.client();
    assert_eq!(younger.ask("GET /metrics HTTP/1.1").code, 200);
    assert_eq!(server.client().ask("GET /metrics HTTP/1.1").code, 200);
    assert_eq!(drained(&mut oldest.0.into_inner()), 0, "closed without a word");
}

#[test]
fn a_connection_beyond_the_limit_is_closed_while_all_are_busy() {
    let gate = Gate::new("up 1\n");
    let server = Server::start(gate.metrics(), Limits { connections: 1, ..Limits::default() });
    let mut busy = server.client();
    busy.send("GET /metrics HTTP/1.1");
    gate.wait_for(1);
    assert_eq!(drained(&mut server.connect()), 0);
    gate.open(1);
    assert_eq!(busy.answer(true).body, b"up 1\n", "the busy one kept its seat");
}

#[test]
fn scrapes_beyond_the_limit_are_503_until_one_is_done() {
    let gate = Gate::new("up 1\n");
    let server = Server::start(gate.metrics(), Limits { scrapes: 2, ..Limits::default() });
    let mut scrapes = [server.client(), server.client()];
    for (n, scrape) in scrapes.iter_mut().enumerate() {
        scrape.send("GET /metrics HTTP/1.1");
        gate.wait_for(n + 1);
    }
    assert_eq!(server.client().ask("GET /metrics HTTP/1.1").code, 503);
    assert_eq!(server.client().ask("GET /-/healthy HTTP/1.1").code, 200);
    gate.open(3);
    for scrape in &mut scrapes {
        assert_eq!(scrape.answer(true).code, 200);
    }
    assert_eq!(server.client().ask("GET /metrics HTTP/1.1").code, 200);
}

#[test]
fn a_client_that_leaves_does_not_free_its_scrape_before_the_work_is_done() {
    let gate = Gate::new("up 1\n");
    let server = Server::start(gate.metrics(), Limits { scrapes: 1, ..Limits::default() });
    let mut leaves = server.client();
    leaves.send("GET /metrics HTTP/1.1");
    gate.wait_for(1);
    drop(leaves);
    assert_eq!(server.client().ask("GET /metrics HTTP/1.1").code, 503);
    gate.open(2);
    let done = Instant::now() + PATIENCE;
    while server.client().ask("GET /metrics HTTP/1.1").code != 200 {
        assert!(Instant::now() < done, "the scrape's place was never freed");
    }
}

#[test]
fn an_answer_that_takes_too_long_is_503() {
    let gate = Gate::new("");
    let server = Server::start(gate.metrics(), Limits { answer: SHORT, ..Limits::default() });
    assert_eq!(server.client().ask("GET /metrics HTTP/1.1").code, 503);
}

#[test]
fn a_reader_of_a_few_bytes_at_a_time_is_cut_off_and_a_fast_one_is_not() {
    // More than the kernel's buffers of both sides hold.
    let body = "x".repeat(64 << 20);
    let server = Server::start(fixed(&body), Limits { write: SHORT * 2, ..Limits::default() });
    let mut slow = server.client();
    slow.send("GET /metrics HTTP/1.1");
    let start = Instant::now();
    let mut few = [0; 512];
    let mut got = 0;
    // Steady progress does not help: the limit is on the whole answer.
    while start.elapsed() < SHORT * 6 {
        match slow.0.get_mut().read(&mut few) {
            Ok(0) | Err(_) => break,
            Ok(read) => got += read,
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    got += drained(&mut slow.0.into_inner());
    assert!(got < body.len(), "the slow reader got {got} bytes");
    let server = Server::start(fixed(&body), Limits::default());
    assert_eq!(server.client().ask("GET /metrics HTTP/1.1").body.len(), body.len());
}

#[test]
fn a_scrape_in_flight_is_finished_before_the_server_ends() {
    let gate = Gate::new("up 1\n");
    let mut server = Server::start(gate.metrics(), Limits::default());
    let mut idle = server.client();
    assert_eq!(idle.ask("GET /-/healthy HTTP/1.1").code, 200);
    let mut scrape = server.client();
    scrape.send("GET /metrics HTTP/1.1");
    gate.wait_for(1);
    server.stop();
    // An idle connection holds nothing up.
    assert_eq!(drained(&mut idle.0.into_inner()), 0);
    let refused = Instant::now() + PATIENCE;
    while TcpStream::connect(server.address).is_ok() {
        assert!(Instant::now() < refused, "still accepting");
    }
    assert!(!server.ended());
    gate.open(1);
    let answer = scrape.answer(true);
    assert_eq!((answer.code, answer.body.as_slice()), (200, b"up 1\n".as_slice()));
    server.wait();
}

#[test]
fn a_scrape_that_never_ends_is_broken_off_at_the_deadline() {
    let gate = Gate::new("");
    let mut server = Server::start(gate.metrics(), Limits { shutdown: SHORT, ..Limits::default() });
    let mut scrape = server.client();
    scrape.send("GET /metrics HTTP/1.1");
    gate.wait_for(1);
    server.stop();
    server.wait();
    assert_eq!(drained(&mut scrape.0.into_inner()), 0);
}

#[test]
fn all_addresses_given_are_served_and_none_is_an_error() {
    let runtime = Runtime::new().expect("runtime");
    let (first, second) = runtime.block_on(async { (listener().await, listener().await) });
    let addresses = [&first, &second].map(|l| l.local_addr().expect("address"));
    let _serving =
        runtime.spawn(serve(vec![first, second], app(fixed("up 1\n")), std::future::pending::<()>()));
    for address in addresses {
        let client = TcpStream::connect(address).expect("connect");
        assert_eq!(Client::on(client).ask("GET /metrics HTTP/1.1").code, 200);
    }
    let none = runtime.block_on(serve(Vec::new(), app(fixed("")), std::future::pending::<()>()));
    assert!(none.is_err());
    runtime.shutdown_background();
}

#[test]
fn what_is_no_http_is_refused() {
    let server = Server::start(fixed(""), Limits::default());
    for nonsense in [
        "\x16\x03\x01\x02\x00\x01\x00",
        "GET\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
    ] {
        let mut connection = server.connect();
        connection.write_all(nonsense.as_bytes()).expect("send");
        let mut answer = Vec::new();
        // Closed with or without a word, and not served.
        let _reset = connection.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    let huge = format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(64 << 10));
    let mut client = server.client();
    let _closed = client.0.get_mut().write_all(format!("{huge}\r\n\r\n").as_bytes());
    assert!(matches!(client.try_answer().map(|answer| answer.code), None | Some(431 | 400)));
    assert_eq!(server.client().ask("GET /-/healthy HTTP/1.1").code, 200);
}

/// Metrics that wait to be let through.
struct Gate {
    body: &'static str,
    arrived: Arc<AtomicUsize>,
    through: Arc<Semaphore>,
}

impl Gate {
    fn new(body: &'static str) -> Self {
        Self { body, arrived: Arc::default(), through: Arc::new(Semaphore::new(0)) }
    }

    fn metrics(&self) -> Metrics {
        let (body, arrived, through) = (self.body, self.arrived.clone(), self.through.clone());
        Arc::new(move |_| {
            let (arrived, through) = (arrived.clone(), through.clone());
            Box::pin(async move {
                arrived.fetch_add(1, Ordering::SeqCst);
                through.acquire().await.map_err(|error| error.to_string())?.forget();
                Ok(body.as_bytes().to_vec())
            })
        })
    }

    fn wait_for(&self, scrapes: usize) {
        let late = Instant::now() + PATIENCE;
        while self.arrived.load(Ordering::SeqCst) < scrapes {
            assert!(Instant::now() < late, "the scrape did not arrive");
            std::thread::yield_now();
        }
    }

    fn open(&self, scrapes: usize) {
        self.through.add_permits(scrapes);
    }
}
