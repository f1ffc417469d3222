//! The demo: three sites on this machine, and one appliance on its way from the one that makes it to the one that runs
//! it.
//!
//! `uni` publishes, `lab` tries and endorses, `shop` consumes. Everything is real: three processes, loopback sockets, QEMU
//! guests; every line that starts with a site's name is a command that a person could type. A claim that the demo makes
//! is checked before it is printed, and the first that does not hold ends it.

pub mod damage;
mod narrator;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rialto_protocol::record::PREDICATE_TESTED;
use serde_json::Value;

use crate::appliance::{self, Appliance, ApplianceError};
use crate::http::http_get;
use crate::site::{Plan, Rialto, Site, SiteError, text};
use crate::wait::{self, WaitError};
use narrator::{Narrator, short};

/// A guest answers within about 5 s under emulation; a busy machine gets this long.
const GUEST_WITHIN: Duration = Duration::from_secs(90);
/// The federation's name.
const FEDERATION: &str = "demo";

/// Why the demo ended early.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A site did not do what it should.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// The appliance could not be built.
    #[error("the appliance could not be built: {0}")]
    Appliance(#[from] ApplianceError),
    /// Something did not happen in time, or a person ended the demo.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// A claim does not hold.
    #[error("expected {expected}, but found {found}")]
    Claim {
        /// What the demo wanted to show.
        expected: String,
        /// What it saw.
        found: String,
    },
    /// Files of the demo itself, or the terminal.
    #[error("{0}")]
    Io(#[from] io::Error),
}

type Result<T> = std::result::Result<T, DemoError>;

/// How to run it.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// End once everything has been shown, instead of staying until Ctrl-C.
    pub once: bool,
    /// Leave the sites' directories and logs behind.
    pub keep: bool,
    /// The `rialto` to use; where `None`, `$RIALTO_BIN` or the one beside this program.
    pub binary: Option<PathBuf>,
}

/// Runs the demo. Whatever happens, its nodes and guests are gone when this returns, and so is its directory, unless it
/// was to be kept.
///
/// # Errors
/// The first thing that did not go as told.
pub fn run(options: &Options) -> Result<()> {
    let started = Instant::now();
    let rialto = match &options.binary {
        Some(binary) => Rialto::at(binary)?,
        None => Rialto::find()?,
    };
    let mut base = tempfile::Builder::new().prefix("rialto-demo-").tempdir()?;
    base.disable_cleanup(options.keep);

    let mut narrator = Narrator::new(started);
    if options.keep {
        narrator.say(&format!("directories and logs stay in {}", base.path().display()))?;
    }
    // The sites end before their directories go: `base` is older than `story`, and so dropped later.
    let mut story = Story::set_up(narrator, &rialto, base.path())?;
    let release = story.publish()?;
    story.held(&release)?;
    story.review(&release)?;
    story.accepted(&release)?;
    story.fetch(&release)?;
    let page = story.deploy(&release)?;
    story.unknown_signer()?;
    story.damaged_holder()?;
    story.revocation(&release, page)?;
    story.addresses()?;
    story.narrator.ready(started.elapsed())?;
    if !options.once {
        story.narrator.stays()?;
        wait::until_interrupted();
        story.narrator.ends()?;
    }
    Ok(())
}

/// The three sites and who tells of them.
struct Story {
    narrator: Narrator,
    appliance: Appliance,
    uni: Site,
    lab: Site,
    shop: Site,
    /// The public key of uni's releases, as policy files have it.
    uni_key: String,
    base: PathBuf,
}

/// A page that a guest serves, and what it must say.
struct Page {
    port: u16,
    greeting: String,
}

