//! A node that exists in memory only, for tests and for looking at pages.

#![allow(dead_code, unreachable_pub, reason = "shared by a test and an example, which use different parts")]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use rialto_protocol::ids::{ImageId, RecordId};
use rialto_protocol::record::Severity;
use rialto_web::Sessions;
use rialto_web::api::*;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

/// The node.
pub struct Fake {
    pub status: Status,
    pub releases: Vec<ReleaseDetails>,
    pub images: Vec<ImageSummary>,
    pub peers: Vec<Peer>,
    pub instances: Mutex<Vec<Instance>>,
    pub console: Vec<Bytes>,
    /// Requests that asked for something, in words.
    pub asked: Mutex<Vec<String>>,
    pub changes: broadcast::Sender<Change>,
    /// Pause between two words of a job; none in tests.
    pub pace: Option<Duration>,
    /// What a release's images become when a job is done.
    pub sessions: Option<(Sessions, u16)>,
    pub jobs: AtomicU64,
}

pub const DAY: &str = "2026-02-26T09:14:00Z";

pub fn record(name: &str) -> RecordId {
    RecordId::of(name.as_bytes())
}

pub fn image(name: &str) -> ImageId {
    ImageId::of(name.as_bytes())
}

fn signer(name: &str) -> SignerShown {
    SignerShown {
        name: name.into(),
        is_known: !name.starts_with('~'),
        key: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK2nBqM6pZ0PVsR4nP7tqkq1Jm1hY2p9b8cXw0dQZ3aL".into(),
    }
}

/// An advisory that counts.
pub fn advisory() -> AdvisoryShown {
    AdvisoryShown {
        record: record("advisory"),
        id: "DSA-5678-1".into(),
        ecosystem: "debian-12".into(),
        package: "openssl".into(),
        fixed: Some("3.0.11-1~deb12u3".into()),
        severity: Severity::High,
        summary: Some("A remote peer can crash it.".into()),
        issued: DAY.into(),
        signed_by: vec![signer("security")],
        counts: true,
        because: None,
    }
}

/// One release; the rest of it can be changed afterwards.
pub fn release(publisher: &str, name: &str, version: &str, verdict: VerdictKind) -> ReleaseDetails {
    let id = record(&format!("{publisher}/{name}@{version}"));
    let disk = image(&format!("disk of {name} {version}"));
    let is_accepted = verdict == VerdictKind::Accept;
    let requirement =
        |name: &str, met, because: &str| RequirementOutcome { name: name.into(), met, because: because.into() };
    ReleaseDetails {
        summary: ReleaseSummary {
            release: id,
            publisher: publisher.into(),
            publisher_is_known: !publisher.starts_with('~'),
            name: name.into(),
            version: version.into(),
            summary: String::new(),
            arch: "x86_64".into(),
            tags: vec![],
            issued: DAY.into(),
            age_days: 3,
            verdict,
            bytes: 477 << 20,
            is_fetched: false,
        },
        description: None,
        licence: Some("Apache-2.0".into()),
        homepage: None,
        sequence: 7,
        expires: Some("2026-12-31T00:00:00Z".into()),
        publisher_key: signer(publisher).key,
        signed_by: vec![signer(publisher)],
        endorsements: vec![],
        revocations: vec![],
        advisories: vec![],
        channels: vec![],
        history: vec![HistoryEvent {
            kind: HistoryKind::Signed,
            record: id,
            signed_by: vec![signer(publisher)],
            what: String::new(),
            issued: DAY.into(),
            arrived: Some(DAY.into()),
            from: Some("12D3KooWPartner".into()),
        }],
        explanation: Explanation {
            release: id,
            verdict,
            rule: "production workers".into(),
            because: match verdict {
                VerdictKind::Accept => "both requirements of the rule are met".into(),
                VerdictKind::Hold => "one of two requirements is not met yet".into(),
                VerdictKind::Reject => "revoked by its own publisher".into(),
            },
            requirements: vec![
                requirement(
                    "endorsed-by:reviewers",
                    is_accepted,
                    if is_accepted {
                        "endorsed by security and desy, of 2 needed"
                    } else {
                        "0 of 2 signers of 'reviewers' have endorsed it"
                    },
                ),
                requirement("sbom", true, "an SBOM is named by the release"),
            ],
            images: if is_accepted { vec![disk] } else { vec![] },
            policy: Some("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".into()),
        },
        images: vec![
            ReleaseImage { image: disk, role: "disk 1".into(), bytes: Some(2 << 30), is_complete: false },
            ReleaseImage { image: image("kernel"), role: "kernel".into(), bytes: Some(9_437_184), is_complete: true },
            ReleaseImage { image: image("sbom"), role: "sbom".into(), bytes: None, is_complete: false },
        ],
        sites_holding: 3,
        vcpus: 2,
        memory_bytes: 1 << 30,
        boot: "direct".into(),
        context: vec![],
    }
}

