//! Records, images and peers as the API shows them.

use std::collections::BTreeSet;
use std::time::Duration;

use rialto_protocol::UnixSeconds;
use rialto_protocol::channel::{Authority, ChannelName, Flaw, Pending};
use rialto_protocol::ids::{ImageId, PublicKey};
use rialto_protocol::record::{Boot, InputType, Record, Release, RevocationSubject};
use rialto_protocol::signed::Verified;
use rialto_web::api::*;

use super::{history, statements};
use crate::catalog::SharedRecord;
use crate::keys;
use crate::net::PeerView;
use crate::net::bans::{self, Offence};
use crate::net::bulk::PeerTraffic;
use crate::node::work::store_error;
use crate::node::{Judged, Node, Seen};
use crate::store::{StoredImage, Usage};
use crate::trust::{Reading, Standby, age_shown, revocation_counts};

/// Sites asked for before the page is shown; who answers later is not counted.
const PROVIDERS_WAIT: Duration = Duration::from_millis(500);
/// Heads of one channel that are shown as waiting for signatures.
const MAX_WAITING: usize = 16;
/// Frozen channels that are warned of one by one; more are only counted.
const FROZEN_LISTED: usize = 5;
/// Sites counted at most.
const PROVIDERS_COUNTED: usize = 100;

pub(super) fn status(node: &Node, listen: Vec<String>) -> Result<Status> {
    let images = node.store.images().map_err(store_error)?;
    let free_bytes = node.store.free_bytes().map_err(store_error)?;
    let policy = node.policy.borrow().status.clone();
    let floor = node.config.store.free_space_floor.bytes();
    let mut warnings = Vec::new();
    if let Some(error) = &policy.error {
        warnings.push(format!("the policy cannot be read, so nothing is accepted: {error}"));
    }
    if free_bytes < floor {
        warnings.push("the disk is fuller than the free-space floor allows: nothing is added or fetched".into());
    }
    if let Some(doubt) = node.clock().doubt {
        warnings.push(doubt.to_string());
    }
    for channel in node.contradicted_channels() {
        let title = node.channel_title(&channel);
        warnings.push(format!(
            "channel {title} contradicts itself: somebody else has its key, or signs with it elsewhere; begin a new epoch \
             with rialto key rotate, and see rialto channel show {title}"
        ));
    }
    for (channel, why) in node.stuck_channels() {
        warnings.push(format!("channel {} is not signed again: {why}", node.channel_title(&channel)));
    }
    for (channel, head) in node.waiting_channels() {
        let title = node.channel_title(&channel);
        warnings.push(format!(
            "a head of channel {title} is signed by {} of {}: it counts once more have signed, with rialto channel cosign {title} --key KEY",
            head.signed.len(),
            head.threshold
        ));
    }
    let frozen = node.frozen_channels();
    for (channel, seconds) in frozen.iter().take(FROZEN_LISTED) {
        let title = node.channel_title(channel);
        warnings.push(format!(
            "channel {title} is frozen: its head expired {} ago, and nothing newer came; see rialto channel show {title}",
            age_shown(*seconds)
        ));
    }
    if let Some(others @ 1..) = frozen.len().checked_sub(FROZEN_LISTED) {
        warnings.push(format!("{others} more channels are frozen; see rialto channel ls"));
    }
    let scrub = node.scrub.status();
    if !scrub.lost.is_empty() {
        let images: Vec<String> = scrub.lost.iter().map(ToString::to_string).collect();
        warnings.push(format!(
            "a part of these images was damaged, and no site that was asked has it: {}",
            images.join(", ")
        ));
    }
    let quota_bytes = node.config.store.quota.map(|quota| quota.bytes());
    if quota_bytes.is_some_and(|quota| node.store.stored_bytes() >= quota) {
        warnings.push(
            "the store has reached its quota: nothing is added or fetched; remove images, or raise store.quota".into(),
        );
    }
    for instance in node.deployer.list() {
        if let Some(update) = &instance.update {
            warnings.push(format!("instance {} ({}): {update}", instance.instance, instance.title));
        }
        if let Some(note) = instance.note.filter(|_| instance.state == "running" || instance.state == "failed") {
            warnings.push(format!("instance {} ({}): {note}", instance.instance, instance.title));
        }
    }
    let traffic = node.exchange.traffic();
    Ok(Status {
        version: env!("CARGO_PKG_VERSION").into(),
        name: node.config.name.to_string(),
        federation: node.config.federation.to_string(),
        peer_id: node.net.local().to_string(),
        listen,
        peers: node.net.peers().borrow().len() as u64,
        web: node.web.map(|address| format!("http://{address}/")),
        records: node.catalog.len() as u64,
        images: images.iter().filter(|image| image.is_complete).count() as u64,
        store_bytes: node.store.stored_bytes(),
        free_bytes,
        sent_bytes: traffic.sent_bytes,
        received_bytes: traffic.received_bytes,
        duplicate_bytes: traffic.duplicate_bytes,
        quota_bytes,
        reserved_bytes: node.store.reserved_bytes(),
        scrub,
        policy,
        seconds: node.started.elapsed().as_secs_f64(),
        warnings,
    })
}

