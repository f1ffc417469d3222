//! The node as its faces see it: `web::api::Backend`.

mod advisories;
mod history;
mod metrics;
mod search;
mod statements;
mod view;

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use rialto_protocol::UnixSeconds;
use rialto_protocol::bounded::Text;
use rialto_protocol::ids::{ImageId, PublicKey, RecordId};
use rialto_protocol::record::{Body, Endorsement, EndorsementBody, Revocation, RevocationSubject};
use rialto_protocol::signed::Draft;
use rialto_web::api::*;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::BroadcastStream;

use crate::keys;
use crate::node::Node;
use crate::node::work::{ExportFormat, absolute, blocking, store_error};
use crate::publish::{DiskSource, SourceFile};
use crate::signing::Signer;
use crate::store::StoredImage;

pub(crate) use search::Verdicts;

/// Channels in one answer.
const MAX_CHANNELS: usize = 1_000;

/// A node behind its faces.
pub(crate) struct Api(pub(crate) Arc<Node>);

impl Deref for Api {
    type Target = Arc<Node>;

    fn deref(&self) -> &Arc<Node> {
        &self.0
    }
}

#[async_trait]
impl Backend for Api {
    async fn status(&self) -> Result<Status> {
        let node = Arc::clone(&self.0);
        let addresses =
            self.net.addresses().await.map_err(|error| ApiError::new(ErrorCode::NotRunning, error.to_string()))?;
        let listen = addresses.iter().map(ToString::to_string).collect();
        blocking(move || view::status(&node, listen)).await?
    }

    async fn peers(&self) -> Result<Vec<Peer>> {
        let moved = self.exchange.peer_traffic();
        let bans = self.net.bans().list();
        Ok(self.net.peers().borrow().iter().map(|peer| view::peer(peer, moved.get(&peer.peer), &bans)).collect())
    }

    async fn bans(&self) -> Result<Vec<Ban>> {
        Ok(self.net.bans().list().iter().map(view::ban).collect())
    }

    async fn lift_bans(&self, peer: &str) -> Result<BansLifted> {
        let peer = keys::parse_site(peer)?;
        let lifted = self.net.forgive(peer).await;
        let lifted = lifted.map_err(|error| ApiError::new(ErrorCode::NotRunning, error.to_string()))?;
        tracing::info!(%peer, lifted, "an administrator has forgiven a peer");
        self.changed(Change::Peers);
        Ok(BansLifted { peer_id: peer.to_string(), lifted: lifted as u64 })
    }

    async fn rates(&self) -> Result<Rates> {
        Ok(self.rates_now())
    }

    async fn change_rates(&self, request: ChangeRates) -> Result<Rates> {
        Ok(self.0.change_rates(request))
    }

    async fn search(&self, query: SearchQuery) -> Result<SearchPage> {
        let node = Arc::clone(&self.0);
        blocking(move || search::search(&node, &query)).await?
    }

    async fn release(&self, release: &str) -> Result<ReleaseDetails> {
        let record = self.release_called(release).await?;
        let providers = view::sites_holding(self, &record).await;
        let node = Arc::clone(&self.0);
        blocking(move || view::details(&node, &node.judge(record), providers)).await?
    }

    async fn explain(&self, release: &str) -> Result<Explanation> {
        let (node, record) = (Arc::clone(&self.0), self.release_called(release).await?);
        blocking(move || node.judge(record).verdict.explanation()).await
    }

    async fn replay(&self, decision: u64) -> Result<Replay> {
        let node = Arc::clone(&self.0);
        blocking(move || node.replay(decision)).await?
    }

    async fn replay_at(&self, request: ReplayAtRequest) -> Result<ReplayAt> {
        let node = Arc::clone(&self.0);
        blocking(move || node.replay_at(&request)).await?
    }

    async fn policy_diff(&self, request: PolicyDiffRequest) -> Result<PolicyDiff> {
        let node = Arc::clone(&self.0);
        blocking(move || node.policy_diff(&request)).await?
    }

    async fn images(&self) -> Result<Vec<ImageSummary>> {
        let node = Arc::clone(&self.0);
        blocking(move || {
            let images = node.store.images().map_err(store_error)?;
            let usage = node.store.usage().map_err(store_error)?;
            let usage_of = |image: &StoredImage| usage.get(&image.image).copied().unwrap_or_default();
            Ok(images.iter().map(|image| view::image(&node, image, usage_of(image))).collect())
        })
        .await?
    }