/// A channel that is fresh; the rest of it can be changed afterwards.
pub fn channel(publisher: &str, name: &str, channel: &str) -> ChannelShown {
    ChannelShown {
        publisher: publisher.into(),
        publisher_is_known: !publisher.starts_with('~'),
        name: name.into(),
        channel: channel.into(),
        release: Some(record("release")),
        version: Some("1.0.0".into()),
        state: ChannelWorth::Fresh,
        because: vec![],
        record: Some(record("head")),
        epoch: 0,
        sequence: 1_772_097_240,
        signed_by: vec![signer(publisher)],
        issued: Some(DAY.into()),
        expires: Some("2026-03-05T09:14:00Z".into()),
        frozen_seconds: None,
        proof: vec![],
        movers: Movers { keys: vec![signer(publisher)], threshold: 1, delegation: None, expires: None },
        renews: None,
        cosigns: false,
        waiting: vec![WaitingHead {
            record: record("waiting"),
            release: record("release"),
            version: Some("1.1.0".into()),
            epoch: 1,
            sequence: 7,
            signed_by: vec![signer("one")],
            wanted: vec![signer("two")],
            threshold: 2,
            issued: DAY.into(),
            expires: DAY.into(),
            because: None,
        }],
    }
}

fn input(
    name: &str,
    kind: &str,
    required: bool,
    secret: bool,
    default: Option<&str>,
    description: &str,
) -> ContextInputShown {
    ContextInputShown {
        name: name.into(),
        kind: kind.into(),
        required,
        secret,
        default: default.map(Into::into),
        description: Some(description.into()),
    }
}

impl Fake {
    /// A node that has just been set up.
    pub fn empty() -> Self {
        Self {
            status: Status {
                version: "0.1.0".into(),
                name: "shop".into(),
                federation: "lagoon".into(),
                peer_id: "12D3KooWFakeFakeFakeFakeFakeFakeFakeFakeFakeFakeFake".into(),
                listen: vec!["/ip4/127.0.0.1/tcp/4701/p2p/12D3KooWFakeFakeFakeFakeFakeFakeFakeFakeFakeFakeFake".into()],
                peers: 0,
                web: None,
                records: 0,
                images: 0,
                store_bytes: 0,
                free_bytes: 80 << 30,
                sent_bytes: 0,
                received_bytes: 0,
                duplicate_bytes: 0,
                quota_bytes: Some(200 << 30),
                reserved_bytes: 0,
                scrub: ScrubStatus::default(),
                policy: PolicyStatus {
                    hash: Some("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".into()),
                    error: None,
                },
                seconds: 93_784.0,
                warnings: vec![],
            },
            releases: vec![],
            images: vec![],
            peers: vec![],
            instances: Mutex::default(),
            console: vec![
                Bytes::from_static(b"[    0.000000] Linux version 6.1.0\r\n"),
                Bytes::from_static(b"\x1b[1;32mhello\x1b[0m login: "),
            ],
            asked: Mutex::default(),
            changes: broadcast::channel(16).0,
            pace: None,
            sessions: None,
            jobs: AtomicU64::new(1),
        }
    }

