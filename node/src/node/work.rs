//! The long pieces of work: adding, publishing, fetching, deploying.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rialto_protocol::bounded::Name;
use rialto_protocol::ids::{ImageId, PublicKey, RecordId};
use rialto_protocol::record::Body;
use rialto_protocol::signed::{Draft, Envelope};
use rialto_web::api::{
    ApiError, AwayKey, Change, DeployRequest, Deployed, ErrorCode, FetchRequest, Fetched, ImageAdded, ImageExported,
    PublishRequest, Published, VerdictKind,
};
use tokio::sync::watch;

use super::reference::FetchTarget;
use super::{Node, fetch_target};
use crate::catalog::{Outcome, SharedRecord};
use crate::convert::{ConvertError, Flat, export_qcow2};
use crate::deploy::{Caller, DeploySpec, Followed, Progress};
use crate::jobs::Reporter;
use crate::net::bulk::{FetchError, FetchProgress, FetchReport};
use crate::publish::{Description, DiskSource, SourceFile};
use crate::signing::Signer;
use crate::store::{Added, Digests, StoreError};
use crate::trust::Action;

/// Images of other releases that holders are told of first, and that new content is compared with, where they are held
/// here. A release has a handful of images, and not each release of an appliance is held.
const MAX_RELATIVES: usize = 256;

impl Node {
    /// Adds a file as an image.
    pub(crate) async fn add_image(
        self: Arc<Self>,
        file: SourceFile,
        reporter: Reporter,
    ) -> Result<ImageAdded, ApiError> {
        let added = self.add_source(&file, Digests::Skip, Vec::new(), &reporter).await?;
        Ok(ImageAdded {
            image: added.image,
            bytes: added.bytes,
            chunks: added.chunks,
            new_chunks: added.new_chunks,
            stored_bytes: added.stored_bytes,
            seconds: added.seconds,
        })
    }

    /// Adds a file's content to the store, which looks for similar chunks in the images that it is `like`, if it holds them.
    async fn add_source(
        &self,
        file: &SourceFile,
        digests: Digests,
        like: Vec<ImageId>,
        reporter: &Reporter,
    ) -> Result<Added, ApiError> {
        let flat = match file.disk.clone() {
            Some(DiskSource { format, member }) => {
                let progress = |done, total| reporter.progress("converting", done, total);
                self.scratch.flatten(&file.path, format, member, progress).await.map_err(convert_error)?
            }
            None => Flat::AsItIs,
        };
        let path = match &flat {
            Flat::AsItIs => file.path.clone(),
            Flat::Made(path) => path.to_path_buf(),
        };
        let (store, reporter) = (self.store.clone(), reporter.clone());
        let added = blocking(move || {
            let mut progress = |done, total| reporter.progress("reading", done, total);
            let added = store.add_file(&path, digests, &like, &mut progress, &|| reporter.cancel.is_cancelled());
            // Here, because whoever waits may have gone: it is removed when it was read, not before.
            drop(flat);
            added
        })
        .await?
        .map_err(store_error)?;
        self.changed(Change::Store);
        Ok(added)
    }

    /// Writes an image to a raw file, or one in qcow2.
    pub(crate) async fn export_image(
        self: Arc<Self>,
        image: ImageId,
        file: PathBuf,
        format: ExportFormat,
        reporter: Reporter,
    ) -> Result<ImageExported, ApiError> {
        let started = Instant::now();
        let bytes = match format {
            ExportFormat::Raw => self.export_flat(image, file.clone(), &reporter).await?,
            ExportFormat::Qcow2 => self.export_qcow2(image, &file, &reporter).await?,
        };
        let seconds = started.elapsed().as_secs_f64();
        Ok(ImageExported { image, file: file.display().to_string(), bytes, seconds })
    }

    async fn export_flat(&self, image: ImageId, path: PathBuf, reporter: &Reporter) -> Result<u64, ApiError> {
        let (store, reporter) = (self.store.clone(), reporter.clone());
        let base = self.deployer.base(&image);
        blocking(move || {
            let mut progress = |done, total| reporter.progress("writing", done, total);
            store.export(&image, &path, base.as_deref(), &mut progress, &|| reporter.cancel.is_cancelled())?;
            Ok(store.image(&image)?.bytes)
        })
        .await?
        .map_err(store_error)
    }

    /// By way of a flat file, which the tool then reads; put in its place whole.
    async fn export_qcow2(&self, image: ImageId, file: &Path, reporter: &Reporter) -> Result<u64, ApiError> {
        let refused = |error: std::io::Error| ApiError::failed(format!("cannot write {}: {error}", file.display()));
        let flat = self.scratch.file().map_err(refused)?;
        let bytes = self.export_flat(image, flat.to_path_buf(), reporter).await?;
        let target = new_beside(file).map_err(refused)?;
        let progress = |done, total| reporter.progress("converting", done, total);
        let floor_bytes = self.config.store.free_space_floor.bytes();
        export_qcow2(&flat, &target, floor_bytes, progress).await.map_err(convert_error)?;
        std::fs::File::open(&target).and_then(|written| written.sync_all()).map_err(refused)?;
        target.persist(file).map_err(|error| refused(error.error))?;
        Ok(bytes)
    }

