//! The web interface of nodes that run, in a real browser.

use rialto_testnet::browser::{Browser, Scheme};
use rialto_testnet::site::{Site, text};
use rialto_tests::stage::{Outcome, Stage, accepting, noise, reviewed, shown};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const TAB: char = '\u{E004}';
const ENTER: char = '\u{E007}';
/// More than the pages' links, fields and buttons: whoever presses Tab so often has been everywhere.
const TABS: usize = 40;
/// A phone.
const PHONE: (u32, u32) = (390, 844);

/// A browser that has been let in by the link of `rialto web`. It ends on the catalog.
fn let_in(site: &Site) -> Outcome<Browser> {
    let browser = Browser::start()?;
    browser.open(&text(&site.json(&["web"])?, "url")?)?;
    browser.until("the catalog", "return location.pathname === '/' && document.querySelector('#results') !== null")?;
    Ok(browser)
}

fn go(browser: &Browser, site: &Site, path: &str) -> Outcome {
    Ok(browser.open(&format!("http://{}{path}", site.web()?))?)
}

/// What Tab reaches, in its order: ids, or what stands there.
fn tabbed(browser: &Browser) -> Outcome<Vec<String>> {
    let mut reached = Vec::new();
    for _ in 0..TABS {
        browser.press(TAB)?;
        let at = browser
            .script("const at = document.activeElement; return at === document.body ? null : at.id || at.innerText")?;
        // Past the last of them the focus is nowhere, and then at the first.
        reached.extend(at.as_str().map(str::to_owned));
    }
    Ok(reached)
}

fn is_in_order(reached: &[String], wanted: &[&str]) -> bool {
    let mut rest = reached.iter();
    wanted.iter().all(|wanted| rest.any(|at| at == wanted))
}

fn no_complaints(browser: &Browser) -> Outcome {
    let complaints = browser.complaints()?;
    assert!(complaints.is_empty(), "the browser complains: {complaints:#?}");
    Ok(())
}

#[test]
fn a_release_is_found_judged_and_fetched_in_the_browser() -> Outcome {
    let stage = Stage::new()?;
    let uni = stage.running("uni", &[])?;
    let mut shop = stage.running("shop", &[&uni])?;
    let (key, reviews) = (uni.new_key("releases")?, uni.new_key("reviews")?);
    shop.write_policy(&reviewed(&key, &reviews).replace("lab", "desy"))?;
    let description = stage.description("batch-worker", "2.1.0", &noise("batch", 48 << 20))?;
    let release = text(&uni.json(&["publish", &description, "--key", "releases"])?, "release")?;
    shop.verdict(&release, "hold")?;
    shop.meets(&[&uni])?;

    let browser = let_in(&shop)?;
    let card = browser.text(".catalog .card")?;
    for said in ["uni/batch-worker", "2.1.0", "Held", "An appliance of the tests", "today", "x86_64", "48 MiB"] {
        assert!(card.contains(said), "'{said}' is not in {card}");
    }
    assert!(!card.contains("fetched"), "{card}");
    let reached = tabbed(&browser)?;
    let wanted = ["Skip to the content", "Catalog", "q", "Search", "All", "Rejected", &format!("r-{release}")];
    assert!(is_in_order(&reached, &wanted), "{wanted:?} in {reached:?}");

    browser.script("document.activeElement.blur()")?;
    browser.press('/')?;
    assert_eq!(browser.script("return document.activeElement.id")?, "q");
    browser.write("#q", &format!("nothing-like-it{ENTER}"))?;
    browser.until("an empty result", "return document.querySelector('.empty')?.innerText.includes('Nothing fits')")?;
    browser.script("document.querySelector('#q').value = ''")?;
    browser.write("#q", &format!("BATCH tests{ENTER}"))?;
    let summary = "return document.querySelector('.summary')?.innerText.includes('1 release for')";
    browser.until("one result", summary)?;
    browser.click(".catalog h2 a")?;
    browser.until("the release's page", "return location.pathname.startsWith('/releases/')")?;

    let verdict = browser.text("#verdict")?;
    for said in
        ["Held", "Rule 'reviewed' accepts it once", "endorsed-by:reviewers", "not met", "desy has not endorsed it"]
    {
        assert!(verdict.contains(said), "'{said}' is not in {verdict}");
    }
    assert!(browser.text("#voices")?.contains("Nobody has endorsed it yet"));
    assert!(browser.text("#facts")?.contains("1 site"), "{}", browser.text("#facts")?);
    assert_eq!(
        browser.script("return document.querySelector('#deploy')")?,
        Value::Null,
        "a held release is not deployed"
    );

    is_fetched_by_keyboard(&browser, &uni)?;
    browser
        .until("the images complete", "return document.querySelector('#images').innerText.includes('✓ complete')")?;
    browser.until(
        "this site counted",
        "return /2 sites.*this one included/s.test(document.querySelector('#facts').innerText)",
    )?;
    assert_eq!(shop.status()?["images"], 1);

    // The page turns by itself, and offers what can be done now.
    uni.json(&["endorse", &release, "--key", "reviews", "--type", "https://desy.example/scanned"])?;
    browser.until("the verdict turned", "return document.querySelector('#verdict .badge.accept') !== null")?;
    browser.until("the form to deploy it", "return document.querySelector('#deploy') !== null")?;
    assert!(
        browser.text("#voices")?.contains("desy says https://desy.example/scanned"),
        "{}",
        browser.text("#voices")?
    );
    let reached = tabbed(&browser)?;
    assert!(reached.iter().any(|at| at == "deploy"), "{reached:?}");
    no_complaints(&browser)
}