    /// A node in the middle of its life.
    pub fn rich() -> Self {
        let mut fake = Self::empty();
        fake.status = Status { peers: 3, records: 1_284, images: 5, store_bytes: 3 << 30, ..fake.status };
        let mut batch = release("cern", "batch-worker", "4.2.1", VerdictKind::Accept);
        batch.summary.summary = "HTCondor worker with CVMFS, ready to join a pool".into();
        batch.summary.tags = ["batch", "htcondor", "cvmfs"].map(Into::into).into();
        batch.description = Some("A worker node for high-throughput computing.\n\nJoins the pool that its operator names, mounts software from CVMFS, and shuts down by itself when it has had no work for an hour.".into());
        batch.homepage = Some("https://batch.example.org/worker".into());
        batch.endorsements = vec![
            EndorsementShown {
                record: record("e1"),
                signed_by: vec![signer("security")],
                predicate: "https://rialto.example/scanned/v1".into(),
                note: Some("No findings above low.".into()),
                issued: DAY.into(),
                is_void: false,
                statement: None,
            },
            EndorsementShown {
                record: record("e2"),
                signed_by: vec![signer("desy")],
                predicate: "https://rialto.example/tested/v1".into(),
                note: None,
                issued: DAY.into(),
                is_void: false,
                statement: None,
            },
            EndorsementShown {
                record: record("e3"),
                signed_by: vec![signer("~k3v5qmzr2n7abcde")],
                predicate: "https://rialto.example/rebuilt/v1".into(),
                note: Some("Rebuilt bit for bit.".into()),
                issued: DAY.into(),
                is_void: true,
                statement: None,
            },
            EndorsementShown {
                record: record("e4"),
                signed_by: vec![],
                predicate: "https://slsa.dev/provenance/v1".into(),
                note: None,
                issued: DAY.into(),
                is_void: false,
                statement: Some(StatementShown {
                    title: Some("SLSA provenance".into()),
                    fields: vec![FieldShown { name: "builder".into(), value: "https://builder.example.org/".into() }],
                    time: Some(DAY.into()),
                    signatures: 1,
                    brought_by: vec![signer("desy")],
                    problem: Some("its statement is about none of the release's disks".into()),
                }),
            },
        ];
        batch.context = vec![
            input("pool", "string", true, false, None, "host name of the pool's central manager"),
            input("pool-token", "string", true, true, None, "token that lets this worker join"),
            input("slots", "integer", false, false, Some("2"), "job slots to offer"),
            input("drain-on-idle", "boolean", false, false, Some("true"), "shut down when there is no work"),
        ];
        let mut testing = channel("cern", "batch-worker", "testing");
        testing.state = ChannelWorth::Frozen;
        testing.because = vec!["it is frozen: its head expired, and nothing newer came".into()];
        testing.frozen_seconds = Some(3 * 86_400);
        batch.channels = vec![channel("cern", "batch-worker", "stable"), testing];
        let mut hello = release("uni", "hello", "1.0.0", VerdictKind::Accept);
        hello.summary.summary = "Says what it is told to, over HTTP".into();
        hello.summary.tags = vec!["demo".into()];
        hello.summary.bytes = 14 << 20;
        hello.summary.is_fetched = true;
        hello.summary.age_days = 0;
        hello.context = vec![input("greeting", "string", true, false, None, "what the page says")];
        let mut notebook = release("desy", "notebook", "2026.02", VerdictKind::Hold);
        notebook.summary.summary = "JupyterLab with the photon science stack, one user".into();
        notebook.summary.tags = ["jupyter", "python"].map(Into::into).into();
        notebook.summary.arch = "aarch64".into();
        notebook.summary.age_days = 12;
        let mut stray = release("~k3v5qmzr2n7abcde", "mail-relay", "0.9.3-rc1", VerdictKind::Hold);
        stray.summary.summary = "A small outbound mail relay with DKIM signing".into();
        stray.summary.age_days = 97;
        stray.explanation.rule = "default".into();
        stray.explanation.because = "no rule names its publisher, and the default is to hold".into();
        stray.explanation.requirements = vec![];
        let mut old = release("cern", "batch-worker", "4.1.0", VerdictKind::Reject);
        old.summary.summary = "HTCondor worker with CVMFS, ready to join a pool".into();
        old.summary.age_days = 214;
        old.summary.is_fetched = true;
        old.advisories =
            vec![BearingShown { advisory: advisory(), package: "openssl 3.0.11-1~deb12u2".into(), doubt: None }];
        old.revocations = vec![
            RevocationShown {
                record: record("v1"),
                signed_by: vec![signer("cern")],
                reason: "Ships an OpenSSL with a known remote hole; use 4.2.1.".into(),
                issued: DAY.into(),
                counts: true,
            },
            RevocationShown {
                record: record("v2"),
                signed_by: vec![signer("~z7z7z7z7z7z7z7z7")],
                reason: "I do not like it.".into(),
                issued: DAY.into(),
                counts: false,
            },
        ];
        let mut gateway = release("security", "vpn-gateway", "12.1+deb12u3", VerdictKind::Accept);
        gateway.summary.summary = "WireGuard gateway with a management page; keys are made on first boot".into();
        gateway.summary.tags = ["network", "wireguard"].map(Into::into).into();
        gateway.summary.age_days = 1;
        fake.releases = vec![hello, gateway, batch, notebook, stray, old];
        fake.peers = [("uni", 0.4), ("lab", 12.73)]
            .map(|(name, rtt)| Peer {
                peer_id: format!("12D3KooW{name}PeerPeerPeerPeerPeerPeerPeerPeerPe{name}"),
                address: "/ip4/192.0.2.17/tcp/4701".into(),
                agent: Some("rialto/0.1.0".into()),
                rtt_ms: Some(rtt),
                ..Peer::default()
            })
            .into();
        fake.images = vec![
            ImageSummary {
                image: image("disk of hello 1.0.0"),
                bytes: 64 << 20,
                data_bytes: 14 << 20,
                own_bytes: 3 << 20,
                shared_bytes: 6 << 20,
                chunks: 448,
                missing_chunks: 0,
                used_by: vec!["uni/hello@1.0.0".into()],
                is_pinned: true,
                added: DAY.into(),
            },
            ImageSummary {
                image: image("disk of batch-worker 4.2.1"),
                bytes: 2 << 30,
                data_bytes: 477 << 20,
                own_bytes: 40 << 20,
                shared_bytes: 70 << 20,
                chunks: 15_264,
                missing_chunks: 5_012,
                used_by: vec!["cern/batch-worker@4.2.1".into(), "cern/batch-worker@4.1.0".into()],
                is_pinned: false,
                added: DAY.into(),
            },
            ImageSummary {
                image: image("stray"),
                bytes: 1 << 20,
                data_bytes: 1 << 20,
                own_bytes: 1 << 20,
                shared_bytes: 0,
                chunks: 32,
                missing_chunks: 0,
                used_by: vec![],
                is_pinned: false,
                added: DAY.into(),
            },
        ];
        let instance = |id: &str, title: &str, state: &str, note: Option<&str>| Instance {
            instance: id.into(),
            release: record(title),
            title: title.into(),
            state: state.into(),
            class: "guaranteed".into(),
            ports: vec![PortForward { host: 18_080, guest: 80 }, PortForward { host: 2_222, guest: 22 }],
            accelerator: "tcg".into(),
            vcpus: 1,
            memory_bytes: 256 << 20,
            created: DAY.into(),
            note: note.map(Into::into),
            channel: Some("uni/hello:stable".into()),
            update: (state == "running").then(|| "uni/hello:stable has moved on".into()),
        };
        *fake.instances.get_mut().unwrap() = vec![
            instance("hello-7f3a", "uni/hello@1.0.0", "running", None),
            instance(
                "batch-worker-19c2",
                "cern/batch-worker@4.1.0",
                "running",
                Some("its release was revoked by cern: ships an OpenSSL with a known remote hole"),
            ),
            instance("hello-02be", "uni/hello@1.0.0", "starting", None),
            instance("vpn-gateway-aa01", "security/vpn-gateway@12.1+deb12u3", "stopped", None),
        ];
        fake
    }

