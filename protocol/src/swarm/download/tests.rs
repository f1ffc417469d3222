//! Downloads in virtual time, against holders that are honest, partial, slow, silent or liars.

use super::*;
use proptest::prelude::*;

const MS: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Character {
    Honest,
    Partial,
    Silent,
    Mute,
    Liar,
    Unasked,
}

/// A holder that delivers one chunk every `pace`.
struct Holder {
    character: Character,
    pace: Duration,
    queue: Vec<u32>,
    next_at: Duration,
}

struct Run {
    took: Duration,
    sent: u64,
    drops: BTreeMap<PeerKey, DropReason>,
    trace: Vec<String>,
}

/// Runs a download of `count` chunks until it completes or nothing can happen any more.
fn run(count: u32, seed: u64, holders: &[(Character, Duration)]) -> Result<Run, Progress> {
    let mut download =
        Download::new((0..count).map(|index| Wanted { index: index * 2, bytes: 32_768 }), seed, Timing::default());
    let mut now = Duration::ZERO;
    let mut result = Run { took: now, sent: 0, drops: BTreeMap::new(), trace: Vec::new() };
    let mut swarm: BTreeMap<PeerKey, Holder> = BTreeMap::new();
    for (&(character, pace), key) in holders.iter().zip(0..) {
        download.joined(key, now);
        match character {
            Character::Mute => {}
            Character::Partial => {
                let half = (0..count).filter(|index| index % 2 == (key as u32) % 2).map(|index| index * 2);
                for piece in Ranges::pieces(half) {
                    download.have(key, false, &piece, now);
                }
            }
            _ => download.have(key, true, &Ranges::default(), now),
        }
        swarm.insert(key, Holder { character, pace, queue: Vec::new(), next_at: now });
    }
    for _ in 0..400_000 {
        for action in download.poll(now) {
            result.trace.push(format!("{now:?} {action:?}"));
            match action {
                Action::Want { peer, chunks } => {
                    let holder = swarm.get_mut(&peer).expect("asked a dropped peer");
                    if holder.queue.is_empty() {
                        holder.next_at = now + holder.pace;
                    }
                    holder.queue.extend(chunks);
                }
                Action::Cancel { peer, chunks } => {
                    if let Some(holder) = swarm.get_mut(&peer) {
                        holder.queue.retain(|index| !chunks.contains(index));
                    }
                }
                Action::Drop { peer, reason } => {
                    swarm.remove(&peer);
                    result.drops.insert(peer, reason);
                }
            }
        }
        if download.is_complete() {
            result.took = now;
            return Ok(result);
        }
        let deliveries = swarm.values().filter(|h| h.character != Character::Silent && !h.queue.is_empty());
        let Some(next) = deliveries.map(|h| h.next_at).chain(download.wake_at(now)).min() else {
            return Err(download.progress());
        };
        now = now.max(next);
        for (&key, holder) in &mut swarm {
            if holder.character == Character::Silent || holder.queue.is_empty() || holder.next_at > now {
                continue;
            }
            let index = holder.queue.remove(0);
            holder.next_at = now + holder.pace;
            result.sent += 1;
            let index = if holder.character == Character::Unasked { index + 1 } else { index };
            if download.arrived(key, index, now) == Outcome::Needed {
                match holder.character {
                    Character::Liar => download.refused(key, index),
                    _ => download.stored(index),
                }
            }
        }
    }
    panic!("a download that never ends: {:?}", download.progress());
}

#[test]
fn one_honest_holder_is_asked_for_each_chunk_once() {
    let run = run(500, 1, &[(Character::Honest, MS)]).unwrap();
    assert_eq!(run.sent, 500);
    assert!(run.drops.is_empty());
}

#[test]
fn two_halves_make_a_whole() {
    let run = run(500, 1, &[(Character::Partial, MS), (Character::Partial, MS)]).unwrap();
    assert_eq!(run.sent, 500);
    assert!(run.took < 300 * MS, "{:?}", run.took);
}

#[test]
fn half_is_not_a_whole() {
    assert_eq!(run(500, 1, &[(Character::Partial, MS)]).err().map(|progress| progress.chunks_done), Some(250));
}

#[test]
fn a_liar_is_dropped_at_its_first_lie_and_the_download_completes() {
    let run = run(500, 1, &[(Character::Liar, MS), (Character::Honest, MS)]).unwrap();
    assert_eq!(run.drops, BTreeMap::from([(0, DropReason::Lied)]));
    assert_eq!(run.sent, 501);
}

#[test]
fn a_peer_that_sends_what_nobody_asked_for_is_dropped() {
    let run = run(500, 1, &[(Character::Unasked, MS), (Character::Honest, MS)]).unwrap();
    assert_eq!(run.drops, BTreeMap::from([(0, DropReason::Unasked)]));
}

#[test]
fn a_peer_that_says_nothing_is_dropped_and_delays_nobody() {
    let run = run(20_000, 1, &[(Character::Mute, MS), (Character::Honest, MS)]).unwrap();
    assert_eq!(run.drops, BTreeMap::from([(0, DropReason::Stalled)]));
    assert!(run.took < 20_100 * MS, "{:?}", run.took);
}