    /// Adds a release's files, signs its record and tells the federation.
    pub(crate) async fn publish(
        self: Arc<Self>,
        request: PublishRequest,
        reporter: Reporter,
    ) -> Result<Published, ApiError> {
        let (publisher, issuers, signers) = self.release_signers(&request).await?;
        let path = PathBuf::from(&request.file);
        let description =
            blocking(move || Description::read(&path)).await?.map_err(|error| ApiError::usage(error.to_string()))?;
        self.refuse_republishing(&publisher, &description)?;
        let like = self.catalog.images_of_appliance(&publisher, description.name(), MAX_RELATIVES);
        let mut images: BTreeMap<SourceFile, Added> = BTreeMap::new();
        for file in description.files() {
            // A release states digests of its disks only.
            let digests = if file.disk.is_some() { Digests::Take } else { Digests::Skip };
            let added = self.add_source(&file, digests, like.clone(), &reporter).await?;
            images.insert(file, added);
        }
        // One after the other from here: of two that publish one version, the second has to see the first.
        let _publishing = self.publishing.lock().await;
        self.refuse_republishing(&publisher, &description)?;
        let next = self
            .catalog
            .highest_sequence(&publisher, description.name())
            .map_or(1, |highest| highest.saturating_add(1));
        let release = description
            .release(publisher, self.now(), next, &images)
            .map_err(|error| ApiError::usage(error.to_string()))?;
        let images = release.images();
        let draft = Draft::new(issuers, None, self.now(), &Body::Release(Box::new(release)));
        let draft = draft.map_err(|error| ApiError::usage(error.to_string()))?;
        let envelope = self.desk.sign(draft, &signers).await?;
        Ok(Published { release: self.announce(envelope).await?, images })
    }

    fn refuse_republishing(&self, publisher: &PublicKey, description: &Description) -> Result<(), ApiError> {
        let (name, version) = (description.name(), description.version());
        match self.catalog.version(publisher, name, version).first() {
            None => Ok(()),
            Some(known) => Err(ApiError::failed(format!(
                "version {version} of '{name}' is published already ({}); a release never changes",
                known.id
            ))
            .with_hint("raise the version")),
        }
    }

    /// Takes a record of this site's own into the catalog, and gossips it.
    pub(crate) async fn announce(&self, envelope: Envelope) -> Result<RecordId, ApiError> {
        let id = envelope.id();
        let bytes = envelope.encode();
        let (catalog, own, now) = (self.catalog.clone(), bytes.clone(), self.now());
        let outcome = blocking(move || catalog.insert(&own, None, now))
            .await?
            .map_err(|error| ApiError::failed(error.to_string()))?;
        match outcome {
            Outcome::New | Outcome::Merged | Outcome::Duplicate => {}
            Outcome::Ignored(reason) => return Err(ApiError::failed(format!("the record was not taken in: {reason}"))),
            Outcome::Refused(error) => return Err(ApiError::failed(format!("the record is malformed: {error}"))),
        }
        self.net.publish(bytes).await.map_err(|error| ApiError::failed(error.to_string()))?;
        Ok(id)
    }

    /// A key that signs: one of this node, by name, or one whose holder signs over the API.
    pub(crate) async fn signer(&self, key: &str) -> Result<Signer, ApiError> {
        if let Some(away) = AwayKey::read(key)? {
            return Ok(Signer::Away(away));
        }
        let name: Name = key.parse().map_err(|error| ApiError::usage(format!("{error}")))?;
        let keys = self.keys.clone();
        let key = {
            let name = name.clone();
            blocking(move || keys.load(&name)).await??
        };
        Ok(Signer::Here { name, key })
    }

    /// [`Node::find_release`], off the async threads: a name is looked for among all releases.
    pub(crate) async fn release_called(self: &Arc<Self>, reference: &str) -> Result<SharedRecord, ApiError> {
        let (node, reference) = (Arc::clone(self), reference.to_owned());
        blocking(move || node.find_release(&reference)).await?
    }

