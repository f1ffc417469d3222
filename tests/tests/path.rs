//! The way of a release from its publisher to a site that may use it, as far as it goes without a guest.

use rialto_node::trust::{Action, DecisionError, DecisionLog};
use rialto_testnet::site::{Plan, SOON, Site, text};
use rialto_tests::stage::{FEDERATION, Outcome, Stage, accepting, list, noise, reviewed, shown};
use rialto_web::api::VerdictKind;

#[test]
fn a_release_is_held_until_somebody_who_counts_has_endorsed_it() -> Outcome {
    let stage = Stage::new()?;
    let uni = stage.running("uni", &[])?;
    let lab = stage.running("lab", &[&uni])?;
    let mut shop = stage.running("shop", &[&uni])?;
    let (uni_key, lab_key) = (uni.new_key("releases")?, lab.new_key("reviews")?);
    shop.write_policy(&reviewed(&uni_key, &lab_key))?;
    shop.meets(&[&uni, &lab])?;

    let release = stage.publish(&uni, "hello", "1.0.0", "releases")?;
    let held = shop.verdict(&release, "hold")?;
    assert_eq!((&held["rule"], &held["requirements"][0]["met"]), (&"reviewed".into(), &false.into()), "{held}");
    shop.refused(&["fetch", &release], 4)?;
    shop.refused(&["deploy", &release], 4)?;
    assert_eq!(shop.status()?["images"], 0, "nothing of it was stored");

    // What counts is whose key it is, not that there is a valid signature.
    uni.new_key("stranger")?;
    let worthless = text(&uni.json(&["endorse", &release, "--key", "stranger"])?, "record")?;
    shop.until(SOON, "the stranger's word", &["show", &release], |details| {
        list(&details["endorsements"]).iter().any(|endorsement| endorsement["record"] == worthless.as_str())
    })?;
    assert_eq!(shop.json(&["policy", "explain", &release])?["verdict"], "hold");

    // A reviewer stores what it has not accepted; it still may not run there.
    lab.verdict(&release, "hold")?;
    let reviewed = lab.json(&["fetch", &release, "--held"])?;
    assert_eq!(reviewed["bytes"], 256 << 10);
    lab.refused(&["deploy", &release], 4)?;
    let said = text(&lab.json(&["endorse", &release, "--key", "reviews"])?, "record")?;

    let accepted = shop.verdict(&release, "accept")?;
    assert_eq!(accepted["requirements"][0]["met"], true);
    assert!(text(&accepted["requirements"][0], "because")?.contains("lab"), "{accepted}");
    let fetched = shop.json(&["fetch", "uni/hello@1.0.0"])?;
    assert_eq!((&fetched["images"], &fetched["bytes"]), (&accepted["images"], &(256 << 10).into()));
    assert!(fetched["wire_bytes"].as_u64() >= Some(256 << 10), "{fetched}");

    // Whoever endorsed may take it back.
    lab.json(&["revoke", &said, "--key", "reviews", "--reason", "it does not answer"])?;
    shop.verdict(&release, "hold")?;
    shop.refused(&["fetch", &release], 4)?;
    Ok(())
}

#[test]
fn each_decision_that_is_acted_on_is_written_down() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let key = uni.new_key("releases")?;
    let release = stage.publish(&uni, "hello", "1.0.0", "releases")?;
    uni.refused(&["fetch", &release], 4)?;
    uni.refused(&["deploy", &release], 4)?;
    uni.write_policy(&accepting(&key))?;
    uni.json(&["fetch", &release])?;
    // Asking decides nothing, and fetching an image asks no policy.
    let explained = uni.json(&["policy", "explain", &release])?;
    uni.json(&["fetch", explained["images"][0].as_str().unwrap_or_default()])?;

    let policy = text(&uni.status()?["policy"], "hash")?;
    let log = DecisionLog::read(uni.directory().join("decisions.log"))?;
    let decisions = log.map(|line| Ok(line?.decision)).collect::<Result<Vec<_>, DecisionError>>()?;
    let seen: Vec<_> = decisions.iter().map(|decision| (decision.action, decision.verdict)).collect();
    let (hold, accept) = (VerdictKind::Hold, VerdictKind::Accept);
    assert_eq!(seen, [(Action::Fetch, hold), (Action::Deploy, hold), (Action::Fetch, accept)]);
    let last = &decisions[2];
    assert!(decisions.iter().all(|decision| decision.release.to_string() == release));
    assert_eq!((last.policy.as_deref(), &*last.rule), (Some(&*policy), "what uni makes"));
    assert!(decisions[0].images.is_empty() && serde_json::to_value(&last.images)? == explained["images"]);
    Ok(())
}