pub(super) fn ban(ban: &bans::Ban) -> Ban {
    let image = match ban.offence {
        Offence::Chunks(image) => Some(image),
        _ => None,
    };
    Ban {
        peer_id: ban.peer.to_string(),
        offence: ban.offence.as_str().into(),
        image,
        why: ban.why.clone(),
        times: ban.times,
        at: ban.at.to_string(),
        until: ban.until.to_string(),
    }
}

pub(super) fn peer(peer: &PeerView, moved: Option<&PeerTraffic>, bans: &[bans::Ban]) -> Peer {
    Peer {
        bans: bans.iter().filter(|ban| ban.peer == peer.peer).map(self::ban).collect(),
        sent_bytes: moved.map_or(0, |moved| moved.sent_bytes),
        received_bytes: moved.map_or(0, |moved| moved.received_bytes),
        sent_rate: moved.map_or(0.0, |moved| moved.sent_rate),
        received_rate: moved.map_or(0.0, |moved| moved.received_rate),
        peer_id: peer.peer.to_string(),
        address: peer.address.to_string(),
        agent: peer.agent.clone(),
        rtt_ms: peer.rtt.map(|rtt| rtt.as_secs_f64() * 1000.0),
    }
}

pub(super) fn summary(node: &Node, judged: &Judged) -> ReleaseSummary {
    let record = &judged.record;
    // Only releases are judged; an empty line would be a bug, not a crash.
    let release = record.body.release();
    let publisher = release.map(|release| release.publisher).unwrap_or(PublicKey([0; 32]));
    let text = |field: fn(&Release) -> String| release.map(field).unwrap_or_default();
    ReleaseSummary {
        release: record.id,
        publisher: node.shown(&publisher),
        publisher_is_known: node.petname(&publisher).is_some(),
        name: text(|release| release.name.to_string()),
        version: text(|release| release.version.to_string()),
        summary: text(|release| release.summary.to_string()),
        arch: text(|release| release.arch.as_str().into()),
        tags: release.map(|release| release.tags.iter().map(ToString::to_string).collect()).unwrap_or_default(),
        issued: time(record.header.issued),
        age_days: (node.now().saturating_sub(record.header.issued) / 86_400).cast_signed(),
        verdict: judged.verdict.kind(),
        bytes: release.map_or(0, |release| bytes_of(node, release)),
        is_fetched: release.is_some_and(|release| release.images().iter().all(|image| is_complete(node, image))),
    }
}

/// Disks say their length themselves; other images are counted once they are known here.
fn bytes_of(node: &Node, release: &Release) -> u64 {
    let disks: BTreeSet<(ImageId, u64)> = release.disks.iter().map(|disk| (disk.image, disk.bytes)).collect();
    let others = release.images().into_iter().filter(|image| !disks.iter().any(|(disk, _)| disk == image));
    let known = others.filter_map(|image| node.store.image(&image).ok()).map(|image| image.bytes);
    disks
        .iter()
        .map(|(_, bytes)| bytes)
        .chain(&known.collect::<Vec<_>>())
        .fold(0, |sum, bytes| sum.saturating_add(*bytes))
}

fn is_complete(node: &Node, image: &ImageId) -> bool {
    node.store.is_complete(image).unwrap_or(false)
}

