//! Images of the store, and how they come there.

use std::collections::BTreeMap;

use rialto_protocol::ids::ImageId;
use serde::{Deserialize, Serialize};

/// One image of the store, for `image ls`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageSummary {
    /// Its id.
    pub image: ImageId,
    /// Length, in bytes.
    pub bytes: u64,
    /// Bytes that no hole covers.
    pub data_bytes: u64,
    /// Bytes on disk that only this image keeps: removing it frees them.
    pub own_bytes: u64,
    /// Bytes on disk that other images need, too.
    pub shared_bytes: u64,
    /// Chunks, holes not counted.
    pub chunks: u64,
    /// Chunks still missing.
    pub missing_chunks: u64,
    /// Releases that name it (`publisher/name@version`).
    pub used_by: Vec<String>,
    /// Whether garbage collection leaves it alone.
    pub is_pinned: bool,
    /// When it was added.
    pub added: String,
}

/// `image add`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageAdded {
    /// Its id.
    pub image: ImageId,
    /// Length, in bytes.
    pub bytes: u64,
    /// Chunks, holes not counted.
    pub chunks: u64,
    /// Chunks that the store did not hold before.
    pub new_chunks: u64,
    /// Bytes that the store grew by.
    pub stored_bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

/// `image verify`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageVerified {
    /// Its id.
    pub image: ImageId,
    /// Chunks read and found good.
    pub good_chunks: u64,
    /// Chunks missing or damaged.
    pub bad_chunks: u64,
    /// How long it took.
    pub seconds: f64,
}

/// `image get`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageExported {
    /// Its id.
    pub image: ImageId,
    /// The file written.
    pub file: String,
    /// Length, in bytes.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

/// `image gc`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Collected {
    /// Chunks dropped.
    pub dropped_chunks: u64,
    /// Bytes given back to the file system.
    pub freed_bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

/// `image scrub`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scrubbed {
    /// Bytes read.
    pub bytes: u64,
    /// Chunks and pages that were damaged, and dropped.
    pub damaged_chunks: u64,
    /// Images that lacked something and are whole again, from other sites.
    pub mended: Vec<ImageId>,
    /// Images that lack what nobody who was asked has.
    pub lost: Vec<ImageId>,
    /// How long it took.
    pub seconds: f64,
}

/// `fetch`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fetched {
    /// The images that are complete now.
    pub images: Vec<ImageId>,
    /// The image, where one image was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageId>,
    /// Their length, in bytes.
    pub bytes: u64,
    /// Bytes of chunks and pages received.
    pub wire_bytes: u64,
    /// Of those, bytes received more than once or thrown away.
    pub duplicate_bytes: u64,
    /// How long it took.
    pub seconds: f64,
    /// Bytes received from each peer.
    pub peers: BTreeMap<String, u64>,
}

/// `image add FILE`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddImageRequest {
    /// Absolute path of the file, as the node sees it.
    pub file: String,
    /// What the file is, where it is a disk that may have to be made flat: raw, qcow2, vmdk, vhd or ova. Without it, the
    /// file is stored as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Which disk of an archive, where it has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
}

/// `image get IMAGE -o FILE`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportImageRequest {
    /// Absolute path of the file to write.
    pub file: String,
    /// raw or qcow2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
}

/// `fetch IMAGE|RELEASE [--held]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchRequest {
    /// An image id, or a release.
    pub target: String,
    /// Fetch a release that policy does not accept: it is stored, never deployed.
    #[serde(default)]
    pub held: bool,
}