    /// Fetches an image, or all images of a release that policy accepts (or that is asked for with `held`).
    pub(crate) async fn fetch(self: Arc<Self>, request: FetchRequest, reporter: Reporter) -> Result<Fetched, ApiError> {
        let (node, target) = (Arc::clone(&self), request.target.clone());
        match blocking(move || fetch_target(&node, &target)).await?? {
            FetchTarget::Image(image) => {
                let fetched = self.fetch_images(&[image], &reporter).await?;
                Ok(Fetched { image: Some(image), ..fetched })
            }
            FetchTarget::Release(record) => {
                let images = if request.held {
                    record.body.release().map(|release| release.images()).unwrap_or_default()
                } else {
                    let node = Arc::clone(&self);
                    let accepted = blocking(move || node.decide(record, Action::Fetch)).await?;
                    accepted.map_err(|error| held_hint(error, &request.target))?.images().to_vec()
                };
                self.fetch_images(&images, &reporter).await
            }
        }
    }

    /// Fetches what the store lacks of these images, one after the other.
    pub(super) async fn fetch_images(&self, images: &[ImageId], reporter: &Reporter) -> Result<Fetched, ApiError> {
        let started = Instant::now();
        let mut fetched = Fetched {
            images: images.to_vec(),
            image: None,
            bytes: 0,
            wire_bytes: 0,
            duplicate_bytes: 0,
            seconds: 0.0,
            peers: BTreeMap::new(),
        };
        for (position, image) in images.iter().enumerate() {
            let stage = if images.len() > 1 {
                format!("fetching image {} of {}", position + 1, images.len())
            } else {
                "fetching".into()
            };
            let report = self.fetch_image(*image, &stage, reporter).await;
            // A part of it may have come also where it failed.
            self.changed(Change::Store);
            let report = report?;
            fetched.bytes += report.bytes;
            fetched.wire_bytes += report.wire_bytes;
            fetched.duplicate_bytes += report.duplicate_bytes;
            for (peer, bytes) in report.peers {
                *fetched.peers.entry(peer.to_string()).or_default() += bytes;
            }
        }
        fetched.seconds = started.elapsed().as_secs_f64();
        Ok(fetched)
    }

    async fn fetch_image(&self, image: ImageId, stage: &str, reporter: &Reporter) -> Result<FetchReport, ApiError> {
        let store = self.store.clone();
        if blocking(move || store.is_complete(&image)).await?.map_err(store_error)? {
            let store = self.store.clone();
            let held = blocking(move || store.record_fetched(&image).and_then(|()| store.image(&image)))
                .await?
                .map_err(store_error)?;
            return Ok(FetchReport { bytes: held.bytes, ..FetchReport::default() });
        }
        let (progress, mut seen) = watch::channel(FetchProgress::default());
        let telling = async {
            while seen.changed().await.is_ok() {
                let FetchProgress { bytes_done, bytes, .. } = *seen.borrow_and_update();
                reporter.progress(stage, bytes_done, bytes);
            }
            std::future::pending::<()>().await
        };
        let like = self.catalog.relatives_of(&image, MAX_RELATIVES);
        tokio::select! {
            report = self.exchange.fetch(image, &like, &progress) => report.map_err(fetch_error),
            () = telling => Err(ApiError::failed("the fetch ended without a result")),
        }
    }

    /// Judges, fetches what is missing, and boots.
    pub(crate) async fn deploy(
        self: Arc<Self>,
        request: DeployRequest,
        reporter: Reporter,
    ) -> Result<Deployed, ApiError> {
        let record = self.release_called(&request.release).await?;
        let title = self.title(&record);
        let accepted = self.decided(&record).await?;
        let follows = match request.release.contains('@') || !request.release.contains('/') {
            true => None,
            false => {
                let (node, named) = (Arc::clone(&self), request.release.clone());
                let channel = blocking(move || node.channel_called(&named)).await??;
                Some(Followed::new(&channel, &request.release))
            }
        };
        let spec = DeploySpec { set: request.set, publish: request.publish, title, follows, replaces: None };
        // A mistake of the operator's shows before a long fetch, not after it.
        self.deployer.check(&accepted, &spec)?;
        self.fetch_images(accepted.images(), &reporter).await?;
        // What was accepted before a long fetch may be revoked after it.
        let accepted = self.decided(&record).await?;
        let judge = Arc::new(StillJudging { node: Arc::clone(&self), release: record, reporter });
        let instance = self.deployer.deploy(&accepted, spec, judge).await?;
        Ok(Deployed { instance: instance.instance, state: instance.state, ports: instance.ports })
    }

    pub(super) async fn decided(self: &Arc<Self>, record: &SharedRecord) -> Result<crate::trust::Accepted, ApiError> {
        let (node, record) = (Arc::clone(self), Arc::clone(record));
        blocking(move || node.decide(record, Action::Deploy)).await?
    }
}

/// A deployment's caller who judges its release once more before the guest starts.
pub(super) struct StillJudging {
    pub(super) node: Arc<Node>,
    pub(super) release: SharedRecord,
    pub(super) reporter: Reporter,
}