/// Presses the button from the keyboard while the only holder sleeps, so that the fetch is seen under way; then wakes it.
fn is_fetched_by_keyboard(browser: &Browser, holder: &Site) -> Outcome {
    browser.script(
        "window.seen = [];
         const look = () => window.seen.push(document.querySelector('.jobs .amount')?.innerText ?? '');
         new MutationObserver(look).observe(document.querySelector('.jobs'), { childList: true, subtree: true, characterData: true, attributes: true });",
    )?;
    let holder = holder.node_pid().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    let holder = holder.ok_or_else(|| std::io::Error::other("the holder does not run"))?;
    kill_process(holder, Signal::STOP)?;
    let mut presses = 0;
    while browser.script("return document.activeElement.id")? != "fetch" {
        presses += 1;
        assert!(presses < TABS, "Tab does not reach the button");
        browser.press(TAB)?;
    }
    browser.press(ENTER)?;
    let pressed = browser.until("a fetch under way", "return document.querySelector('.job [data-cancel]:not([hidden])') !== null && document.querySelector('#fetch').disabled");
    kill_process(holder, Signal::CONT)?;
    pressed?;
    browser.until(
        "the end of the fetch",
        "return document.querySelector('.job.is-done .stage')?.innerText.includes('✓ Fetched 48 MiB')",
    )?;
    assert!(browser.text(".job")?.contains("came from 1 site."), "{}", browser.text(".job")?);
    let seen = browser.script("return window.seen.filter((amount) => amount.includes(' of 48 MiB')).length")?;
    assert!(seen.as_u64() > Some(0), "no progress was shown");
    Ok(())
}

#[test]
fn what_a_stranger_wrote_is_shown_and_does_nothing() -> Outcome {
    let stage = Stage::new()?;
    let uni = stage.running("uni", &[])?;
    let mut shop = stage.running("shop", &[&uni])?;
    let key = uni.new_key("releases")?;
    uni.new_key("stranger")?;
    shop.write_policy(&accepting(&key))?;
    let script = "<script>document.title='owned'</script>";
    let summary = format!("{script}<img src=x onerror=\"document.title='owned'\"><svg onload=alert(1)>");
    let hostile = format!(
        "summary = {}\ndescription = {}\nlicence = {}\nhomepage = {}",
        json!(summary),
        json!(format!("</div></section><h1>Accepted</h1>{script}")),
        json!("MIT\u{202e}lanrete\u{2066}\u{200b}"),
        json!("javascript:document.title='owned'"),
    );
    let description = stage.description("invoice", "1.0.0", &noise("invoice", 64 << 10))?;
    let written = std::fs::read_to_string(&description)?.replace("summary = \"An appliance of the tests\"", &hostile);
    let asked = format!(
        "\n[context.greeting]\ntype = \"string\"\ndefault = {}\ndescription = {}\n",
        json!(script),
        json!(summary)
    );
    let description = shown(&stage.file("invoice-1.0.0/hostile.toml", written + &asked)?);
    let release = text(&uni.json(&["publish", &description, "--key", "stranger"])?, "release")?;
    shop.verdict(&release, "hold")?;

    let browser = let_in(&shop)?;
    let web = shop.web()?;
    let escaped = |path: &str| -> Outcome<String> {
        browser.open(&format!("http://{web}{path}"))?;
        let main = browser.text("main")?;
        assert!(main.contains(script), "it is not shown as it was written: {main}");
        let made =
            "return [...document.querySelectorAll('main script, main img, main svg, main a[href^=javascript]')].length";
        assert_eq!(browser.script(made)?, 0, "{path}");
        assert_eq!(browser.script("return document.querySelectorAll('h1').length")?, 1, "{path}");
        let title = browser.script("return document.title")?;
        assert!(title.as_str().is_some_and(|title| !title.contains("owned") || path.contains("q=")), "{title}");
        Ok(main)
    };
    let catalog = escaped("/")?;
    assert!(catalog.contains("~") && catalog.contains("Held"), "{catalog}");
    let page = escaped(&format!("/releases/{release}"))?;
    assert!(page.contains("MIT⟨U+202E⟩lanrete⟨U+2066⟩⟨U+200B⟩"), "{page}");
    assert!(page.contains("javascript:document.title='owned'") && page.contains("<h1>Accepted</h1>"), "{page}");
    assert_eq!(browser.script("return document.querySelector('h1 .petname')")?, Value::Null, "nobody vouches for it");
    assert!(browser.text("h1 .fingerprint")?.starts_with('~'));
    escaped("/?q=%3Cscript%3Edocument.title%3D%27owned%27%3C%2Fscript%3E")?;
    // As a deployment form, once it is accepted.
    let stranger = text(&shop.json(&["show", &release])?, "publisher_key")?;
    shop.write_policy(&accepting(&stranger))?;
    shop.verdict(&release, "accept")?;
    let page = escaped(&format!("/releases/{release}"))?;
    assert!(page.contains("greeting"), "{page}");
    no_complaints(&browser)?;

    // The second wall: had a script slipped in, it would not run, and the browser would say so.
    let title = browser.script(
        "const slipped = document.createElement('script'); slipped.textContent = \"document.title = 'owned'\"; document.body.append(slipped); return document.title",
    )?;
    assert!(title.as_str().is_some_and(|title| title.contains("invoice")), "{title}");
    let complaints = browser.complaints()?;
    assert!(complaints.iter().any(|line| line.contains("Content Security Policy")), "{complaints:?}");
    Ok(())
}