impl Story {
    fn set_up(mut narrator: Narrator, rialto: &Rialto, base: &Path) -> Result<Self> {
        narrator.step("An appliance: Debian's cloud kernel, busybox, a web page")?;
        let building = Instant::now();
        let appliance = Appliance::cached()?;
        narrator.say(&format!(
            "built, or found as built before, in {:.1} s: a 64 MiB disk, kernel, initrd, appliance.toml",
            building.elapsed().as_secs_f64()
        ))?;

        narrator.step("Three sites in one federation: uni publishes, lab reviews, shop consumes")?;
        // What a mirror has fetched, it offers as well.
        let plan = |name| Plan { serve: Some("all".to_owned()), ..Plan::new(name, FEDERATION) };
        let mut uni = Site::init(rialto, base, &plan("uni"))?;
        uni.start()?;
        let mut lab = Site::init(rialto, base, &plan("lab").knows(&uni)?)?;
        lab.start()?;
        let mut shop = Site::init(rialto, base, &plan("shop").knows(&uni)?)?;
        let (uni_key, lab_key) = (uni.new_key("releases")?, lab.new_key("reviews")?);
        shop.write_policy(&shop_policy(&uni_key, &lab_key))?;
        shop.start()?;
        lab.meets(&[&uni, &shop])?;
        shop.meets(&[&uni, &lab])?;
        narrator
            .say("lab and shop were told uni's address only; by now each of the three is connected to both others")?;
        narrator.say("shop's policy.toml:")?;
        narrator.quote(&shop_policy("ssh-ed25519 AAAA… (uni's)", "ssh-ed25519 AAAA… (lab's)"))?;
        Ok(Self { narrator, appliance, uni, lab, shop, uni_key, base: base.to_owned() })
    }

    fn publish(&mut self) -> Result<String> {
        self.narrator.step("uni signs and publishes hello 1.0.0")?;
        let description = self.appliance.description();
        let published =
            run_json(&mut self.narrator, &self.uni, &["publish", &path_text(&description), "--key", "releases"])?;
        let release = text(&published, "release")?;
        self.narrator.say(&format!("release {}", short(&release)))?;
        Ok(release)
    }

    fn held(&mut self, release: &str) -> Result<()> {
        self.narrator.step("shop hears of it, and holds it: nobody that it trusts has tried it")?;
        self.narrator.command(&self.shop, &["policy", "explain", release])?;
        let verdict = self.shop.verdict(release, "hold")?;
        self.narrator.verdict(&verdict)?;
        run_refused(&mut self.narrator, &self.shop, &["fetch", release])
    }

    fn review(&mut self, release: &str) -> Result<()> {
        self.narrator.step("lab fetches it all the same, for review: stored, not deployable")?;
        self.lab.verdict(release, "hold")?;
        let fetched = run_json(&mut self.narrator, &self.lab, &["fetch", release, "--held"])?;
        self.narrator.fetched(&fetched, &[&self.uni, &self.shop])?;
        run_refused(&mut self.narrator, &self.lab, &["deploy", release, "--set", "greeting=too early"])?;

        self.narrator.step("lab allows what uni signs on its test bench, boots it, reads its page, endorses it")?;
        self.lab.write_policy(&lab_policy(&self.uni_key))?;
        self.lab.verdict(release, "accept")?;
        let greeting = format!("tried at lab, {}", nonce());
        let (instance, page) = boot(&mut self.narrator, &self.lab, release, greeting)?;
        self.narrator.page(&page.greeting, page.port)?;
        run_json(&mut self.narrator, &self.lab, &["stop", &instance, "--force"])?;
        run_json(&mut self.narrator, &self.lab, &["rm", &instance])?;
        run_json(&mut self.narrator, &self.lab, &["endorse", release, "--key", "reviews", "--type", PREDICATE_TESTED])?;
        Ok(())
    }

    fn accepted(&mut self, release: &str) -> Result<()> {
        self.narrator.step("shop hears of the endorsement: its policy accepts the release now")?;
        self.narrator.command(&self.shop, &["policy", "explain", release])?;
        let verdict = self.shop.verdict(release, "accept")?;
        self.narrator.verdict(&verdict)?;
        Ok(())
    }

    fn fetch(&mut self, release: &str) -> Result<()> {
        self.narrator.step("shop fetches it, from uni and lab at once")?;
        let fetched = run_json(&mut self.narrator, &self.shop, &["fetch", release])?;
        self.narrator.fetched(&fetched, &[&self.uni, &self.lab])?;
        for holder in [&self.uni, &self.lab] {
            let bytes = fetched["peers"][holder.peer_id()?].as_u64().unwrap_or(0);
            claim(bytes > 0, &format!("chunks from {}", holder.name()), &fetched)?;
        }
        Ok(())
    }

