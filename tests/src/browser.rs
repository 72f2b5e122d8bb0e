//! A real browser without a window, driven by the messages of its own developer tools over a pipe.

use std::{
    collections::VecDeque,
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    agent::repository,
    poll::{SOON, until},
};

const HOME: &str = "/run/browser";
/// Where the libraries are in its folder.
const LIBRARIES: [&str; 3] =
    ["usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/pulseaudio", "lib/x86_64-linux-gnu"];

/// A browser with one page. Killed when dropped, with all its processes.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    session: Option<String>,
    next: u64,
    events: VecDeque<Value>,
}

/// The folder that Debian's packages of it are unpacked in: `CHROMIUM_DIR`, or where the set-up does it.
#[must_use]
pub fn directory() -> PathBuf {
    env::var_os("CHROMIUM_DIR").map_or_else(|| repository("target/tools/chromium"), PathBuf::from)
}

impl Browser {
    /// Starts it, with a page of that size in pixels.
    ///
    /// # Panics
    /// When there is none, or it does not answer soon.
    #[must_use]
    pub fn start(width: u32, height: u32) -> Self {
        let folder = directory();
        let program = folder.join("usr/lib/chromium/chromium-headless-shell");
        assert!(program.exists(), "{}: cargo xtask setup unpacks it", program.display());
        fs::create_dir_all(HOME).expect(HOME);
        let fonts = format!("{HOME}/fonts.conf");
        let there = folder.join("usr/share/fonts");
        let text = format!(
            "<fontconfig><dir>{}</dir><cachedir>{HOME}/fonts</cachedir></fontconfig>",
            there.display()
        );
        fs::write(&fonts, text).expect("its file");
        let log = fs::File::create(format!("{HOME}/log")).expect("its log");
        // Its messages go by the descriptors 3 and 4; in a PID namespace its processes end with the first of them.
        let shell = "exec 3<&0 4>&1 </dev/null >/dev/null; exec \"$0\" \"$@\"";
        let mut child = Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", shell])
            .arg(&program)
            .args(["--headless", "--no-sandbox", "--remote-debugging-pipe", "--disable-gpu"])
            .args([
                "--disable-background-networking",
                "--disable-crash-reporter",
                "--force-device-scale-factor=1",
            ])
            .arg(format!("--user-data-dir={HOME}"))
            .env("LD_LIBRARY_PATH", env::join_paths(LIBRARIES.map(|path| folder.join(path))).expect("paths"))
            .env("FONTCONFIG_FILE", fonts)
            .env("HOME", HOME)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("unshare");
        let (tell, from) = channel();
        let mut said = BufReader::new(child.stdout.take().expect("its output"));
        thread::spawn(move || {
            let mut message = Vec::new();
            while said.read_until(0, &mut message).is_ok_and(|read| read > 0) {
                message.pop();
                let Ok(json) = serde_json::from_slice(&message) else { break };
                if tell.send(json).is_err() {
                    break;
                }
                message.clear();
            }
        });
        let to = child.stdin.take().expect("its input");
        let mut browser = Self { child, to, from, session: None, next: 0, events: VecDeque::new() };
        let target = browser.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let target = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", &target);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        browser.call("Emulation.setDeviceMetricsOverride", &size);
        browser
    }