    /// Every text that others can write is hostile.
    pub fn hostile() -> Self {
        let evil = |field: &str| {
            format!(
                "{field}<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&\u{202e}\u{200b}\u{2066}\u{feff}\u{1b}[31m\0\r{}",
                "W".repeat(400)
            )
        };
        let mut fake = Self::rich();
        fake.status.name = evil("site");
        fake.status.federation = evil("federation");
        fake.status.policy.error = Some(evil("policy error"));
        fake.status.warnings = vec![evil("warning")];
        fake.status.listen = vec![evil("listen")];
        fake.status.peer_id = evil("peer id");
        fake.status.version = evil("version");
        for details in &mut fake.releases {
            let key = evil("key");
            let evil_signer = || SignerShown { name: evil("signer"), is_known: true, key: key.clone() };
            details.summary.publisher = evil("publisher");
            details.summary.name = evil("name");
            details.summary.version = evil("version");
            details.summary.summary = evil("summary");
            details.summary.arch = evil("arch");
            details.summary.tags = vec![evil("tag")];
            details.summary.issued = evil("issued");
            details.description = Some(evil("description"));
            details.licence = Some(evil("licence"));
            details.homepage = Some(format!("javascript:alert(3)//{}", evil("homepage")));
            details.expires = Some(evil("expires"));
            details.publisher_key = evil("key");
            details.boot = evil("boot");
            details.signed_by = vec![evil_signer(), SignerShown { is_known: false, ..evil_signer() }];
            details.endorsements = vec![EndorsementShown {
                record: record("e"),
                signed_by: vec![evil_signer()],
                predicate: evil("predicate"),
                note: Some(evil("note")),
                issued: evil("issued"),
                is_void: false,
                statement: None,
            }];
            details.revocations = vec![RevocationShown {
                record: record("r"),
                signed_by: vec![evil_signer()],
                reason: evil("reason"),
                issued: evil("issued"),
                counts: true,
            }];
            let advisory = AdvisoryShown {
                id: evil("id"),
                fixed: Some(evil("fixed")),
                summary: Some(evil("summary")),
                issued: evil("issued"),
                signed_by: vec![evil_signer()],
                ..advisory()
            };
            details.advisories = vec![BearingShown { advisory, package: evil("package"), doubt: Some(evil("doubt")) }];
            let mut contradicted = channel(&evil("publisher"), &evil("name"), &evil("channel"));
            contradicted.state = ChannelWorth::Refused;
            contradicted.because = vec![evil("flaw")];
            contradicted.signed_by = vec![evil_signer()];
            contradicted.issued = Some(evil("issued"));
            details.channels = vec![contradicted];
            details.history = vec![HistoryEvent {
                kind: HistoryKind::Revoked,
                signed_by: vec![evil_signer()],
                what: evil("what"),
                issued: evil("issued"),
                arrived: Some(evil("arrived")),
                from: Some(evil("from")),
                ..details.history[0].clone()
            }];
            details.explanation.rule = evil("rule");
            details.explanation.because = evil("because");
            details.explanation.policy = Some(evil("policy"));
            details.explanation.requirements =
                vec![RequirementOutcome { name: evil("requirement"), met: false, because: evil("because") }];
            details.images[0].role = evil("role");
            details.context = ["string", "integer", "boolean", &evil("kind")]
                .map(|kind| ContextInputShown {
                    name: evil("input"),
                    kind: kind.into(),
                    required: true,
                    secret: false,
                    default: Some(evil("default")),
                    description: Some(evil("help")),
                })
                .into();
            details.context.push(ContextInputShown { default: Some("short<b>".into()), ..details.context[0].clone() });
            details.context.push(ContextInputShown {
                secret: true,
                default: Some("hunter2-the-default".into()),
                ..details.context[0].clone()
            });
        }
        for peer in &mut fake.peers {
            *peer = Peer {
                peer_id: evil("peer"),
                address: evil("address"),
                agent: Some(evil("agent")),
                rtt_ms: None,
                ..Peer::default()
            };
        }
        for image in &mut fake.images {
            image.used_by = vec![evil("used by")];
            image.added = evil("added");
        }
        for instance in fake.instances.get_mut().unwrap() {
            instance.title = evil("title");
            instance.state = evil("state");
            instance.class = evil("class");
            instance.accelerator = evil("accelerator");
            instance.created = evil("created");
            instance.note = Some(evil("note"));
        }
        fake.instances.get_mut().unwrap()[0].instance = "evil/../\"><script>".into();
        fake.console = vec![evil("console").into()];
        fake
    }

