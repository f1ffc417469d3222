//! Statements of others' tools about an image, in the form that the software supply chain has settled on: an
//! [in-toto Statement](https://github.com/in-toto/attestation/tree/main/spec) in a
//! [DSSE](https://github.com/secure-systems-lab/dsse) envelope.
//!
//! ```text
//! bytes ─► Dsse (payload type, payload, signatures) ─► Attestation (subjects, predicate, its own time)
//!             └─ is_signed_by(key): over PAE(type, payload), never over what was made of it
//! ```
//!
//! Nothing here knows which keys count: a DSSE signature names no key, so the question is always whether *one of these*
//! made it. All of it is hostile input, and bounded before anything is made of it.

mod dsse;
mod json;
mod predicate;
mod statement;
#[cfg(test)]
mod tests;
mod time;

pub use dsse::{
    Dsse, DsseError, MAX_DSSE_BYTES, MAX_DSSE_SIGNATURES, PAYLOAD_TYPE_IN_TOTO, pre_authentication_encoding,
};
pub use json::{JsonBounds, JsonError, scan as scan_json};
pub use predicate::{
    Bill, BillForm, PREDICATE_PROVENANCE, PREDICATE_SCAN, PREDICATE_VERIFICATION, Predicate, Provenance, Scan,
    Verification,
};
pub use statement::{Attestation, AttestationError, MAX_SUBJECTS, Subject};
pub use time::rfc3339;
