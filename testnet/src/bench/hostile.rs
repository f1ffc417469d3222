//! Nine of ten holders mean harm: three lie, three stall, three trickle. The tenth is an honest node.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rialto_protocol::image::encoding::Encoding;
use rialto_protocol::swarm::ChunkHeader;

use super::table::{Row, Target};
use super::{Bench, FEDERATION, Result, add, fetch, figure, insist_on};
use crate::held::{Held, noise};
use crate::hostile::{Hostile, Part, Talk};
use crate::site::{Plan, Site};

const BYTES: usize = 512 << 20;
/// Of each sort.
const EACH: usize = 3;
/// One who trickles sends a good chunk, of 32 KiB on average, and then nothing for so long.
const TRICKLE: Duration = Duration::from_secs(2);

pub(super) fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let image = Arc::new(Held::random(BYTES, 11));
    let file = bench.base.join("random.raw");
    fs::write(&file, &image.content)?;
    let holder = bench.holder("holder")?;
    add(&holder, &file)?;

    let mut row = Row::new("hostile", "512 MiB from 10 holders: 3 lie, 3 stall, 3 trickle, 1 is honest", "s");
    row = row.beside("the honest one alone").must(Target::RatioAtMost(1.5));
    let mut met = Row::new("hostile", "of the 9 hostile holders, asked for chunks", "holders");
    for run in 0..bench.runs {
        let alone = bench.fetcher(&format!("alone{run}"), &holder)?;
        let other = figure(&fetch(&alone, &image.name())?, "seconds")?;
        bench.remove(alone)?;

        let plan = Plan::new(&format!("beset{run}"), FEDERATION).knows(&holder)?;
        let mut beset = Site::init(&bench.rialto, &bench.base, &plan)?;
        beset.start()?;
        let asked = Arc::default();
        let hostile = besiege(&beset.address()?, &image, &asked);
        beset.meets(&[&holder])?;
        row.push(figure(&fetch(&beset, &image.name())?, "seconds")?, other);
        if run == 0 {
            insist_on(&beset, &image.name(), &file, &bench.base)?;
        }
        met.push(asked.load(Ordering::Relaxed) as f64, f64::NAN);
        drop(hostile);
        bench.remove(beset)?;
    }
    Ok(vec![row, met])
}

/// Connects the nine to the node at this address; each claims to have everything. `asked` counts those that are asked
/// for chunks.
fn besiege(address: &str, image: &Arc<Held>, asked: &Arc<AtomicUsize>) -> Vec<Hostile> {
    (0..3 * EACH)
        .map(|number| {
            let peer = Hostile::join(FEDERATION, address);
            let (image, asked) = (Arc::clone(image), Arc::clone(asked));
            let harm = [Harm::Lie, Harm::Stall, Harm::Trickle][number % 3];
            peer.on(Part::Swarm, move |talk| serve(Arc::clone(&image), talk, harm, Arc::clone(&asked)));
            peer
        })
        .collect()
}

/// What a hostile holder does when it is asked for a chunk.
#[derive(Debug, Clone, Copy)]
enum Harm {
    /// Sends other bytes.
    Lie,
    /// Says nothing.
    Stall,
    /// Sends it, and the next one much later.
    Trickle,
}

async fn serve(image: Arc<Held>, mut talk: Talk, harm: Harm, asked: Arc<AtomicUsize>) {
    if !image.greet(&mut talk).await {
        return;
    }
    let mut is_counted = false;
    while let Some(indices) = image.asked(&mut talk).await {
        if !std::mem::replace(&mut is_counted, true) {
            asked.fetch_add(1, Ordering::Relaxed);
        }
        for index in indices {
            let sent = match harm {
                Harm::Lie => {
                    let bytes = noise(image.chunks[index as usize].len(), index.into());
                    talk.chunk(ChunkHeader { index, encoding: Encoding::Raw }, &bytes).await
                }
                Harm::Stall => return talk.until_closed().await,
                Harm::Trickle => {
                    tokio::time::sleep(TRICKLE).await;
                    image.send(&mut talk, index).await
                }
            };
            if sent.is_err() {
                return;
            }
        }
    }
}