    fn deploy(&mut self, release: &str) -> Result<Page> {
        self.narrator.step("shop deploys it with a greeting of its own, and reads it back from the guest")?;
        let greeting = format!("What news on the Rialto? {}", nonce());
        let (_, page) = boot(&mut self.narrator, &self.shop, release, greeting)?;
        self.narrator.page(&page.greeting, page.port)?;
        Ok(page)
    }

    fn unknown_signer(&mut self) -> Result<()> {
        self.narrator.step("Somebody whom shop does not know publishes, too: it stays held")?;
        self.lab.new_key("stranger")?;
        let description = self.appliance.describe(&self.base.join("free-coffee"), "free-coffee", "1.0.0")?;
        let arguments = ["publish", &path_text(&description), "--key", "stranger"];
        let release = text(&run_json(&mut self.narrator, &self.lab, &arguments)?, "release")?;
        // Even with the endorsement of a reviewer whom shop trusts: it is about a publisher that no rule names.
        run_json(
            &mut self.narrator,
            &self.lab,
            &["endorse", &release, "--key", "reviews", "--type", PREDICATE_TESTED],
        )?;
        self.narrator.command(&self.shop, &["policy", "explain", &release])?;
        let verdict = self.shop.verdict(&release, "hold")?;
        self.narrator.verdict(&verdict)?;
        run_refused(&mut self.narrator, &self.shop, &["deploy", &release, "--set", "greeting=hello"])
    }

    fn damaged_holder(&mut self) -> Result<()> {
        self.narrator.step("uni publishes hello 1.1.0, lab mirrors it, and half of it goes bad on lab's disk")?;
        let description = self.appliance.next_description();
        let arguments = ["publish", &path_text(&description), "--key", "releases"];
        let release = text(&run_json(&mut self.narrator, &self.uni, &arguments)?, "release")?;
        let accepted = self.lab.verdict(&release, "accept")?;
        let disk = first_image(&accepted)?;
        run_json(&mut self.narrator, &self.lab, &["fetch", &release])?;
        self.lab.stop()?;
        let data = Appliance::data(appliance::NEXT_VERSION);
        let damaged = damage::flip(self.lab.directory(), &data[..data.len() / 2])?;
        claim(damaged > 0, "the release's data in lab's store", &Value::from(damaged))?;
        self.lab.start()?;
        self.shop.meets(&[&self.uni, &self.lab])?;
        self.narrator
            .say(&format!("{damaged} bytes in lab's store are wrong now; shop fetches from both all the same"))?;

        self.shop.verdict(&release, "hold")?;
        let fetched = run_json(&mut self.narrator, &self.shop, &["fetch", &release, "--held"])?;
        self.narrator.fetched(&fetched, &[&self.uni, &self.lab])?;
        let at_shop = run_json(&mut self.narrator, &self.shop, &["image", "verify", &disk])?;
        claim(at_shop["bad_chunks"] == 0, "no bad chunk at shop", &at_shop)?;
        self.narrator.say(&format!("complete at shop: {} good chunks, none bad", at_shop["good_chunks"]))?;
        // The damage was real: lab's own check finds it, and says so with its exit code.
        self.narrator.command(&self.lab, &["image", "verify", &disk])?;
        let at_lab = self.lab.rialto(&["image", "verify", &disk, "--json"])?;
        let at_lab = at_lab.expect(1)?.json()?;
        claim(at_lab["bad_chunks"].as_u64() > Some(0), "bad chunks at lab", &at_lab)?;
        self.narrator
            .say(&format!("at lab: {} bad chunks, refused; what they should be came from uni", at_lab["bad_chunks"]))?;
        Ok(())
    }

