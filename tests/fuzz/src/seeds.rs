//! What the targets start from, made by the encoders themselves.

use std::collections::BTreeMap;

use rialto_protocol::attestation::{Dsse, PAYLOAD_TYPE_IN_TOTO};
use rialto_protocol::codec::{self, Value};
use rialto_protocol::ids::{Hash, ImageId};
use rialto_protocol::image::chunker::MIN_HOLE_BYTES;
use rialto_protocol::image::encoding::Encoding;
use rialto_protocol::image::manifest::{Entry, ManifestBuilder};
use rialto_protocol::signed::Envelope;
use rialto_protocol::swarm::{ChunkHeader, FrameHead, Message as Control, Ranges, Reference, ReferencedHeader};
use rialto_protocol::sync::{Beginning, Initiator, Message, Responder, SyncSet};

use crate::targets::wire::{our_id, our_set};

#[allow(dead_code)]
#[path = "../../../protocol/tests/cases/mod.rs"]
mod cases;

/// Seeds by target.
pub type Seeds = BTreeMap<&'static str, Vec<Vec<u8>>>;

/// What every target starts from.
pub fn all() -> Seeds {
    let mut seeds = Seeds::new();
    records(&mut seeds);
    pages(&mut seeds);
    frames(&mut seeds);
    sessions(&mut seeds);
    seeds.insert("dsse", attestations());
    seeds.insert("policy", policies().into_iter().map(String::into_bytes).collect());
    seeds.insert("expectations", expectations().into_iter().map(String::into_bytes).collect());
    seeds
}

/// The golden records, taken apart.
fn records(seeds: &mut Seeds) {
    for (_, envelope) in cases::golden() {
        let record = envelope.clone().verify().expect("golden records verify");
        let payload = payload_of(&envelope);
        seeds.entry("envelope").or_default().push(envelope.encode());
        seeds.entry("cbor").or_default().push(payload.clone());
        let ids = [record.id.to_string(), record.header.issuers[0].to_string()];
        seeds.entry("id").or_default().extend(ids.map(String::into_bytes));
        seeds.entry("id").or_default().push(record.id.to_bytes());
        let kinds =
            ["release", "endorsement", "revocation", "channel", "delegation", "advisory", "recipe", "component"];
        if let Some(kind) = kinds.into_iter().find(|kind| *kind == record.header.kind && record.header.v == 1) {
            let body = codec::decode_any(&payload, payload.len()).map(|payload| field(&payload, "body"));
            let body = codec::encode(&body.expect("it was encoded")).expect("a part of what was encoded");
            seeds.entry(kind).or_default().push(body);
        }
        seeds.entry("payload").or_default().push(payload);
    }
}

fn payload_of(envelope: &Envelope) -> Vec<u8> {
    let bytes = envelope.encode();
    match field(&codec::decode_any(&bytes, bytes.len()).expect("it was encoded"), "payload") {
        Value::Bytes(payload) => payload,
        other => panic!("{other:?} is no payload"),
    }
}

fn field(value: &Value, name: &str) -> Value {
    match value {
        Value::Map(fields) => fields[&Value::Text(name.into())].clone(),
        other => panic!("{other:?} is no map"),
    }
}

fn pages(seeds: &mut Seeds) {
    let chunk = |n: u64, length| Entry::Chunk { hash: our_id(n), length };
    let hole = |holes| Entry::Hole { length: holes * MIN_HOLE_BYTES };
    let images = [
        vec![],
        vec![chunk(1, 1)],
        vec![hole(1)],
        vec![chunk(1, 32_768), chunk(2, 40_960), hole(3), chunk(1, 32_768)],
        vec![hole(9), chunk(1, 8192), chunk(2, 100)],
    ];
    for entries in images {
        let mut builder = ManifestBuilder::new();
        entries.iter().for_each(|&entry| builder.push(entry).expect("a possible image"));
        let (_, _, pages) = builder.finish().expect("a manifest");
        seeds.entry("manifest_page").or_default().extend(pages.into_iter().map(|page| page.bytes));
        // The same entries as a page below a root.
        let items = entries.iter().map(|entry| match entry {
            Entry::Chunk { hash, length } => {
                Value::Array(vec![Value::Bytes(hash.0.to_vec()), Value::Integer((*length).into())])
            }
            Entry::Hole { length } => Value::Integer((*length).into()),
        });
        let fields = [("entries", Value::Array(items.collect())), ("level", Value::Integer(0))];
        let page = Value::Map(fields.into_iter().map(|(name, value)| (Value::Text(name.into()), value)).collect());
        seeds.entry("manifest_page").or_default().push(codec::encode(&page).expect("a page"));
    }
}