impl Caller for StillJudging {
    fn progress(&self, at: Progress) {
        self.reporter.progress(at.stage, at.done, at.total);
    }

    fn objection(&self) -> Option<String> {
        // As it is known now: signatures may have come, too.
        let release = self.node.catalog.get(&self.release.id).unwrap_or_else(|| Arc::clone(&self.release));
        let verdict = self.node.judge(release).verdict;
        (verdict.kind() != VerdictKind::Accept).then(|| {
            let title = self.node.title(&self.release);
            format!("while it was made, policy has come to {} {title}: {}", verdict.kind().as_str(), verdict.because())
        })
    }
}

fn held_hint(error: ApiError, target: &str) -> ApiError {
    match error.code {
        ErrorCode::Refused => {
            let hint = format!(
                "see why with: rialto policy explain {target}; to store it for review, without deploying it, fetch it with --held"
            );
            error.with_hint(hint)
        }
        _ => error,
    }
}

/// What an image is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExportFormat {
    Raw,
    Qcow2,
}

impl ExportFormat {
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        match text {
            "raw" => Ok(Self::Raw),
            "qcow2" => Ok(Self::Qcow2),
            _ => Err(ApiError::usage(format!(
                "'{}' is not a format to write images in; there are raw and qcow2",
                text.escape_debug()
            ))),
        }
    }
}

/// A new file beside `file`, which is a regular one or absent.
fn new_beside(file: &Path) -> std::io::Result<tempfile::TempPath> {
    match std::fs::symlink_metadata(file) {
        Ok(found) if !found.is_file() => {
            return Err(std::io::Error::new(std::io::ErrorKind::AlreadyExists, "it exists and is no regular file"));
        }
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let folder = file.parent().unwrap_or(Path::new("/"));
    let new = tempfile::Builder::new()
        .prefix(".rialto-export-")
        // As any new file: the umask takes away from it.
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
        .tempfile_in(folder)?;
    Ok(new.into_temp_path())
}

/// Runs what blocks off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ApiError::failed("the node stopped in the middle of it"))
}

/// A path that came over the API: absolute, because the node runs elsewhere than the caller.
pub(crate) fn absolute(file: &str) -> Result<PathBuf, ApiError> {
    let path = Path::new(file);
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    Err(ApiError::usage(format!("'{file}' is not an absolute path"))
        .with_hint("the node has another working directory than you"))
}

pub(crate) fn convert_error(error: ConvertError) -> ApiError {
    match error {
        ConvertError::Io { ref source, ref path, .. } if is_hidden(source) => hidden(error.to_string(), path),
        _ => ApiError::failed(error.to_string()),
    }
}

pub(crate) fn store_error(error: StoreError) -> ApiError {
    match error {
        // Without its manifest an image is not here, whatever else of it may be.
        StoreError::NotHeld { .. } | StoreError::NoSuchImage(_) | StoreError::MissingPages { .. } => {
            ApiError::not_found(error.to_string())
        }
        StoreError::OverQuota { .. } => {
            ApiError::failed(error.to_string()).with_hint("see what takes how much with: rialto image ls")
        }
        StoreError::DiskFull { .. } => {
            ApiError::failed(error.to_string()).with_hint("free some space, or run: rialto image gc")
        }
        StoreError::Io { ref source, ref path, .. } if is_hidden(source) => hidden(error.to_string(), path),
        _ => ApiError::failed(error.to_string()),
    }
}

fn hidden(message: String, path: &Path) -> ApiError {
    let user = rustix::process::geteuid().as_raw();
    ApiError::failed(message).with_hint(format!(
        "the node runs as user {user}, perhaps without access to home directories; move {} where it may use it",
        path.display()
    ))
}

/// What the caller sees, and the node does not: it is another user, or a service in a sandbox.
fn is_hidden(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{NotFound, PermissionDenied, ReadOnlyFilesystem};
    matches!(error.kind(), NotFound | PermissionDenied | ReadOnlyFilesystem)
}

fn fetch_error(error: FetchError) -> ApiError {
    match error {
        FetchError::NoHolder { .. } | FetchError::NoProgress { .. } => ApiError::failed(error.to_string()).with_hint(
            "see who is connected with: rialto peers; what was stored stays, so a later fetch goes on from there",
        ),
        FetchError::Store(error) => store_error(error),
        FetchError::Malformed { .. } => ApiError::failed(error.to_string()),
        FetchError::Interrupted(_) => ApiError::new(ErrorCode::NotRunning, error.to_string()),
    }
}

impl crate::deploy::ImageSource for crate::store::Store {
    fn export(&self, image: &ImageId, path: &Path, like: Option<&Path>) -> std::io::Result<()> {
        self.export(image, path, like, &mut |_, _| {}, &|| false).map_err(std::io::Error::other)
    }
}