    async fn add_image(&self, request: AddImageRequest) -> Result<JobStarted> {
        let (node, path) = (Arc::clone(&self.0), absolute(&request.file)?);
        let name = format!("adding {}", path.display());
        let disk = match (request.format, request.member) {
            (Some(format), member) => Some(DiskSource { format: format.parse().map_err(ApiError::usage)?, member }),
            (None, Some(_)) => {
                return Err(ApiError::usage("a member can only be chosen of a file whose format is given"));
            }
            (None, None) => None,
        };
        self.jobs.start(name, |reporter| node.add_image(SourceFile { path, disk }, reporter))
    }

    async fn verify_image(&self, image: ImageId) -> Result<JobStarted> {
        let node = Arc::clone(&self.0);
        self.jobs.start(format!("verifying image {image}"), move |reporter| async move {
            let started = Instant::now();
            let verified = blocking(move || {
                let mut progress = |done, total| reporter.progress("verifying", done, total);
                node.store.verify(&image, &mut progress, &|| reporter.cancel.is_cancelled())
            })
            .await?
            .map_err(store_error)?;
            Ok(ImageVerified {
                image,
                good_chunks: verified.chunks,
                bad_chunks: verified.damaged.len() as u64 + verified.missing,
                seconds: started.elapsed().as_secs_f64(),
            })
        })
    }

    async fn export_image(&self, image: ImageId, request: ExportImageRequest) -> Result<JobStarted> {
        let (node, file) = (Arc::clone(&self.0), absolute(&request.file)?);
        let format = request.format.as_deref().map_or(Ok(ExportFormat::Raw), ExportFormat::parse)?;
        let name = format!("writing image {image} to {}", file.display());
        self.jobs.start(name, move |reporter| node.export_image(image, file, format, reporter))
    }

    async fn remove_image(&self, image: ImageId) -> Result<()> {
        let store = self.store.clone();
        blocking(move || store.remove(&image)).await?.map_err(store_error)?;
        self.changed(Change::Store);
        Ok(())
    }

    async fn pin_image(&self, image: ImageId, is_pinned: bool) -> Result<()> {
        let store = self.store.clone();
        let pinned = blocking(move || if is_pinned { store.pin(&image) } else { store.unpin(&image) }).await?;
        pinned.map_err(store_error)?;
        self.changed(Change::Store);
        Ok(())
    }

    async fn scrub(&self) -> Result<JobStarted> {
        let node = Arc::clone(&self.0);
        self.jobs.start("checking the store".into(), |reporter| node.scrub_now(reporter))
    }

    async fn collect_garbage(&self) -> Result<JobStarted> {
        let node = Arc::clone(&self.0);
        self.jobs.start("collecting garbage".into(), move |reporter| async move {
            reporter.progress("collecting", 0, 0);
            let started = Instant::now();
            let store = node.store.clone();
            // The images of the store's own list stay; what is not on it any more goes.
            let collected = blocking(move || store.gc(&BTreeSet::new())).await?.map_err(store_error)?;
            node.changed(Change::Store);
            Ok(Collected {
                dropped_chunks: collected.removed,
                freed_bytes: collected.freed_bytes,
                seconds: started.elapsed().as_secs_f64(),
            })
        })
    }

    async fn publish(&self, request: PublishRequest) -> Result<JobStarted> {
        absolute(&request.file)?;
        let node = Arc::clone(&self.0);
        let key = AwayKey::read(&request.key)?.map_or(request.key.clone(), |away| away.key.fingerprint());
        let name = format!("publishing {} with key {key}", request.file);
        self.jobs.start(name, |reporter| node.publish(request, reporter))
    }

