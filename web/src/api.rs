//! What the API says: the values of `/api/v1`, and [`Backend`], which the node implements.
//!
//! The command line, the web UI and scripts all use these. Integers are bytes unless their name says otherwise,
//! `seconds` is a float, times are RFC 3339 text. Fields that a script relies on are only ever added to.

mod advisories;
mod catalog;
mod channels;
mod error;
mod instances;
mod jobs;
mod policy;
mod signing;
mod site;
mod store;

use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use rialto_protocol::ids::ImageId;

pub use advisories::{
    AdvisedPackage, AdvisoriesPublished, AdvisoryQuery, AdvisoryShown, BearingShown, MAX_ADVISED_PACKAGES,
    PublishAdvisoryRequest,
};
pub use catalog::{
    ContextInputShown, EndorseRequest, EndorsementShown, FacetCount, FieldShown, HistoryEvent, HistoryKind,
    PublishRequest, Published, Recorded, ReleaseDetails, ReleaseImage, ReleaseSummary, RevocationShown, RevokeRequest,
    SearchFacets, SearchPage, SearchQuery, SignerShown, StatementExport, StatementShown,
};
pub use channels::{
    ChannelShown, ChannelWorth, CosignRequest, Cosigned, DelegateRequest, Delegated, Movers, RotateRequest,
    SetChannelRequest, WaitingHead,
};
pub use error::{ApiError, ErrorCode};
pub use instances::{DeployRequest, Deployed, Instance, InstanceChanged, PortForward, StopRequest};
pub use jobs::{Change, JobEvent, JobStarted};
pub use policy::{
    Explanation, PolicyChange, PolicyDiff, PolicyDiffRequest, ReleaseAt, Replay, ReplayAt, ReplayAtRequest,
    RequirementOutcome, VerdictKind,
};
pub use signing::{AwayKey, SigningAnswer, SigningAsk, SigningNext, check_session};
pub use site::{
    Ban, BansLifted, ChangeRates, ClockRequest, ClockStatus, Peer, PolicyStatus, RateLimit, Rates, ScrubStatus, Status,
    Unlimited, WebLink,
};
pub use store::{
    AddImageRequest, Collected, ExportImageRequest, FetchRequest, Fetched, ImageAdded, ImageExported, ImageSummary,
    ImageVerified, Scrubbed,
};

/// A result whose error is what the API answers.
pub type Result<T, E = ApiError> = std::result::Result<T, E>;

/// A stream that is moved between tasks.
pub type BoxStream<T> = Pin<Box<dyn Stream<Item = T> + Send + 'static>>;