    fn revocation(&mut self, release: &str, page: Page) -> Result<()> {
        self.narrator.step("uni finds a flaw in hello 1.0.0 and revokes it: no new deployment, anywhere")?;
        let arguments = ["revoke", release, "--key", "releases", "--reason", "the greeting can be too cheerful"];
        run_json(&mut self.narrator, &self.uni, &arguments)?;
        let verdict = self.shop.verdict(release, "reject")?;
        self.narrator.verdict(&verdict)?;
        run_refused(&mut self.narrator, &self.shop, &["deploy", release, "--set", "greeting=once more"])?;
        read_page(&page)?;
        self.narrator.say("shop's policy says on-revoke = \"block-new\": the guest that runs already runs on")?;
        Ok(())
    }

    fn addresses(&mut self) -> Result<()> {
        self.narrator.step("Have a look")?;
        for site in [&self.uni, &self.lab, &self.shop] {
            let link = site.rialto(&["web"])?;
            let link = link.expect(0)?.stdout.split_whitespace().find(|word| word.starts_with("http://"));
            let Some(link) = link else {
                return Err(DemoError::Claim {
                    expected: "a link from `rialto web`".into(),
                    found: "something else".into(),
                });
            };
            self.narrator.address(site, link)?;
        }
        Ok(())
    }
}

/// Deploys a release, and reads the page of its guest.
fn boot(narrator: &mut Narrator, site: &Site, release: &str, greeting: String) -> Result<(String, Page)> {
    let setting = format!("greeting={greeting}");
    let arguments = ["deploy", release, "--set", &setting, "--publish", "0:80"];
    let deployed = run_json(narrator, site, &arguments)?;
    let port = deployed["ports"][0]["host"].as_u64().and_then(|port| u16::try_from(port).ok());
    let port =
        port.ok_or_else(|| DemoError::Claim { expected: "a published port".to_owned(), found: deployed.to_string() })?;
    let page = Page { port, greeting };
    read_page(&page)?;
    Ok((text(&deployed, "instance")?, page))
}

fn read_page(page: &Page) -> Result<()> {
    let answer = http_get(page.port, "/", GUEST_WITHIN)?;
    claim(answer.body.contains(&page.greeting), &page.greeting, &Value::from(answer.body))
}

fn run_json(narrator: &mut Narrator, site: &Site, arguments: &[&str]) -> Result<Value> {
    narrator.command(site, arguments)?;
    Ok(site.json(arguments)?)
}

/// Runs a command that policy must refuse.
fn run_refused(narrator: &mut Narrator, site: &Site, arguments: &[&str]) -> Result<()> {
    narrator.command(site, arguments)?;
    let error = site.refused(arguments, 4)?;
    narrator.refusal(&error)?;
    Ok(())
}

fn claim(holds: bool, expected: &str, found: &Value) -> Result<()> {
    if holds { Ok(()) } else { Err(DemoError::Claim { expected: expected.to_owned(), found: found.to_string() }) }
}

/// The boot disk: the first image of an accepted release.
fn first_image(explanation: &Value) -> Result<String> {
    let image = explanation["images"][0].as_str().map(str::to_owned);
    image.ok_or_else(|| DemoError::Claim { expected: "images to deploy".to_owned(), found: explanation.to_string() })
}

fn path_text(path: &Path) -> String {
    path.display().to_string()
}

/// Something that no canned answer can contain.
fn nonce() -> String {
    format!("{:08x}", fastrand::Rng::new().u32(..))
}

fn lab_policy(uni: &str) -> String {
    format!(
        r#"[signers]
uni = "{uni}"

[[rule]]
name  = "test bench"
match = {{ publisher = ["uni"] }}
then  = "accept"

[default]
then = "hold"
"#
    )
}

fn shop_policy(uni: &str, lab: &str) -> String {
    format!(
        r#"[signers]
uni = "{uni}"
lab = "{lab}"

[roles]
reviewers = {{ signers = ["lab"], threshold = 1, max-age = "90d" }}

[[rule]]
name      = "what uni makes and lab has tried"
match     = {{ publisher = ["uni"] }}
require   = ["endorsed-by:reviewers"]
then      = "accept"
on-revoke = "block-new"

[default]
then = "hold"
"#
    )
}