#[test]
fn chunks_at_a_silent_holder_come_from_the_other() {
    let run = run(5_000, 1, &[(Character::Silent, MS), (Character::Honest, MS)]).unwrap();
    assert!(run.took < 6_500 * MS, "{:?}", run.took);
}

#[test]
fn a_trickling_holder_costs_little() {
    let alone = run(5_000, 1, &[(Character::Honest, MS)]).unwrap();
    let both = run(5_000, 1, &[(Character::Honest, 3_000 * MS), (Character::Honest, MS)]).unwrap();
    assert!(both.took < alone.took * 3 / 2, "{:?} against {:?}", both.took, alone.took);
    assert!(both.sent < 5_040, "{} chunks were sent", both.sent);
}

#[test]
fn fetchers_with_different_seeds_start_with_different_chunks() {
    let first = |seed| run(2_000, seed, &[(Character::Honest, MS)]).unwrap().trace.swap_remove(0);
    assert_ne!(first(1), first(2));
    assert_eq!(first(1), first(1));
}

fn join_complete(download: &mut Download, peer: PeerKey, now: Duration) {
    download.joined(peer, now);
    download.have(peer, true, &Ranges::default(), now);
}

fn asked_of(actions: &[Action], of: PeerKey) -> Vec<u32> {
    let wanted = actions.iter().filter_map(|action| match action {
        Action::Want { peer, chunks } if *peer == of => Some(chunks.clone()),
        _ => None,
    });
    wanted.flatten().collect()
}

fn small(count: u32) -> Download {
    Download::new((0..count).map(|index| Wanted { index, bytes: 32_768 }), 1, Timing::default())
}

#[test]
fn a_holder_that_was_cut_off_and_sends_twice_what_was_asked_twice_is_not_dropped() {
    let (mut download, stall) = (small(2), Timing::default().stall);
    join_complete(&mut download, 0, Duration::ZERO);
    assert_eq!(asked_of(&download.poll(Duration::ZERO), 0), [0, 1]);
    assert_eq!(asked_of(&download.poll(stall), 0), [0, 1]);
    assert_eq!(download.arrived(0, 0, stall), Outcome::Needed);
    assert_eq!(download.arrived(0, 0, stall), Outcome::Duplicate);
    assert_eq!(download.arrived(0, 1, stall), Outcome::Needed);
    assert_eq!(download.arrived(0, 1, stall), Outcome::Duplicate);
    assert_eq!(download.peer_count(), 1);
    assert_eq!(download.arrived(0, 1, stall), Outcome::Unasked, "a third time is once too often");
}

#[test]
fn a_holder_that_lost_its_turn_gets_it_back_although_others_have_what_nobody_needs() {
    let (mut download, stall) = (small(2), Timing::default().stall);
    // Peer 1 has chunk 0 and nothing else, peer 0 has everything and is cut off for a while.
    download.joined(1, Duration::ZERO);
    download.have(1, false, &Ranges::pieces([0]).remove(0), Duration::ZERO);
    download.poll(Duration::ZERO);
    assert_eq!(download.arrived(1, 0, MS), Outcome::Needed);
    download.stored(0);
    join_complete(&mut download, 0, MS);
    assert_eq!(asked_of(&download.poll(MS), 0), [1]);
    let mut now = MS + stall;
    assert_eq!(asked_of(&download.poll(now), 0), [0u32; 0]);
    now = download.wake_at(now).expect("there is something to wait for");
    assert!(now <= MS + 2 * stall);
    assert_eq!(asked_of(&download.poll(now), 0), [1]);
}

#[test]
fn a_partial_holder_that_has_nothing_yet_keeps_its_place_and_is_asked_once_it_has() {
    let (mut download, stall) = (small(4), Timing::default().stall);
    download.joined(0, Duration::ZERO);
    download.have(0, false, &Ranges::default(), Duration::ZERO);
    assert_eq!(download.poll(5 * stall), []);
    download.have(0, false, &Ranges::pieces([2]).remove(0), 5 * stall);
    assert_eq!(asked_of(&download.poll(5 * stall), 0), [2]);
}

#[test]
fn nothing_to_fetch_is_complete_at_once() {
    assert!(Download::new([], 1, Timing::default()).is_complete());
}

fn character() -> impl Strategy<Value = Character> {
    use Character::*;
    prop::sample::select(vec![Honest, Partial, Silent, Mute, Liar, Unasked])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the company, one honest holder is enough, and what does not lie is not called a liar.
    #[test]
    fn one_honest_holder_is_enough(
        count in 0u32..600,
        seed in any::<u64>(),
        company in prop::collection::vec((character(), 1u32..50), 0..8),
    ) {
        let mut holders: Vec<_> = company.into_iter().map(|(character, pace)| (character, pace * MS)).collect();
        holders.push((Character::Honest, 5 * MS));
        let run = run(count, seed, &holders).expect("completes");
        for (peer, reason) in run.drops {
            match holders[peer as usize].0 {
                Character::Liar => prop_assert_eq!(reason, DropReason::Lied),
                Character::Unasked => prop_assert_eq!(reason, DropReason::Unasked),
                Character::Silent | Character::Mute => prop_assert_eq!(reason, DropReason::Stalled),
                Character::Honest | Character::Partial => prop_assert!(false, "an honest holder was dropped: {reason}"),
            }
        }
    }
}