fn frames(seeds: &mut Seeds) {
    let ranges = |indices: &[u32]| Ranges::pieces(indices.iter().copied()).pop().unwrap_or_default();
    let image = ImageId::of(b"image");
    let controls = [
        Control::Hello { image, bases: vec![] },
        Control::Hello { image, bases: vec![ImageId::of(b"one"), ImageId::of(b"two")] },
        Control::WantPages { hashes: vec![Hash::of(b"page"), Hash::of(b"another")] },
        Control::Want { chunks: ranges(&[0, 1, 2, 7, 300]) },
        Control::Cancel { chunks: ranges(&[5]) },
        Control::Have { is_complete: true, chunks: ranges(&[]) },
        Control::Have { is_complete: false, chunks: ranges(&[1, 3, 5, 70_000]) },
        Control::Busy,
        Control::Absent,
    ];
    let chunk = ChunkHeader { index: 7, encoding: Encoding::Zstd }.frame(3);
    let reference = Reference { base: 1, first: 300, count: 4 };
    let referenced = ReferencedHeader { index: 7, reference }.frame(3);
    let bulk = [[&chunk[..], b"abc"].concat(), [&referenced[..], b"abc"].concat()];
    let frames = controls.iter().map(|message| message.frame().expect("in bounds")).chain(bulk);
    // The target makes the length itself.
    let without_length = |frame: Vec<u8>| [&frame[..1], &frame[FrameHead::BYTES..]].concat();
    seeds.insert("swarm_frame", frames.map(without_length).collect());
}

/// Honest sessions of catch-up with another site, as each side hears them.
fn sessions(seeds: &mut Seeds) {
    let sets: [Vec<u64>; 5] =
        [vec![], (0..64).collect(), (3..64).collect(), (0..70).collect(), (0..200).filter(|n| n % 3 > 0).collect()];
    for set in sets {
        let theirs = || set.iter().map(|&n| (1_790_000_000 + n, our_id(n))).collect::<SyncSet>();
        for side in [0u8, 1] {
            let (ours, other) = if side == 0 { (our_set(), theirs()) } else { (theirs(), our_set()) };
            let (mut initiator, mut responder) = (Initiator::new(ours), Responder::new(other));
            let envelope = |id: &Beginning| Some(vec![id.bytes()[0]; 50]);
            let is_wanted = |id: &Beginning| !id.bytes()[0].is_multiple_of(4);
            let mut heard = vec![side];
            let mut hear = |message: &Message, by: u8| {
                let bytes = message.encode();
                seeds.entry("sync_frame").or_default().push(bytes.clone());
                if let (Ok(length), true) = (u16::try_from(bytes.len()), by == side) {
                    heard.extend(length.to_be_bytes());
                    heard.extend(bytes);
                }
            };
            while !initiator.is_finished() {
                while let Some(message) = initiator.next_message(envelope) {
                    hear(&message, 1);
                    responder.receive(message, is_wanted).expect("honest");
                }
                while let Some(message) = responder.next_message(envelope) {
                    hear(&message, 0);
                    initiator.receive(message, is_wanted).expect("honest");
                }
            }
            seeds.entry("sync_session").or_default().push(heard);
        }
    }
}