#[test]
fn a_revocation_counts_if_it_is_the_publishers_own() -> Outcome {
    let stage = Stage::new()?;
    let uni = stage.running("uni", &[])?;
    let mut shop = stage.running("shop", &[&uni])?;
    let key = uni.new_key("releases")?;
    uni.new_key("stranger")?;
    shop.write_policy(&accepting(&key))?;
    let release = stage.publish(&uni, "hello", "1.0.0", "releases")?;
    let other = stage.publish(&uni, "other", "1.0.0", "releases")?;
    shop.verdict(&release, "accept")?;

    uni.json(&["revoke", &release, "--key", "stranger", "--reason", "envy"])?;
    let seen =
        shop.until(SOON, "an opinion", &["show", &release], |details| list(&details["revocations"]).len() == 1)?;
    assert_eq!(seen["revocations"][0]["counts"], false);
    assert_eq!(seen["verdict"], "accept");

    uni.json(&["revoke", &release, "--key", "releases", "--reason", "a hole in its web server"])?;
    let rejected = shop.verdict(&release, "reject")?;
    assert!(text(&rejected, "because")?.contains("a hole in its web server"), "{rejected}");
    let refused = shop.refused(&["fetch", &release], 4)?;
    assert!(text(&refused, "message")?.contains("rejected"), "{refused}");
    shop.verdict(&other, "accept")?;

    // The key itself: everything that it made.
    uni.json(&["revoke", &key, "--key", "releases", "--reason", "stolen"])?;
    shop.verdict(&other, "reject")?;
    Ok(())
}

#[test]
fn what_is_served_is_what_the_configuration_says() -> Outcome {
    let stage = Stage::new()?;
    let serving = |serve: &str| -> Outcome<Site> {
        let plan = Plan { serve: Some(serve.into()), ..Plan::new(serve, FEDERATION) };
        let mut site = stage.site(&plan)?;
        site.start()?;
        site.new_key("releases")?;
        Ok(site)
    };
    let (published, none) = (serving("published")?, serving("none")?);
    let shop = stage.running("shop", &[&published, &none])?;
    shop.meets(&[&published, &none])?;

    // Published by nobody: only who serves all of its images offers it.
    let file = shown(&stage.file("private", noise("private", 100_000))?);
    let private = text(&published.json(&["image", "add", &file])?, "image")?;
    none.json(&["image", "add", &file])?;
    let release = stage.publish(&published, "hello", "1.0.0", "releases")?;
    let hidden = stage.publish(&none, "hidden", "1.0.0", "releases")?;
    for release in [&release, &hidden] {
        shop.verdict(release, "hold")?;
    }
    // Side by side, because a fetch has patience with those who may come.
    let (private_image, hidden_release, offered) = std::thread::scope(|scope| {
        let private_image = scope.spawn(|| shop.refused(&["fetch", &private], 1));
        let hidden_release = scope.spawn(|| shop.refused(&["fetch", &hidden, "--held"], 1));
        (private_image.join(), hidden_release.join(), shop.json(&["fetch", &release, "--held"]))
    });
    for refused in [private_image, hidden_release] {
        let refused = refused.expect("the command's thread")?;
        assert!(text(&refused, "message")?.contains("no site that can be reached has"), "{refused}");
    }
    assert_eq!(offered?["bytes"], 256 << 10);

    let all = stage.running("all", &[&shop])?;
    all.json(&["image", "add", &file])?;
    shop.meets(&[&all])?;
    assert_eq!(shop.json(&["fetch", &private])?["bytes"], 100_000);
    Ok(())
}