    fn note(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }

    fn found(&self, release: &str) -> Result<ReleaseDetails> {
        let reference = |details: &ReleaseDetails| {
            format!("{}/{}@{}", details.summary.publisher, details.summary.name, details.summary.version)
        };
        let fits =
            |details: &&ReleaseDetails| details.summary.release.to_string() == release || reference(details) == release;
        self.releases
            .iter()
            .find(fits)
            .cloned()
            .ok_or_else(|| ApiError::not_found(format!("no release is known as '{release}'")))
    }

    fn job(&self, what: String) -> Result<JobStarted> {
        self.note(what);
        Ok(JobStarted { job: format!("job-{}", self.jobs.fetch_add(1, Ordering::Relaxed)) })
    }

    fn changed(&self, id: &str, state: &str) -> Result<InstanceChanged> {
        let mut instances = self.instances.lock().unwrap();
        let at = instances
            .iter()
            .position(|instance| instance.instance == id)
            .ok_or_else(|| ApiError::not_found("no such instance"))?;
        instances[at].state = state.into();
        if state == "removed" {
            instances.remove(at);
        }
        drop(instances);
        let _ = self.changes.send(Change::Instances);
        Ok(InstanceChanged { instance: id.into(), state: state.into() })
    }
}

#[async_trait]
impl Backend for Fake {
    async fn status(&self) -> Result<Status> {
        Ok(self.status.clone())
    }
    async fn bans(&self) -> Result<Vec<Ban>> {
        Ok(vec![Ban {
            peer_id: "12D3KooWLiar".into(),
            offence: "chunks".into(),
            image: Some(image("disk")),
            why: "it sent <b>chunks</b> that are not the image's".into(),
            times: 2,
            at: DAY.into(),
            until: DAY.into(),
        }])
    }
    async fn lift_bans(&self, peer: &str) -> Result<BansLifted> {
        self.note(format!("lift {peer}"));
        Ok(BansLifted { peer_id: peer.into(), lifted: 1 })
    }
    async fn rates(&self) -> Result<Rates> {
        Ok(Rates::default())
    }