/// One statement of each kind that is known, as a payload and in its envelope.
fn attestations() -> Vec<Vec<u8>> {
    let time = "2026-11-23T10:00:00Z";
    let provenance = format!(
        r#"{{"buildDefinition":{{"buildType":"x:y","resolvedDependencies":[{{}}]}},"runDetails":{{"builder":{{"id":"x:z"}},"metadata":{{"finishedOn":"{time}"}}}}}}"#
    );
    let old = format!(
        r#"{{"builder":{{"id":"x:z"}},"buildType":"x:y","metadata":{{"buildFinishedOn":"{time}"}},"materials":[{{}}]}}"#
    );
    let scan = format!(
        r#"{{"scanner":{{"uri":"x:s","db":{{"lastUpdate":"{time}"}},"result":[{{"id":"CVE-1","severity":[{{"method":"m","score":"9.8"}}]}},{{"vulnerability":{{"id":"CVE-2","severity":{{"score":"low"}}}}}}]}},"metadata":{{"scanFinishedOn":"{time}"}}}}"#
    );
    let summary = format!(
        r#"{{"verifier":{{"id":"x:v"}},"timeVerified":"{time}","policy":{{"uri":"x:p"}},"verificationResult":"PASSED","verifiedLevels":["L3"]}}"#
    );
    let spdx = format!(
        r#"{{"spdxVersion":"SPDX-2.3","name":"n","creationInfo":{{"created":"{time}"}},"packages":[{{"name":"p"}}]}}"#
    );
    let cyclonedx = format!(
        r#"{{"bomFormat":"CycloneDX","metadata":{{"timestamp":"{time}","component":{{"name":"n"}}}},"components":[{{"name":"p"}}]}}"#
    );
    let said = [
        ("https://slsa.dev/provenance/v1", provenance),
        ("https://slsa.dev/provenance/v0.2", old),
        ("https://in-toto.io/attestation/vulns/v0.2", scan),
        ("https://slsa.dev/verification_summary/v1", summary),
        ("https://spdx.dev/Document", spdx),
        ("https://cyclonedx.org/bom", cyclonedx),
        ("https://example.org/tested/v1", "{}".to_owned()),
    ];
    let payload = |(predicate_type, predicate): (&str, String)| {
        format!(
            r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"name":"d","digest":{{"sha256":"{}"}}}}],"predicateType":"{predicate_type}","predicate":{predicate}}}"#,
            "07".repeat(32)
        )
    };
    let key = cases::key(1);
    let both = |payload: String| {
        let envelope = Dsse::seal(PAYLOAD_TYPE_IN_TOTO, payload.as_bytes(), &[&key]);
        [payload.into_bytes(), envelope.into_bytes()]
    };
    said.into_iter().map(payload).flat_map(both).collect()
}

/// What is expected of the cautious site's policy, which is the one that is tried: the whole, and each case alone.
fn expectations() -> Vec<String> {
    let whole = include_str!("../../../node/policy/cautious-site.expect.toml");
    let mut cases = whole.split("[[case]]");
    let given = cases.next().unwrap_or_default();
    let alone: Vec<String> = cases.map(|case| format!("{given}[[case]]{case}")).collect();
    [whole.to_owned(), String::new(), given.to_owned()].into_iter().chain(alone).collect()
}

fn policies() -> Vec<String> {
    let key = |seed: u8| {
        let key = cases::public(&cases::key(seed));
        let blob = [&[0, 0, 0, 11][..], b"ssh-ed25519", &[0, 0, 0, 32], &key.0].concat();
        format!("ssh-ed25519 {}", data_encoding::BASE64.encode(&blob))
    };
    let (uni, lab, old, new) = (key(1), key(2), key(3), key(4));
    let signers = format!("[signers]\nuni = \"{uni}\"\nlab = \"{lab}\"\nsecurity = [\"{old}\", \"{new}\"]\n");
    let roles = "[roles]\nreviewers = { signers = [\"lab\", \"security\"], threshold = 2, max-age = \"90d\" }\n\
                 publishers = [\"uni\"]\n";
    let rule = "[[rule]]\nname = \"tested workers\"\nmatch = { publisher = [\"uni\"], name = \"batch-*\", \
                arch = [\"x86_64\"], tags = [\"a\"] }\nrequire = [\"endorsed-by:reviewers\", \"max-age:9d\", \"sbom\"]\n\
                then = \"accept\"\notherwise = \"reject\"\non-revoke = \"block-new\"\nupdate = \"never\"\n";
    let all = "[[rule]]\nname = \"all of uni\"\nmatch = { publisher = [\"uni\"] }\nrequire = [\"signed-by:publishers\"]\n\
               then = \"accept\"\n";
    let default = "[default]\nthen = \"reject\"\n";
    let whole = [&signers, roles, rule, all, default].concat();
    let no_key = whole.replace(&old, "ssh-ed25519 AAAA");
    let misspelt = whole.replace("require", "requires");
    vec![
        String::new(),
        default.into(),
        [&signers, default].concat(),
        [&signers, roles, all].concat(),
        whole,
        no_key,
        misspelt,
        "[default]\nthen = \"accept\"\n".into(),
    ]
}