pub(super) fn details(node: &Node, judged: &Judged, other_sites: u64) -> Result<ReleaseDetails> {
    let Some(release) = judged.record.body.release() else {
        return Err(ApiError::not_found(format!("{} is not a release", judged.record.id)));
    };
    let summary = summary(node, judged);
    let policy = node.policy.borrow().policy.clone();
    let policy = policy.as_deref();
    let revocations: Vec<&Verified<Record>> = judged.revocations.iter().map(AsRef::as_ref).collect();
    let endorsements: Vec<&Verified<Record>> = judged.endorsements.iter().map(AsRef::as_ref).collect();
    let shown_revocation = |record: &&SharedRecord| {
        let said = record.body.revocation().filter(|said| !matches!(said.subject, RevocationSubject::Advisory(_)))?;
        Some(RevocationShown {
            record: record.id,
            signed_by: signers(node, record),
            reason: said.reason.to_string(),
            issued: time(record.header.issued),
            counts: revocation_counts(policy, record, &judged.record, &endorsements, judged.verdict.speakers()),
        })
    };
    Ok(ReleaseDetails {
        description: release.description.as_ref().map(ToString::to_string),
        licence: release.licence.as_ref().map(ToString::to_string),
        homepage: release.homepage.as_ref().map(ToString::to_string),
        sequence: release.sequence,
        expires: release.expires.map(time),
        publisher_key: openssh(&release.publisher),
        signed_by: signers(node, &judged.record),
        endorsements: statements::endorsements(node, release, &endorsements, &revocations),
        revocations: judged.revocations.iter().filter_map(|record| shown_revocation(&record)).collect(),
        advisories: node.advisories_bearing_on(&judged.record, &judged.endorsements),
        channels: (node.catalog.channels_of(&release.publisher, &release.name).iter())
            .map(|name| channel(node, name))
            .filter(|channel| channel.release == Some(judged.record.id))
            .collect(),
        history: history::of(node, judged),
        explanation: judged.verdict.explanation(),
        images: release_images(node, release),
        sites_holding: other_sites + u64::from(summary.is_fetched),
        vcpus: release.requirements.vcpus,
        memory_bytes: release.requirements.memory_bytes,
        boot: match release.boot {
            Boot::Bios {} => "bios",
            Boot::Uefi {} => "uefi",
            Boot::Direct { .. } => "direct",
        }
        .into(),
        context: release
            .context
            .inputs()
            .map(|(name, input)| ContextInputShown {
                name: name.to_string(),
                kind: match input.kind {
                    InputType::String => "string",
                    InputType::Integer => "integer",
                    InputType::Boolean => "boolean",
                }
                .into(),
                required: input.required,
                secret: input.secret,
                default: input.default.as_ref().map(ToString::to_string),
                description: input.description.as_ref().map(ToString::to_string),
            })
            .collect(),
        summary,
    })
}

/// A channel, with what it is worth now.
pub(super) fn channel(node: &Node, name: &ChannelName) -> ChannelShown {
    let Seen { heads, authority, state } = node.channel(name);
    let now = node.now();
    let head = state.head.and_then(|(id, _)| heads.iter().find(|record| record.id == id));
    let release = state.release.and_then(|id| node.catalog.get(&id));
    let is_frozen = |flaw: &Flaw| matches!(flaw, Flaw::Frozen { .. });
    let shown = |key: &PublicKey| SignerShown {
        name: node.key_shown(key),
        is_known: node.petname(key).is_some(),
        key: openssh(key),
    };
    ChannelShown {
        publisher: node.shown(&name.publisher),
        publisher_is_known: node.petname(&name.publisher).is_some(),
        name: name.name.to_string(),
        channel: name.channel.to_string(),
        release: state.release,
        version: release.and_then(|record| record.body.release().map(|release| release.version.to_string())),
        state: match state.flaws.as_slice() {
            [] => ChannelWorth::Fresh,
            flaws if flaws.iter().all(is_frozen) => ChannelWorth::Frozen,
            _ => ChannelWorth::Refused,
        },
        because: state.flaws.iter().map(ToString::to_string).collect(),
        record: state.head.map(|(id, _)| id),
        epoch: state.head.map_or(0, |(_, position)| position.epoch),
        sequence: state.head.map_or(0, |(_, position)| position.sequence),
        signed_by: head.map(|record| record.signers().map(shown).collect()).unwrap_or_default(),
        issued: head.map(|record| time(record.header.issued)),
        expires: state.expires.map(time),
        frozen_seconds: state.expires.filter(|expires| *expires <= now).map(|expires| now - expires),
        proof: state.proof.map(Vec::from).unwrap_or_default(),
        movers: match authority {
            Authority::Publisher => Movers { keys: vec![shown(&name.publisher)], threshold: 1, ..Movers::default() },
            Authority::Delegated { record, keys, threshold, expires, .. } => Movers {
                keys: keys.iter().map(shown).collect(),
                threshold: threshold as u64,
                delegation: Some(record),
                expires: Some(time(expires)),
            },
            Authority::Contradicted { .. } | Authority::Missing { .. } => Movers::default(),
        },
        renews: node.renews_at(name).map(time),
        cosigns: node.floors.signed(name).is_some_and(|signed| signed.standby == Standby::Cosigns),
        waiting: node.pending(name).into_iter().take(MAX_WAITING).map(|head| waiting(node, head)).collect(),
    }
}

