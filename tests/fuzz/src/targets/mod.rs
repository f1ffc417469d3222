//! What must hold for whatever bytes a stranger sends: each function takes some, and panics where it does not.
//!
//! The fuzz binaries call these, and so does the test that replays the kept corpora: nothing here knows of a fuzzer.

mod another_cbor;
pub mod attestations;
pub mod basics;
pub mod images;
pub mod records;
pub mod wire;

/// A target's name, and the target.
pub type Target = (&'static str, fn(&[u8]));

/// Every target but the policy file's, which needs the node.
pub const TARGETS: [Target; 17] = [
    ("cbor", basics::cbor),
    ("id", basics::id),
    ("envelope", records::envelope),
    ("payload", records::payload),
    ("release", records::release),
    ("endorsement", records::endorsement),
    ("revocation", records::revocation),
    ("channel", records::channel),
    ("delegation", records::delegation),
    ("advisory", records::advisory),
    ("recipe", records::recipe),
    ("component", records::component),
    ("dsse", attestations::dsse),
    ("manifest_page", images::manifest_page),
    ("swarm_frame", wire::swarm_frame),
    ("sync_frame", wire::sync_frame),
    ("sync_session", wire::sync_session),
];