#[test]
fn a_broken_policy_is_told_on_every_page_and_no_page_is_wider_than_a_phone() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let key = uni.new_key("releases")?;
    let policy = accepting(&key);
    uni.write_policy(&policy)?;
    let long = "a".repeat(64);
    let release = stage.publish(&uni, &long, "1.0.0", "releases")?;
    uni.verdict(&release, "accept")?;

    let browser = let_in(&uni)?;
    assert_eq!(browser.script("return document.querySelector('#banner').innerText.trim()")?, "");
    uni.write_policy(&policy.replace("[default]", "[defualt]"))?;
    browser.until("the banner, by itself", "return document.querySelector('#banner [role=alert]') !== null")?;
    let banner = browser.text("#banner")?;
    for said in ["The policy file cannot be read, so nothing is accepted", "defualt"] {
        assert_eq!(banner.matches(said).count(), 1, "'{said}' once in {banner}");
    }
    let colour = "return getComputedStyle(document.querySelector('#banner .is-bad')).backgroundColor";
    assert_eq!(browser.script(colour)?, "rgb(156, 39, 24)", "it is red");
    browser.until("nothing accepted", "return document.querySelector('.badge.accept') === null")?;

    for scheme in [Scheme::Light, Scheme::Dark] {
        browser.view(PHONE.0, PHONE.1, scheme)?;
        for path in ["/", "/?q=nothing", &format!("/releases/{release}"), "/instances", "/node"] {
            go(&browser, &uni, path)?;
            assert!(browser.text("#banner")?.contains("nothing is accepted"), "{path}");
            let widths = browser.script("return [document.documentElement.scrollWidth, innerWidth]")?;
            assert_eq!(widths[1], PHONE.0, "{path}");
            assert!(widths[0].as_u64() <= widths[1].as_u64(), "{path} is {} pixels wide", widths[0]);
        }
    }
    uni.write_policy(&policy)?;
    browser.until("the banner gone", "return document.querySelector('#banner').innerText.trim() === ''")?;
    no_complaints(&browser)
}

#[test]
fn a_guest_is_deployed_watched_stopped_and_removed_in_the_browser() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let key = uni.new_key("releases")?;
    uni.write_policy(&accepting(&key))?;
    // Nothing that boots: the firmware says so on the console, which is all that is wanted here.
    let release = stage.publish(&uni, "hello", "1.0.0", "releases")?;
    uni.verdict(&release, "accept")?;

    let browser = let_in(&uni)?;
    go(&browser, &uni, "/instances")?;
    assert!(browser.text("main")?.contains("Nothing runs here"));
    go(&browser, &uni, &format!("/releases/{release}"))?;
    browser.write("[name='publish.guest']", "80")?;
    browser.click("#deploy")?;
    browser.click(".job.is-done a")?;
    browser.until("the console", "return document.querySelector('#console')?.innerText.includes('SeaBIOS')")?;
    let card = browser.text("#instance")?;
    for said in ["uni/hello@1.0.0", "running", "http://localhost:", "port 80 of the guest", "64 MiB"] {
        assert!(card.contains(said), "'{said}' is not in {card}");
    }
    assert_eq!(uni.guests().len(), 1);

    browser.click(".confirm summary")?;
    browser.click(".confirm [name=force]")?;
    browser.click(".confirm button")?;
    browser.until("it stopped", "return document.querySelector('.state.stopped') !== null")?;
    assert!(uni.guests().is_empty());
    browser.click(".confirm summary")?;
    browser.click(".confirm button")?;
    browser
        .until("nothing left", "return document.querySelector('.empty')?.innerText.includes('Nothing runs here')")?;
    assert_eq!(uni.json(&["ps"])?, json!([]));
    no_complaints(&browser)
}
