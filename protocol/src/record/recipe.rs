//! `Recipe` and `Component`: what appliances are built from, shared as signed text. These records carry it; what it says
//! is the factory's business.

use serde::{Deserialize, Serialize};

use crate::bounded::{Name, Text, Version};
use crate::ids::{ImageId, PublicKey};

/// Text that stands in the record itself is at most this long: 32 KiB leaves room in a payload of 48 KiB for the rest.
pub const MAX_INLINE_BYTES: usize = 32 * 1024;

/// How an appliance is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Whose recipe it is. It counts as theirs only where this key is among the verified signers.
    pub publisher: PublicKey,
    /// The recipe's name, unique for its publisher.
    pub name: Name,
    /// The label of this version of it.
    pub version: Version,
    /// One line that says what it makes.
    pub summary: Text<200>,
    /// The recipe itself.
    pub source: Source,
}

/// A part that recipes share: packages, files, units, scripts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Component {
    /// Whose component it is. It counts as theirs only where this key is among the verified signers.
    pub publisher: PublicKey,
    /// The component's name, unique for its publisher.
    pub name: Name,
    /// The label of this version of it.
    pub version: Version,
    /// One line that says what it adds.
    pub summary: Text<200>,
    /// The component itself.
    pub source: Source,
}

/// A TOML text: in the record where it is short, else an image that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Source {
    /// The text.
    Inline(Text<MAX_INLINE_BYTES>),
    /// The image whose content is the text, with whatever files it needs.
    Image(ImageId),
}
