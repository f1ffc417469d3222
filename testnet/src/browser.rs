//! A real browser: headless Chromium, driven through chromedriver by WebDriver (W3C, <https://www.w3.org/TR/webdriver2/>).
//!
//! A [`Browser`] has a fresh profile. What it starts it also ends: dropping it closes the browser, then its driver.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http;
use crate::wait::{self, WaitError, eventually};

/// Chromium starts within a second or two; a busy machine gets this long, and so does each command.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long what a page is waited for may take.
pub const SOON: Duration = Duration::from_secs(30);
/// An answer of the driver is cut off here; a picture of a page is not near it.
const MAX_ANSWER_BYTES: u64 = 64 << 20;

/// Why the browser did not do something.
#[derive(Debug, thiserror::Error)]
pub enum BrowserError {
    /// There is no driver, or it does not start.
    #[error("chromedriver {0}; it is in the Debian packages chromium and chromium-driver")]
    Driver(String),
    /// The driver does not answer.
    #[error("chromedriver does not answer: {0}")]
    Connection(#[from] io::Error),
    /// The driver says no.
    #[error("the browser refused {command}: {message}")]
    Refused {
        /// The command, as method and path.
        command: String,
        /// What the driver said.
        message: String,
    },
    /// The driver's answer is not what WebDriver says.
    #[error("the browser answered {command} with {answer}")]
    Answer {
        /// The command, as method and path.
        command: String,
        /// What came.
        answer: String,
    },
    /// Something did not appear in time.
    #[error(transparent)]
    Wait(#[from] WaitError),
}

type Result<T> = std::result::Result<T, BrowserError>;

/// Light or dark, as the person has set their machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Dark on light.
    Light,
    /// Light on dark.
    Dark,
}

/// One browser with one window.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    address: SocketAddr,
    /// Path of the session at the driver; empty until there is one.
    session: String,
    profile: TempDir,
}

impl Browser {
    /// A browser with an empty profile, 1280 × 900 pixels.
    ///
    /// # Errors
    /// Chromium or its driver is not installed, or does not start.
    pub fn start() -> Result<Self> {
        let profile = tempfile::Builder::new().prefix("rialto-browser-").tempdir()?;
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| BrowserError::Driver(format!("cannot be run ({error})")))?;
        let port = port_of(driver.stdout.take());
        // From here on dropping ends it.
        let mut browser = Self { driver, address: ([127, 0, 0, 1], 0).into(), session: String::new(), profile };
        browser.address.set_port(port?);