/// The node behind the faces. Each method is one request of `/api/v1`; none trusts its caller to have checked anything.
///
/// Errors are [`ApiError`] with a code that fits: `not-found` for ids that name nothing, `usage` for requests that make
/// no sense, `refused` where policy says no, `failed` for the rest.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// The node at a glance.
    async fn status(&self) -> Result<Status>;
    /// Connected peers.
    async fn peers(&self) -> Result<Vec<Peer>>;
    /// Peers that this node keeps away from, connected or not.
    async fn bans(&self) -> Result<Vec<Ban>>;
    /// Forgives a peer everything.
    async fn lift_bans(&self, peer: &str) -> Result<BansLifted>;
    /// How much may be sent and received.
    async fn rates(&self) -> Result<Rates>;
    /// Sends and receives at other rates from now on, until the node is restarted.
    async fn change_rates(&self, request: ChangeRates) -> Result<Rates>;
    /// Lists releases, newest first.
    async fn search(&self, query: SearchQuery) -> Result<SearchPage>;
    /// Everything about one release (id, unique prefix of at least 12 characters, `PETNAME/NAME@VERSION`, or
    /// `PETNAME/NAME:CHANNEL`).
    async fn release(&self, release: &str) -> Result<ReleaseDetails>;
    /// What policy says of a release, and why.
    async fn explain(&self, release: &str) -> Result<Explanation>;
    /// Makes a logged decision again.
    async fn replay(&self, decision: u64) -> Result<Replay>;
    /// What policy would have said of releases at another time.
    async fn replay_at(&self, request: ReplayAtRequest) -> Result<ReplayAt>;
    /// What another policy would say differently, of every release that is known.
    async fn policy_diff(&self, request: PolicyDiffRequest) -> Result<PolicyDiff>;
    /// Images of the store.
    async fn images(&self) -> Result<Vec<ImageSummary>>;
    /// Adds a file as an image; a job that ends in [`ImageAdded`].
    async fn add_image(&self, request: AddImageRequest) -> Result<JobStarted>;
    /// Reads an image back and checks it; a job that ends in [`ImageVerified`].
    async fn verify_image(&self, image: ImageId) -> Result<JobStarted>;
    /// Writes an image to a flat file; a job that ends in [`ImageExported`].
    async fn export_image(&self, image: ImageId, request: ExportImageRequest) -> Result<JobStarted>;
    /// Forgets an image that nothing needs.
    async fn remove_image(&self, image: ImageId) -> Result<()>;
    /// Pins or unpins an image: garbage collection and `rm` leave a pinned one alone.
    async fn pin_image(&self, image: ImageId, is_pinned: bool) -> Result<()>;
    /// Gives the space of chunks that no image names back; a job that ends in [`Collected`].
    async fn collect_garbage(&self) -> Result<JobStarted>;
    /// Reads the whole store over again and fetches what is damaged; a job that ends in [`Scrubbed`].
    async fn scrub(&self) -> Result<JobStarted>;
    /// Publishes a release; a job that ends in [`Published`].
    async fn publish(&self, request: PublishRequest) -> Result<JobStarted>;
    /// Says something of a release.
    async fn endorse(&self, request: EndorseRequest) -> Result<Recorded>;
    /// The in-toto statement that an endorsement carries: a record's id, or a unique prefix of at least 12 characters.
    async fn statement(&self, endorsement: &str) -> Result<StatementExport>;
    /// The channels of publishers that policy names, and of this site's own keys; of others those whose appliance is
    /// asked for (`PUBLISHER/NAME`). At most 1,000.
    async fn channels(&self, appliance: Option<&str>) -> Result<Vec<ChannelShown>>;
    /// One channel: `PUBLISHER/NAME:CHANNEL`.
    async fn channel(&self, channel: &str) -> Result<ChannelShown>;
    /// Makes a channel point at a release, and keeps it fresh from now on.
    async fn set_channel(&self, request: SetChannelRequest) -> Result<Recorded>;
    /// Adds signatures to a head that waits for them.
    async fn cosign_channel(&self, request: CosignRequest) -> Result<Cosigned>;
    /// Lets keys act for a publisher.
    async fn delegate(&self, request: DelegateRequest) -> Result<Delegated>;
    /// Puts a key in the place of another.
    async fn rotate(&self, request: RotateRequest) -> Result<Delegated>;
    /// What the holder of a key is to sign next, within seconds; nothing where nothing came.
    async fn signing(&self, session: &str) -> Result<SigningNext>;
    /// A signature, or why there is none.
    async fn answer_signing(&self, session: &str, answer: SigningAnswer) -> Result<()>;
    /// The time that verdicts go by.
    async fn clock(&self) -> Result<ClockStatus>;
    /// Takes the machine's clock for right.
    async fn set_clock(&self, request: ClockRequest) -> Result<ClockStatus>;
    /// Withdraws a release, an endorsement, an advisory or a key.
    async fn revoke(&self, request: RevokeRequest) -> Result<Recorded>;
    /// Says that packages have a flaw: one record for each.
    async fn publish_advisory(&self, request: PublishAdvisoryRequest) -> Result<AdvisoriesPublished>;
    /// Advisories of signers that policy names and of this site's own keys, the latest issued first. At most 1,000.
    async fn advisories(&self, query: AdvisoryQuery) -> Result<Vec<AdvisoryShown>>;
    /// Fetches an image or a release; a job that ends in [`Fetched`].
    async fn fetch(&self, request: FetchRequest) -> Result<JobStarted>;
    /// Judges, fetches what is missing and boots; a job that ends in [`Deployed`].
    async fn deploy(&self, request: DeployRequest) -> Result<JobStarted>;
    /// All instances.
    async fn instances(&self) -> Result<Vec<Instance>>;
    /// Stops an instance: ACPI first, and the hard way when it does not listen or `force` is set.
    async fn stop_instance(&self, instance: &str, force: bool) -> Result<InstanceChanged>;
    /// Saves a running instance's memory to disk and ends its process.
    async fn suspend_instance(&self, instance: &str) -> Result<InstanceChanged>;
    /// Starts a suspended instance where it stood still.
    async fn resume_instance(&self, instance: &str) -> Result<InstanceChanged>;
    /// Removes a stopped instance and what its guest wrote.
    async fn remove_instance(&self, instance: &str) -> Result<InstanceChanged>;
    /// What the guest wrote to its console, as bytes of text; with `follow`, also what it writes from now on.
    async fn instance_logs(&self, instance: &str, follow: bool) -> Result<BoxStream<Bytes>>;
    /// What a job says of itself: its latest progress first, then as it comes, then the end.
    async fn job_events(&self, job: &str) -> Result<BoxStream<JobEvent>>;
    /// Stops a job; what it has stored stays.
    async fn cancel_job(&self, job: &str) -> Result<()>;
    /// Changes as they happen.
    async fn changes(&self) -> Result<BoxStream<Change>>;
    /// Metrics in the OpenMetrics text format.
    async fn metrics(&self) -> Result<String>;
    /// A fresh one-time link to the web UI.
    async fn web_link(&self) -> Result<String>;
}
