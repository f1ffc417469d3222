//! What people call a release: a record id, the beginning of one, `PETNAME/NAME@VERSION`, or `PETNAME/NAME:CHANNEL`.

use rialto_protocol::ids::{ImageId, RecordId};
use rialto_web::api::ApiError;

use super::Node;
use crate::catalog::{FindError, SharedRecord};

/// A reference is at most this long; the longest true one has two names and a version.
const MAX_REFERENCE_BYTES: usize = 256;

/// What `fetch` was pointed at.
pub(crate) enum FetchTarget {
    /// A release of the catalog.
    Release(SharedRecord),
    /// An image, by its id.
    Image(ImageId),
}

/// Reads what `fetch` was pointed at. Records and images have ids of one form: what the catalog knows is a record.
pub(crate) fn fetch_target(node: &Node, target: &str) -> Result<FetchTarget, ApiError> {
    if let Ok(id) = target.parse::<RecordId>() {
        return match node.catalog.get(&id) {
            Some(record) => node.as_release(record).map(FetchTarget::Release),
            None => Ok(FetchTarget::Image(ImageId::from_hash(id.hash()))),
        };
    }
    node.find_release(target).map(FetchTarget::Release)
}

impl Node {
    /// The release that a reference means.
    ///
    /// # Errors
    /// `usage` for what is no reference, `not-found` for one that means nothing, or more than one release.
    pub(crate) fn find_release(&self, reference: &str) -> Result<SharedRecord, ApiError> {
        if reference.len() > MAX_REFERENCE_BYTES {
            return Err(not_a_reference(reference));
        }
        match reference.split_once('/') {
            Some((publisher, rest)) => match rest.split_once('@') {
                Some((name, version)) => self.find_by_name(reference, publisher, name, version),
                None if rest.contains(':') => self.find_by_channel(reference),
                None => Err(not_a_reference(reference)),
            },
            None => match self.catalog.find(reference) {
                Ok(record) => self.as_release(record),
                Err(error @ FindError::TooShort(_)) => Err(ApiError::usage(error.to_string())),
                Err(error) => {
                    Err(ApiError::not_found(error.to_string()).with_hint("list what is known here with: rialto search"))
                }
            },
        }
    }

    /// The release that a channel points at, where its head is its publisher's last word.
    fn find_by_channel(&self, reference: &str) -> Result<SharedRecord, ApiError> {
        let channel = self.channel_called(reference)?;
        let state = self.channel(&channel).state;
        let Some(release) = state.fresh() else {
            let flaws: Vec<String> = state.flaws.iter().map(ToString::to_string).collect();
            return Err(ApiError::not_found(format!("channel {reference} leads nowhere: {}", flaws.join(", and ")))
                .with_hint(format!("see what is known of it: rialto channel show {reference}; or name a release")));
        };
        let record = self.catalog.get(&release).ok_or_else(|| {
            ApiError::not_found(format!("channel {reference} points at {release}, which is not known here yet"))
                .with_hint("it comes with the next catch-up; see rialto peers")
        })?;
        let record = self.as_release(record)?;
        // Another appliance's release would be one that nobody asked for.
        let is_of_it = record.body.release().is_some_and(|release| {
            release.publisher == channel.publisher && release.name == channel.name && self.is_published(&record)
        });
        match is_of_it {
            true => Ok(record),
            false => Err(ApiError::not_found(format!("channel {reference} points at a release of something else"))),
        }
    }

    fn find_by_name(
        &self,
        reference: &str,
        publisher: &str,
        name: &str,
        version: &str,
    ) -> Result<SharedRecord, ApiError> {
        let mut found = Vec::new();
        if let (Ok(name), Ok(version)) = (name.try_into(), version.try_into()) {
            // A publisher with a petname is called by nothing else.
            let keys = self.keys_called(publisher).into_iter().filter(|key| self.shown(key) == publisher);
            found.extend(keys.flat_map(|key| self.catalog.version(&key, &name, &version)));
        }
        match found.len() {
            0 => Err(ApiError::not_found(format!("no release here is called {reference}"))
                .with_hint("list what is known here with: rialto search")),
            1 => Ok(found.swap_remove(0)),
            several => {
                let ids: Vec<String> = found.iter().map(|record| record.id.to_string()).collect();
                Err(ApiError::not_found(format!("{several} releases are called {reference}: {}", ids.join(", ")))
                    .with_hint("name one of them by its id"))
            }
        }
    }

    fn as_release(&self, record: SharedRecord) -> Result<SharedRecord, ApiError> {
        match record.body.release() {
            Some(_) => Ok(record),
            None => Err(ApiError::not_found(format!(
                "{} is a record of kind '{}', not a release",
                record.id, record.header.kind
            ))),
        }
    }
}

fn not_a_reference(reference: &str) -> ApiError {
    let shown: String = reference.chars().take(80).collect();
    ApiError::usage(format!("'{shown}' does not name a release"))
        .with_hint("give a record id, at least 12 characters of one, PETNAME/NAME@VERSION, or PETNAME/NAME:CHANNEL")
}