        let profile = format!("--user-data-dir={}", browser.profile.path().display());
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--no-first-run",
            "--hide-scrollbars",
            "--window-size=1280,900",
            &profile,
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": { "args": arguments },
        } } });
        let session = browser.command("POST", "/session", &wanted)?;
        let id = session["sessionId"].as_str().ok_or_else(|| answer("POST /session", &session))?;
        browser.session = format!("/session/{id}");
        browser.view(1280, 900, Scheme::Light)?;
        Ok(browser)
    }

    /// Goes to an address and returns once the page is loaded.
    ///
    /// # Errors
    /// The driver's.
    pub fn open(&self, url: &str) -> Result<()> {
        self.post("url", &json!({ "url": url })).map(drop)
    }

    /// The size of the window in CSS pixels, and whether the person likes it dark. Below 600 pixels it is a phone.
    ///
    /// # Errors
    /// The driver's.
    pub fn view(&self, width: u32, height: u32, scheme: Scheme) -> Result<()> {
        let is_phone = width < 600;
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            &json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone }),
        )?;
        let scheme = if scheme == Scheme::Dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools("Emulation.setEmulatedMedia", &json!({ "features": features })).map(drop)
    }

    /// Runs a script's body in the page, and returns what it returns. The page's own security policy does not apply to it.
    ///
    /// # Errors
    /// The driver's, and what the script throws.
    pub fn script(&self, body: &str) -> Result<Value> {
        self.post("execute/sync", &json!({ "script": body, "args": [] }))
    }

    /// Waits until a script returns something that is neither false nor empty, and returns that.
    ///
    /// # Errors
    /// It has not within 30 s, or throws.
    pub fn until(&self, what: &str, body: &str) -> Result<Value> {
        let look = || match self.script(body) {
            Ok(Value::Null | Value::Bool(false)) => Err(format!("nothing; the page says: {}", self.words())),
            Ok(Value::String(text)) if text.is_empty() => Err("an empty text".into()),
            Ok(seen) => Ok(seen),
            Err(error) => Err(error.to_string()),
        };
        Ok(eventually(SOON, what, look)?)
    }

    /// The text of the first element that fits a CSS selector, as a person sees it; waits until there is one.
    ///
    /// # Errors
    /// There is none within 30 s.
    pub fn text(&self, selector: &str) -> Result<String> {
        let body = format!("return document.querySelector({})?.innerText", json!(selector));
        Ok(self.until(selector, &body)?.as_str().unwrap_or_default().to_owned())
    }

    /// Clicks on the first element that fits a CSS selector, as a mouse would; it must be visible and not covered.
    ///
    /// # Errors
    /// There is none within 30 s, or it cannot be clicked.
    pub fn click(&self, selector: &str) -> Result<()> {
        self.on(selector, "click", &json!({}))
    }

    /// Types into the first element that fits a CSS selector.
    ///
    /// # Errors
    /// There is none within 30 s, or it cannot be typed into.
    pub fn write(&self, selector: &str, text: &str) -> Result<()> {
        self.on(selector, "value", &json!({ "text": text }))
    }

    /// Presses and releases one key of the keyboard, wherever the focus is. Keys without a character have one in WebDriver:
    /// Tab is `\u{E004}`, Enter `\u{E007}`.
    ///
    /// # Errors
    /// The driver's.
    pub fn press(&self, key: char) -> Result<()> {
        let strokes = json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": strokes });
        self.post("actions", &json!({ "actions": [keyboard] })).map(drop)
    }

    /// What the browser has complained about since the last call: errors of scripts, violations of the content security
    /// policy, answers that are errors.
    ///
    /// # Errors
    /// The driver's.
    pub fn complaints(&self) -> Result<Vec<String>> {
        let log = self.post("se/log", &json!({ "type": "browser" }))?;
        let entries = log.as_array().ok_or_else(|| answer("se/log", &log))?;
        Ok(entries.iter().map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect())
    }

    /// A picture of what the window shows, as PNG.
    ///
    /// # Errors
    /// The driver's.
    pub fn picture(&self) -> Result<Vec<u8>> {
        let shot = self.devtools("Page.captureScreenshot", &json!({ "format": "png", "optimizeForSpeed": false }))?;
        let text = shot["data"].as_str().unwrap_or_default();
        BASE64.decode(text.as_bytes()).map_err(|_| answer("Page.captureScreenshot", &shot))
    }

    /// The page as text, for errors.
    fn words(&self) -> String {
        let said = self.script("return location.pathname + ': ' + document.body?.innerText.slice(0, 2000)");
        said.ok().and_then(|said| said.as_str().map(str::to_owned)).unwrap_or_default()
    }

    fn on(&self, selector: &str, what: &str, with: &Value) -> Result<()> {
        let wanted = json!({ "using": "css selector", "value": selector });
        let act = || {
            let found = self.post("element", &wanted)?;
            // WebDriver's name for the field that has an element's id.
            let id = found["element-6066-11e4-a52e-4f735466cecf"].as_str().ok_or_else(|| answer("element", &found))?;
            self.post(&format!("element/{id}/{what}"), with)
        };
        // A part of the page may be replaced between finding and clicking.
        eventually(SOON, &format!("{what} on {selector}"), act)?;
        Ok(())
    }

    fn devtools(&self, name: &str, with: &Value) -> Result<Value> {
        self.post("goog/cdp/execute", &json!({ "cmd": name, "params": with }))
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.command("POST", &format!("{}/{path}", self.session), body)
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let command = format!("{method} {path}");
        let said = exchange(self.address, method, path, &body.to_string())?;
        let mut said: Value = serde_json::from_str(&said)
            .map_err(|_| BrowserError::Answer { command: command.clone(), answer: said.chars().take(500).collect() })?;
        match said["value"]["message"].as_str() {
            Some(message) if said["value"]["error"].is_string() => {
                Err(BrowserError::Refused { command, message: message.lines().next().unwrap_or_default().to_owned() })
            }
            _ => Ok(said["value"].take()),
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // The driver closes the browser; without it, the browser would stay.
            let _ = self.command("DELETE", &self.session, &json!({}));
        }
        wait::end(&mut self.driver);
    }
}

/// The port that the driver says it listens on. Its output is read on, so that it never writes into a closed pipe.
fn port_of(stdout: Option<ChildStdout>) -> Result<u16> {
    let (sender, ports) = sync_channel(1);
    std::thread::spawn(move || {
        for line in stdout.into_iter().flat_map(|out| BufReader::new(out).lines()).map_while(io::Result::ok) {
            let port = line.split_once("started successfully on port ").map(|(_, port)| port.trim_end_matches('.'));
            if let Some(port) = port.and_then(|port| port.parse().ok()) {
                let _ = sender.try_send(port);
            }
        }
    });
    let started = Instant::now();
    loop {
        match ports.recv_timeout(Duration::from_millis(100)) {
            Ok(port) => return Ok(port),
            Err(RecvTimeoutError::Disconnected) => return Err(BrowserError::Driver("ended at once".into())),
            Err(RecvTimeoutError::Timeout) if wait::is_interrupted() => return Err(WaitError::Interrupted.into()),
            Err(RecvTimeoutError::Timeout) if started.elapsed() < PATIENCE => {}
            Err(RecvTimeoutError::Timeout) => {
                return Err(BrowserError::Driver(format!("did not start within {PATIENCE:?}")));
            }
        }
    }
}

/// One command, one answer, one connection. The driver wants HTTP/1.1.
fn exchange(address: SocketAddr, method: &str, path: &str, body: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes())?;

    // The driver says how long its answer is, and may leave the connection open after it.
    let not_http = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP");
    let mut answer = BufReader::new(stream.take(MAX_ANSWER_BYTES));
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if answer.read_until(b'\n', &mut head)? == 0 {
            return Err(not_http());
        }
    }
    let head = http::parse(&head).ok_or_else(not_http)?;
    let length = head.header("content-length").and_then(|length| length.parse().ok()).ok_or_else(not_http)?;
    let mut body = String::new();
    answer.take(length).read_to_string(&mut body)?;
    Ok(body)
}

fn answer(command: &str, answer: &Value) -> BrowserError {
    BrowserError::Answer { command: command.to_owned(), answer: answer.to_string().chars().take(500).collect() }
}