    /// Calls a method of its developer tools and returns the result.
    ///
    /// # Panics
    /// When it fails, or has no answer soon.
    pub fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.next += 1;
        let mut message = json!({ "id": self.next, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes).and_then(|()| self.to.flush()).expect("the browser lives");
        let end = Instant::now() + SOON;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.from.recv_timeout(left) {
                Ok(mut answer) if answer["id"] == self.next => {
                    assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                    return answer["result"].take();
                }
                Ok(event) => self.events.push_back(event),
                Err(RecvTimeoutError::Timeout) => panic!("{method}: no answer within {SOON:?}"),
                Err(RecvTimeoutError::Disconnected) => panic!("{method}: the browser ended"),
            }
        }
    }

    /// Goes to an address and waits until it is loaded.
    ///
    /// # Panics
    /// When it is not soon.
    pub fn open(&mut self, url: &str) {
        let went = self.call("Page.navigate", &json!({ "url": url }));
        assert!(went["errorText"].is_null(), "{url}: {went}");
        self.until("it is loaded", "document.readyState === 'complete'");
    }

    /// What an expression of the page comes to; a promise is awaited.
    ///
    /// # Panics
    /// When it throws.
    pub fn eval(&mut self, expression: &str) -> Value {
        let ask = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut answer = self.call("Runtime.evaluate", &ask);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true, or anything but nothing, and returns what it is.
    ///
    /// # Panics
    /// When it is not soon.
    pub fn until(&mut self, what: &str, expression: &str) -> Value {
        until(SOON, what, || {
            let value = self.eval(expression);
            let nothing = [Value::Null, json!(false), json!(""), json!(0)];
            (!nothing.contains(&value)).then_some(value)
        })
    }

    /// Presses and releases a key, `Tab`, `Enter`, `ArrowDown`, `Escape` or a letter.
    ///
    /// # Panics
    /// When the browser does not take it.
    pub fn key(&mut self, key: &str) {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "Escape" => 27,
            "Space" => 32,
            "End" => 35,
            "Home" => 36,
            "ArrowUp" => 38,
            "ArrowDown" => 40,
            _ => 0,
        };
        let text = match key {
            "Enter" => "\r",
            "Space" => " ",
            letter if letter.chars().count() == 1 => letter,
            _ => "",
        };
        let name = if key == "Space" { " " } else { key };
        let mut down = json!({ "type": "keyDown", "key": name, "windowsVirtualKeyCode": code });
        if !text.is_empty() {
            down["text"] = json!(text);
        }
        self.call("Input.dispatchKeyEvent", &down);
        self.call(
            "Input.dispatchKeyEvent",
            &json!({ "type": "keyUp", "key": name, "windowsVirtualKeyCode": code }),
        );
    }

    /// Types a text into what has the focus.
    ///
    /// # Panics
    /// When the browser does not take it.
    pub fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", &json!({ "text": text }));
    }

    /// Clicks, as a mouse does, into the middle of the first element of a selector.
    ///
    /// # Panics
    /// When there is none.
    pub fn click(&mut self, selector: &str) {
        let place = self.eval(&format!(
            "(() => {{ const e = document.querySelector({}); e.scrollIntoView({{ block: 'nearest' }}); \
             const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()",
            json!(selector)
        ));
        for kind in ["mouseMoved", "mousePressed", "mouseReleased"] {
            let event =
                json!({ "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", &event);
        }
    }

    /// Moves the mouse to a place.
    ///
    /// # Panics
    /// When the browser does not take it.
    pub fn point(&mut self, x: u32, y: u32) {
        self.call("Input.dispatchMouseEvent", &json!({ "type": "mouseMoved", "x": x, "y": y }));
    }

    /// As a system that prefers `light` or `dark`.
    ///
    /// # Panics
    /// When the browser does not take it.
    pub fn prefer(&mut self, scheme: &str) {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", &features);
    }

    /// What the console was told that is an error: exceptions, what could not be loaded, what the policy forbids.
    ///
    /// # Panics
    /// When the browser does not answer.
    pub fn complaints(&mut self) -> Vec<String> {
        // Whatever was said before is here when this is answered.
        self.eval("1");
        let mut found = Vec::new();
        for event in self.events.drain(..) {
            let parameters = &event["params"];
            match event["method"].as_str() {
                Some("Runtime.exceptionThrown") => found.push(parameters["exceptionDetails"].to_string()),
                Some("Runtime.consoleAPICalled") if parameters["type"] == "error" => {
                    found.push(parameters["args"].to_string())
                }
                Some("Log.entryAdded") if parameters["entry"]["level"] == "error" => {
                    found.push(format!("{} {}", parameters["entry"]["text"], parameters["entry"]["url"]));
                }
                _ => {}
            }
        }
        found
    }

    /// What is seen, as a PNG file.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn picture(&mut self, file: &Path) {
        let shot = self.call("Page.captureScreenshot", &json!({ "format": "png" }));
        fs::write(file, base64(shot["data"].as_str().expect("its data"))).expect("the file");
    }

    /// CPU time that the page took for scripts, styles and layout since it was loaded; painting is the browser's.
    ///
    /// # Panics
    /// When the browser does not tell.
    pub fn busy(&mut self) -> Duration {
        self.call("Performance.enable", &json!({ "timeDomain": "threadTicks" }));
        let metrics = self.call("Performance.getMetrics", &json!({}));
        let parts = ["ScriptDuration", "LayoutDuration", "RecalcStyleDuration"];
        let metrics = metrics["metrics"].as_array().expect("metrics");
        let value = |part| metrics.iter().find(|metric| metric["name"] == part)?["value"].as_f64();
        Duration::from_secs_f64(parts.map(|part| value(part).expect("a duration")).iter().sum())
    }
}

fn base64(text: &str) -> Vec<u8> {
    let value = |letter: u8| match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let letters: Vec<u8> = text.bytes().filter(|letter| *letter != b'=').map(value).collect();
    let group = |four: &[u8]| {
        let bits =
            four.iter().enumerate().fold(0_u32, |bits, (at, six)| bits | u32::from(*six) << (18 - 6 * at));
        bits.to_be_bytes()[1..four.len()].to_vec()
    };
    letters.chunks(4).flat_map(group).collect()
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("its status");
        if thread::panicking() {
            let log = fs::read_to_string(format!("{HOME}/log")).unwrap_or_default();
            // It asks for a bus that no test has.
            let log: Vec<_> = log.lines().filter(|line| !line.contains("dbus")).collect();
            eprintln!("--- log of the browser ---\n{}\n---", log.join("\n"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn a_picture_is_decoded_to_the_byte() {
        let texts = [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYmE=", "fooba")];
        texts.iter().for_each(|(text, plain)| assert_eq!(base64(text), plain.as_bytes()));
        assert_eq!(base64("+/8="), [0xfb, 0xff]);
    }
}