    async fn change_rates(&self, request: ChangeRates) -> Result<Rates> {
        let limit = |limit: Option<RateLimit>| limit.and_then(RateLimit::bytes_per_second);
        Ok(Rates {
            upload: limit(request.upload),
            upload_per_peer: limit(request.upload_per_peer),
            download: limit(request.download),
            is_overridden: !request.reset,
        })
    }

    async fn peers(&self) -> Result<Vec<Peer>> {
        Ok(self.peers.clone())
    }
    async fn search(&self, query: SearchQuery) -> Result<SearchPage> {
        let fits = |summary: &&ReleaseSummary| {
            let text = format!("{} {} {} {}", summary.publisher, summary.name, summary.summary, summary.tags.join(" "))
                .to_lowercase();
            let is = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
            query.verdict.is_none_or(|verdict| verdict == summary.verdict)
                && is(&query.publisher, &summary.publisher)
                && is(&query.arch, &summary.arch)
                && query.tag.as_ref().is_none_or(|tag| summary.tags.contains(tag))
                && query.q.split_whitespace().all(|word| text.contains(&word.to_lowercase()))
        };
        let all: Vec<_> = self.releases.iter().map(|details| &details.summary).filter(fits).cloned().collect();
        let total = all.len();
        let count = |value: &str| FacetCount { value: value.into(), count: 1 };
        let facets = SearchFacets {
            publishers: all.iter().map(|summary| count(&summary.publisher)).collect(),
            tags: all.iter().flat_map(|summary| &summary.tags).map(|tag| count(tag)).collect(),
            archs: all.iter().map(|summary| count(&summary.arch)).collect(),
            verdicts: all.iter().map(|summary| count(summary.verdict.as_str())).collect(),
        };
        let releases: Vec<_> = all.into_iter().skip(query.offset).take(query.limit).collect();
        let next = query.offset + releases.len();
        Ok(SearchPage { total, is_exact: true, next: (next < total).then_some(next), facets, releases })
    }
    async fn release(&self, release: &str) -> Result<ReleaseDetails> {
        self.found(release)
    }
    async fn explain(&self, release: &str) -> Result<Explanation> {
        Ok(self.found(release)?.explanation)
    }
    async fn replay(&self, decision: u64) -> Result<Replay> {
        let found = self.releases.first().ok_or_else(|| ApiError::not_found("no decision"))?;
        Ok(Replay {
            decision,
            time: "2026-01-01T00:00:00Z".into(),
            action: "deploy".into(),
            title: "uni/hello@1.0.0".into(),
            verdict: VerdictKind::Accept,
            rule: "ours".into(),
            replayed: found.explanation.clone(),
            is_same: true,
            missing: vec![record("gone")],
        })
    }
    async fn replay_at(&self, request: ReplayAtRequest) -> Result<ReplayAt> {
        Ok(ReplayAt {
            at: request.at,
            policy: "0".repeat(64),
            policy_because: "in force since 2026-01-01T00:00:00Z".into(),
            is_policy_certain: true,
            notes: vec![],
            releases: 0,
            changed: 0,
            verdicts: vec![],
        })
    }
    async fn policy_diff(&self, request: PolicyDiffRequest) -> Result<PolicyDiff> {
        let old = request.old.unwrap_or_else(|| "in force".into());
        Ok(PolicyDiff { old, new: request.new, releases: 2, changed: 0, changes: vec![] })
    }
    async fn images(&self) -> Result<Vec<ImageSummary>> {
        Ok(self.images.clone())
    }
    async fn add_image(&self, request: AddImageRequest) -> Result<JobStarted> {
        self.job(format!("add {}", request.file))
    }
    async fn verify_image(&self, image: ImageId) -> Result<JobStarted> {
        self.job(format!("verify {image}"))
    }
    async fn export_image(&self, image: ImageId, request: ExportImageRequest) -> Result<JobStarted> {
        self.job(format!("export {image} {}", request.file))
    }
    async fn remove_image(&self, image: ImageId) -> Result<()> {
        self.note(format!("remove {image}"));
        Ok(())
    }
    async fn pin_image(&self, image: ImageId, is_pinned: bool) -> Result<()> {
        self.note(format!("pin {image} {is_pinned}"));
        Ok(())
    }
    async fn scrub(&self) -> Result<JobStarted> {
        self.job("gc".into())
    }
    async fn collect_garbage(&self) -> Result<JobStarted> {
        self.job("gc".into())
    }
    async fn publish(&self, request: PublishRequest) -> Result<JobStarted> {
        self.job(format!("publish {} {}", request.file, request.key))
    }
    async fn endorse(&self, request: EndorseRequest) -> Result<Recorded> {
        self.note(format!("endorse {}", request.release));
        Ok(Recorded { record: record("endorsement") })
    }
    async fn statement(&self, endorsement: &str) -> Result<StatementExport> {
        self.note(format!("statement of {endorsement}"));
        let (record, release) = (record("endorsement"), record("release"));
        Ok(StatementExport { record, release, predicate: "https://example.org/x".into(), dsse: "{}".into() })
    }
    async fn channels(&self, appliance: Option<&str>) -> Result<Vec<ChannelShown>> {
        self.note(format!("channels of {}", appliance.unwrap_or("all")));
        Ok(vec![channel("cern", "batch-worker", "stable")])
    }
    async fn channel(&self, channel: &str) -> Result<ChannelShown> {
        self.note(format!("channel {channel}"));
        Ok(self::channel("cern", "batch-worker", "stable"))
    }
    async fn set_channel(&self, request: SetChannelRequest) -> Result<Recorded> {
        self.note(format!("channel set {} {} {}", request.appliance, request.channel, request.release));
        Ok(Recorded { record: record("head") })
    }
    async fn cosign_channel(&self, request: CosignRequest) -> Result<Cosigned> {
        self.note(format!("cosign {}", request.channel));
        Ok(Cosigned { record: request.record, signed: 2, threshold: 2 })
    }
    async fn delegate(&self, request: DelegateRequest) -> Result<Delegated> {
        self.note(format!("delegate {}", request.to.join(" ")));
        Ok(Delegated { record: record("delegation"), records: vec![record("delegation")], channels: vec![] })
    }
    async fn rotate(&self, request: RotateRequest) -> Result<Delegated> {
        self.note(format!("rotate {} {}", request.old, request.new));
        Ok(Delegated { record: record("delegation"), records: vec![record("delegation")], channels: vec![] })
    }
    async fn clock(&self) -> Result<ClockStatus> {
        Ok(ClockStatus { now: DAY.into(), doubt: None })
    }
    async fn signing(&self, session: &str) -> Result<SigningNext> {
        self.note(format!("signing {session}"));
        let ask = SigningAsk { number: 1, key: "aa".into(), payload: "a0".into() };
        Ok(SigningNext { ask: Some(ask) })
    }
    async fn answer_signing(&self, session: &str, answer: SigningAnswer) -> Result<()> {
        self.note(format!("signing {session} {}", answer.number));
        Ok(())
    }
    async fn set_clock(&self, request: ClockRequest) -> Result<ClockStatus> {
        self.note(format!("clock {}", request.reset));
        self.clock().await
    }
    async fn revoke(&self, request: RevokeRequest) -> Result<Recorded> {
        self.note(format!("revoke {}", request.subject));
        Ok(Recorded { record: record("revocation") })
    }
    async fn publish_advisory(&self, request: PublishAdvisoryRequest) -> Result<AdvisoriesPublished> {
        self.note(format!("advisory {}", request.id));
        Ok(AdvisoriesPublished { records: vec![record("advisory")] })
    }
    async fn advisories(&self, query: AdvisoryQuery) -> Result<Vec<AdvisoryShown>> {
        self.note(format!("advisories {query:?}"));
        Ok(vec![advisory()])
    }
    async fn fetch(&self, request: FetchRequest) -> Result<JobStarted> {
        let details = self.found(&request.target)?;
        if details.summary.verdict != VerdictKind::Accept && !request.held {
            return Err(ApiError::refused("policy holds this release").with_hint("fetch it with --held to look at it"));
        }
        self.job(format!("fetch {} held={}", request.target, request.held))
    }
    async fn deploy(&self, request: DeployRequest) -> Result<JobStarted> {
        self.job(format!("deploy {} {:?} {:?}", request.release, request.set, request.publish))
    }
    async fn instances(&self) -> Result<Vec<Instance>> {
        Ok(self.instances.lock().unwrap().clone())
    }
    async fn stop_instance(&self, instance: &str, force: bool) -> Result<InstanceChanged> {
        self.note(format!("stop {instance} force={force}"));
        self.changed(instance, "stopped")
    }
    async fn suspend_instance(&self, instance: &str) -> Result<InstanceChanged> {
        self.note(format!("suspend {instance}"));
        self.changed(instance, "suspended")
    }
    async fn resume_instance(&self, instance: &str) -> Result<InstanceChanged> {
        self.note(format!("resume {instance}"));
        self.changed(instance, "running")
    }
    async fn remove_instance(&self, instance: &str) -> Result<InstanceChanged> {
        self.note(format!("rm {instance}"));
        self.changed(instance, "removed")
    }
    async fn instance_logs(&self, instance: &str, follow: bool) -> Result<BoxStream<Bytes>> {
        if !self.instances.lock().unwrap().iter().any(|known| known.instance == instance) {
            return Err(ApiError::not_found("no such instance"));
        }
        let written = stream::iter(self.console.clone());
        if follow { Ok(Box::pin(written.chain(stream::pending()))) } else { Ok(Box::pin(written)) }
    }
    async fn job_events(&self, job: &str) -> Result<BoxStream<JobEvent>> {
        if !job.starts_with("job-") {
            return Err(ApiError::not_found(format!("no job is called '{job}'")));
        }
        let pace = self.pace;
        let total = 477 << 20;
        let steps = (0..=40u64).map(move |step| JobEvent::Progress {
            stage: "fetching".into(),
            done: total / 40 * step,
            total,
        });
        let done = JobEvent::Done {
            result: serde_json::to_value(Fetched {
                images: vec![image("disk")],
                image: None,
                bytes: total,
                wire_bytes: total / 10,
                duplicate_bytes: 0,
                seconds: 8.1,
                peers: BTreeMap::from([("uni".into(), 1), ("lab".into(), 2)]),
            })
            .unwrap(),
        };
        let events = stream::iter(steps.chain([done])).then(move |event| async move {
            if let Some(pace) = pace {
                tokio::time::sleep(pace).await;
            }
            event
        });
        Ok(Box::pin(events))
    }
    async fn cancel_job(&self, job: &str) -> Result<()> {
        self.note(format!("cancel {job}"));
        Ok(())
    }
    async fn changes(&self) -> Result<BoxStream<Change>> {
        Ok(Box::pin(BroadcastStream::new(self.changes.subscribe()).filter_map(|change| async { change.ok() })))
    }
    async fn metrics(&self) -> Result<String> {
        Ok("# TYPE rialto_peers gauge\nrialto_peers 3\n# EOF\n".into())
    }
    async fn web_link(&self) -> Result<String> {
        let (sessions, port) =
            self.sessions.as_ref().ok_or_else(|| ApiError::failed("this node has no web listener"))?;
        sessions.mint_link(*port).map_err(|error| ApiError::failed(error.to_string()))
    }
}
