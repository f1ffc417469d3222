//! What no command makes: records of a later version, and stores that hold only a part of an image.

use ed25519_dalek::SigningKey;
use rialto_node::catalog::{Catalog, DEFAULT_BUDGET_BYTES};
use rialto_node::dir::NodeDir;
use rialto_node::store::{Options, Store};
use rialto_protocol::UnixSeconds;
use rialto_protocol::bounded::{List, Name, Text};
use rialto_protocol::codec::{self, Value};
use rialto_protocol::ids::{Hash, ImageId, PublicKey, RecordId, Sha256};
use rialto_protocol::record::{Disk, DiskFormat, Release};
use rialto_protocol::signed::{Draft, Envelope};
use rialto_testnet::site::Site;

use crate::stage::{FEDERATION, Outcome};

/// Now, as records say it.
pub fn now() -> UnixSeconds {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A well-signed record of any version and kind, with a body that no node of today reads.
///
/// # Errors
/// The kind is too long.
pub fn record(key: &SigningKey, version: u64, kind: &str) -> Outcome<Envelope> {
    let issuer = PublicKey(key.verifying_key().to_bytes());
    let fields = [
        ("v", Value::Integer(version.into())),
        ("kind", Value::Text(kind.into())),
        ("issuers", Value::Array(vec![Value::Bytes(issuer.0.to_vec())])),
        ("issued", Value::Integer(now().into())),
        ("body", Value::Array(vec![Value::Null, Value::Text("what only a later node reads".into())])),
    ];
    let payload = codec::encode(&Value::Map(fields.map(|(name, value)| (Value::Text(name.into()), value)).into()))?;
    Ok(Draft::from_payload(payload, vec![issuer])?.sign(key)?.seal())
}

/// A release that names this publisher, of one disk that is this image, whether anybody has it or not.
///
/// # Errors
/// No such name or version can be.
pub fn release(publisher: &SigningKey, name: &str, version: &str, image: ImageId, content: &[u8]) -> Outcome<Release> {
    let disk = Disk {
        image,
        format: DiskFormat::Raw,
        bytes: content.len() as u64,
        blake3: Hash::of(content),
        // No test here asks for it.
        sha256: Sha256([0; 32]),
    };
    let publisher = PublicKey(publisher.verifying_key().to_bytes());
    let (name, version) = (Name::try_from(name)?, version.try_into()?);
    Ok(Release::minimal(publisher, name, version, List::try_from(vec![disk])?, Text::try_from("Software")?))
}

/// The catalog of a site that does not run.
///
/// # Errors
/// It cannot be opened.
pub fn catalog(site: &Site) -> Outcome<Catalog> {
    let directory = NodeDir::new(site.directory())?.records();
    Ok(Catalog::open(&directory, Name::try_from(FEDERATION)?, DEFAULT_BUDGET_BYTES)?)
}

/// Whether the catalog of a site that does not run has this record, byte for byte.
///
/// # Errors
/// It cannot be opened.
pub fn holds(site: &Site, id: &RecordId, envelope: &Envelope) -> Outcome<bool> {
    Ok(catalog(site)?.get(id).is_some_and(|held| held.envelope() == envelope))
}

/// The store of a site that does not run.
///
/// # Errors
/// It cannot be opened.
pub fn store(site: &Site) -> Outcome<Store> {
    Ok(Store::open(&NodeDir::new(site.directory())?.store(), Options::default())?)
}

/// Leaves `to` as a fetch from `from` leaves it that was cut short: with the manifest of an image and those of its chunks
/// whose positions are `wanted`. Neither site runs. Returns the bytes of these chunks.
///
/// # Errors
/// The image is not complete at `from`, or cannot be stored.
pub fn fetch_partly(from: &Site, to: &Site, image: &ImageId, wanted: impl Fn(usize) -> bool) -> Outcome<u64> {
    let (from, to) = (store(from)?, store(to)?);
    to.begin_fetch(image)?;
    for page in from.survey(image)?.pages {
        to.put_page(&page, &from.read_page(&page)?)?;
    }
    let mut bytes = 0;
    for (_, chunk) in from.manifest(image)?.chunks.iter().enumerate().filter(|(position, _)| wanted(*position)) {
        let encoded = from.read_encoded(&chunk.hash)?;
        to.put_encoded(chunk.hash, encoded.plain_length, encoded.encoding, &encoded.bytes)?;
        bytes += u64::from(chunk.length);
    }
    to.commit()?;
    Ok(bytes)
}