    async fn endorse(&self, request: EndorseRequest) -> Result<Recorded> {
        let key = self.signer(&request.key).await?;
        let record = self.release_called(&request.release).await?;
        let (predicate, body) = match (request.dsse, request.note) {
            (Some(_), Some(_)) => {
                return Err(ApiError::usage("a statement says all that it says itself: no text goes with it"));
            }
            (Some(envelope), None) => statements::brought(&record, &self.title(&record), envelope, &request.predicate)?,
            (None, note) => {
                let note = note.map(Text::try_from).transpose().map_err(|error| usage("the body", error))?;
                (request.predicate, EndorsementBody::Native { note })
            }
        };
        if !is_uri(&predicate) {
            return Err(ApiError::usage(format!("'{predicate}' is not a URI"))
                .with_hint("a predicate is named by a URI, such as https://example.org/tested/v1"));
        }
        let now = self.now();
        let body = Body::Endorsement(Endorsement {
            subject: record.id,
            predicate: predicate.try_into().map_err(|error| usage("the predicate", error))?,
            body,
            expires: request.expires_after_seconds.map(|seconds| now.saturating_add(seconds)),
        });
        self.sign_and_announce(&key, None, now, &body).await
    }

    async fn statement(&self, endorsement: &str) -> Result<StatementExport> {
        self.statement_export(endorsement)
    }

    async fn revoke(&self, request: RevokeRequest) -> Result<Recorded> {
        let key = self.signer(&request.key).await?;
        let reason = request.reason.as_str().try_into().map_err(|error| usage("the reason", error))?;
        let (node, named) = (Arc::clone(&self.0), request.subject);
        let subject = blocking(move || node.revocation_subject(&named)).await??;
        let body = Body::Revocation(Revocation { subject, reason });
        let federation = self.config.federation.clone();
        self.sign_and_announce(&key, Some(federation), self.now(), &body).await
    }

    async fn channels(&self, appliance: Option<&str>) -> Result<Vec<ChannelShown>> {
        let (node, appliance) = (Arc::clone(&self.0), appliance.map(str::to_owned));
        blocking(move || {
            let channels = node.channels_known(appliance.as_deref())?;
            Ok(channels.iter().take(MAX_CHANNELS).map(|channel| view::channel(&node, channel)).collect())
        })
        .await?
    }

    async fn channel(&self, channel: &str) -> Result<ChannelShown> {
        let (node, channel) = (Arc::clone(&self.0), channel.to_owned());
        blocking(move || Ok(view::channel(&node, &node.channel_called(&channel)?))).await?
    }

    async fn set_channel(&self, request: SetChannelRequest) -> Result<Recorded> {
        self.0.set_channel(request).await
    }

    async fn cosign_channel(&self, request: CosignRequest) -> Result<Cosigned> {
        self.0.cosign(request).await
    }

    async fn delegate(&self, request: DelegateRequest) -> Result<Delegated> {
        self.0.delegate(request).await
    }

    async fn rotate(&self, request: RotateRequest) -> Result<Delegated> {
        self.0.rotate(request).await
    }

    async fn signing(&self, session: &str) -> Result<SigningNext> {
        check_session(session)?;
        Ok(self.desk.next(session).await)
    }

    async fn answer_signing(&self, session: &str, answer: SigningAnswer) -> Result<()> {
        check_session(session)?;
        self.desk.answer(session, answer)
    }

    async fn clock(&self) -> Result<ClockStatus> {
        Ok(view::clock(&self.0.clock()))
    }

    async fn set_clock(&self, request: ClockRequest) -> Result<ClockStatus> {
        let node = Arc::clone(&self.0);
        let set = blocking(move || node.set_clock(request.reset)).await?;
        self.changed(Change::Policy);
        set.map(|reading| view::clock(&reading)).map_err(|error| ApiError::failed(error.to_string()))
    }

    async fn publish_advisory(&self, request: PublishAdvisoryRequest) -> Result<AdvisoriesPublished> {
        self.0.publish_advisory(request).await
    }

    async fn advisories(&self, query: AdvisoryQuery) -> Result<Vec<AdvisoryShown>> {
        let node = Arc::clone(&self.0);
        blocking(move || node.advisories(&query)).await?
    }

    async fn fetch(&self, request: FetchRequest) -> Result<JobStarted> {
        let node = Arc::clone(&self.0);
        let name = format!("fetching {}", request.target);
        self.jobs.start(name, |reporter| node.fetch(request, reporter))
    }

    async fn deploy(&self, request: DeployRequest) -> Result<JobStarted> {
        let node = Arc::clone(&self.0);
        let name = format!("deploying {}", request.release);
        self.jobs.start(name, |reporter| node.deploy(request, reporter))
    }

    async fn instances(&self) -> Result<Vec<Instance>> {
        Ok(self.deployer.list())
    }

