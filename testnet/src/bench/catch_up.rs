//! A site that was away: how long from its start until it has the 1,000 records that it missed.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use ed25519_dalek::SigningKey;
use rialto_node::catalog::{Catalog, DEFAULT_BUDGET_BYTES};
use rialto_protocol::bounded::Name;
use rialto_protocol::ids::{PublicKey, RecordId};
use rialto_protocol::record::{Body, Endorsement, EndorsementBody, PREDICATE_TESTED};
use rialto_protocol::signed::Draft;

use super::table::Row;
use super::{Bench, BenchError, FEDERATION, Result};
use crate::site::{Plan, Site};

const RECORDS: u64 = 1_000;

pub(super) fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let mut knowing = Site::init(&bench.rialto, &bench.base, &Plan::new("knowing", FEDERATION))?;
    write_records(&knowing.directory().join("records"))?;
    knowing.start()?;
    let mut row = Row::new("catch-up", format!("{RECORDS} missed records, from the node's start"), "s");
    let mut ready = Row::new("catch-up", "of which: until the node is ready", "s");
    for run in 0..bench.runs {
        let plan = Plan::new(&format!("away{run}"), FEDERATION).knows(&knowing)?;
        let mut away = Site::init(&bench.rialto, &bench.base, &plan)?;
        let started = Instant::now();
        away.start()?;
        ready.push(started.elapsed().as_secs_f64(), f64::NAN);
        away.until(Duration::from_secs(60), "all records", &["status"], |status| status["records"] == RECORDS)?;
        row.push(started.elapsed().as_secs_f64(), f64::NAN);
        away.end();
    }
    Ok(vec![row, ready])
}

/// Records of a signer whom no policy names, as they would lie there after a year.
fn write_records(directory: &Path) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| BenchError::Records(error.to_string());
    let federation = Name::try_from(FEDERATION).map_err(|error| failed(&error))?;
    let catalog = Catalog::open(directory, federation, DEFAULT_BUDGET_BYTES).map_err(|error| failed(&error))?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(|error| failed(&error))?.as_secs();
    let key = SigningKey::from_bytes(&[7; 32]);
    let issuer = PublicKey(key.verifying_key().to_bytes());
    let predicate = PREDICATE_TESTED.try_into().map_err(|error| failed(&error))?;
    let body = |number: u64| {
        Body::Endorsement(Endorsement {
            subject: RecordId::of(&number.to_be_bytes()),
            predicate: Clone::clone(&predicate),
            body: EndorsementBody::Native { note: None },
            expires: None,
        })
    };
    let envelopes: Vec<Vec<u8>> = (0..RECORDS)
        .map(|number| {
            let draft = Draft::new([issuer], None, now - number, &body(number)).and_then(|draft| draft.sign(&key));
            draft.map(|draft| draft.seal().encode()).map_err(|error| failed(&error))
        })
        .collect::<Result<_>>()?;
    catalog.insert_batch(&envelopes, None, now).map_err(|error| failed(&error))?;
    Ok(())
}