fn waiting(node: &Node, head: Pending) -> WaitingHead {
    let shown = |key: &PublicKey| SignerShown {
        name: node.key_shown(key),
        is_known: node.petname(key).is_some(),
        key: openssh(key),
    };
    let release = node.catalog.get(&head.release);
    WaitingHead {
        record: head.record,
        release: head.release,
        version: release.and_then(|record| record.body.release().map(|release| release.version.to_string())),
        epoch: head.position.epoch,
        sequence: head.position.sequence,
        signed_by: head.signed.iter().map(shown).collect(),
        wanted: head.wanted.iter().map(shown).collect(),
        threshold: head.threshold as u64,
        issued: time(head.issued),
        expires: time(head.expires),
        because: head.flaw.map(|flaw| flaw.to_string()),
    }
}

pub(super) fn clock(reading: &Reading) -> ClockStatus {
    ClockStatus { now: time(reading.now), doubt: reading.doubt.map(|doubt| doubt.to_string()) }
}

fn release_images(node: &Node, release: &Release) -> Vec<ReleaseImage> {
    let shown = |image: ImageId, role: String, bytes: Option<u64>| ReleaseImage {
        image,
        role,
        bytes: bytes.or_else(|| node.store.image(&image).ok().map(|stored| stored.bytes).filter(|&bytes| bytes > 0)),
        is_complete: is_complete(node, &image),
    };
    let mut images: Vec<ReleaseImage> = Vec::new();
    for (number, disk) in (1..).zip(release.disks.iter()) {
        images.push(shown(disk.image, format!("disk {number}"), Some(disk.bytes)));
    }
    if let Boot::Direct { kernel, initrd, .. } = &release.boot {
        images.push(shown(*kernel, "kernel".into(), None));
        images.extend(initrd.map(|initrd| shown(initrd, "initrd".into(), None)));
    }
    images.extend(release.sbom.map(|sbom| shown(sbom, "sbom".into(), None)));
    images.extend(release.provenance.map(|provenance| shown(provenance, "provenance".into(), None)));
    images
}

/// Other sites that say they hold the release's first disk (or kernel), as far as they answer in time.
pub(super) async fn sites_holding(node: &Node, record: &Verified<Record>) -> u64 {
    let Some(image) = record.body.release().and_then(|release| release.images().first().copied()) else { return 0 };
    let Ok(mut found) = node.net.providers(image).await else { return 0 };
    let mut sites = BTreeSet::new();
    let deadline = tokio::time::Instant::now() + PROVIDERS_WAIT;
    while sites.len() < PROVIDERS_COUNTED {
        match tokio::time::timeout_at(deadline, found.recv()).await {
            Ok(Some(peer)) => sites.insert(peer),
            Ok(None) | Err(_) => break,
        };
    }
    sites.len() as u64
}

pub(super) fn image(node: &Node, image: &StoredImage, usage: Usage) -> ImageSummary {
    ImageSummary {
        image: image.image,
        bytes: image.bytes,
        data_bytes: image.data_bytes,
        own_bytes: usage.own_bytes,
        shared_bytes: usage.shared_bytes,
        chunks: image.chunks,
        // How many are missing is not known before the manifest is here; that it is not complete is.
        missing_chunks: image.missing_chunks.max((!image.is_complete).into()),
        used_by: node.used_by(&image.image),
        is_pinned: image.is_pinned,
        added: time(image.added),
    }
}

pub(super) fn signers(node: &Node, record: &Verified<Record>) -> Vec<SignerShown> {
    record.signers().map(|key| signer(node, key)).collect()
}

pub(super) fn signer(node: &Node, key: &PublicKey) -> SignerShown {
    SignerShown { name: node.shown(key), is_known: node.petname(key).is_some(), key: openssh(key) }
}

pub(super) fn openssh(key: &PublicKey) -> String {
    keys::to_openssh(key, "").map_or_else(|_| key.to_string(), |line| line.trim_end().to_owned())
}

pub(super) fn time(seconds: UnixSeconds) -> String {
    let second = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    second.map_or_else(|| format!("{seconds} s after 1970"), |time| time.to_string())
}