    async fn stop_instance(&self, instance: &str, force: bool) -> Result<InstanceChanged> {
        let stopped = self.deployer.stop(instance, force).await?;
        Ok(InstanceChanged { instance: stopped.instance, state: stopped.state })
    }

    async fn suspend_instance(&self, instance: &str) -> Result<InstanceChanged> {
        let suspended = self.deployer.suspend(instance).await?;
        Ok(InstanceChanged { instance: suspended.instance, state: suspended.state })
    }

    async fn resume_instance(&self, instance: &str) -> Result<InstanceChanged> {
        let resumed = self.0.resume_instance(instance).await?;
        Ok(InstanceChanged { instance: resumed.instance, state: resumed.state })
    }

    async fn remove_instance(&self, instance: &str) -> Result<InstanceChanged> {
        let removed = self.deployer.remove(instance).await?;
        Ok(InstanceChanged { instance: removed.instance, state: "removed".into() })
    }

    async fn instance_logs(&self, instance: &str, follow: bool) -> Result<BoxStream<Bytes>> {
        Ok(self.deployer.logs(instance, follow)?)
    }

    async fn job_events(&self, job: &str) -> Result<BoxStream<JobEvent>> {
        self.jobs.events(job)
    }

    async fn cancel_job(&self, job: &str) -> Result<()> {
        self.jobs.cancel(job)
    }

    async fn changes(&self) -> Result<BoxStream<Change>> {
        // Who lags behind is told that the catalog changed, and asks for everything again.
        let changes = BroadcastStream::new(self.changes.subscribe());
        Ok(Box::pin(changes.map(|change| change.unwrap_or(Change::Catalog))))
    }

    async fn metrics(&self) -> Result<String> {
        let node = Arc::clone(&self.0);
        blocking(move || metrics::text(&node)).await?
    }

    async fn web_link(&self) -> Result<String> {
        let Some(address) = self.web else {
            return Err(ApiError::failed("the web UI is off on this node")
                .with_hint("set web = \"127.0.0.1:7878\" in config.toml and restart the node"));
        };
        self.sessions.mint_link(address.port()).map_err(|error| ApiError::failed(error.to_string()))
    }
}

impl Node {
    pub(super) async fn sign_and_announce(
        &self,
        signer: &Signer,
        federation: Option<rialto_protocol::bounded::Name>,
        issued: UnixSeconds,
        body: &Body,
    ) -> Result<Recorded> {
        let draft = Draft::new([signer.public()], federation, issued, body);
        let draft = draft.map_err(|error| ApiError::usage(error.to_string()))?;
        let envelope = self.desk.sign(draft, [signer]).await?;
        Ok(Recorded { record: self.announce(envelope).await? })
    }

    /// A public key in either form, or a release, endorsement or advisory of the catalog.
    fn revocation_subject(&self, subject: &str) -> Result<RevocationSubject> {
        if subject.starts_with("ssh-") {
            let key = keys::from_openssh(subject).map_err(|error| ApiError::usage(error.to_string()))?;
            return Ok(RevocationSubject::Key(key));
        }
        if let Ok(key) = subject.parse::<PublicKey>() {
            return Ok(RevocationSubject::Key(key));
        }
        if subject.contains('/') {
            return Ok(RevocationSubject::Release(self.find_release(subject)?.id));
        }
        let record = match subject.parse::<RecordId>() {
            Ok(id) => {
                self.catalog.get(&id).ok_or_else(|| ApiError::not_found(format!("no record {id} is known here")))?
            }
            Err(_) => self.catalog.find(subject).map_err(|error| ApiError::not_found(error.to_string()))?,
        };
        match &record.body {
            Body::Release(_) => Ok(RevocationSubject::Release(record.id)),
            Body::Endorsement(_) => Ok(RevocationSubject::Endorsement(record.id)),
            Body::Advisory(_) => Ok(RevocationSubject::Advisory(record.id)),
            _ => Err(ApiError::usage(format!(
                "{} is a record of kind '{}'; releases, endorsements, advisories and keys can be revoked",
                record.id, record.header.kind
            ))),
        }
    }
}

fn usage(what: &str, error: impl std::fmt::Display) -> ApiError {
    ApiError::usage(format!("{what} is refused: {error}"))
}

/// Scheme, colon, something: RFC 3986 §3 as far as it matters for a name.
fn is_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    is_scheme && !rest.is_empty() && rest.chars().all(|c| c.is_ascii_graphic())
}
