//! Catch-up between two sites in memory: sets that differ anywhere, and peers that break the rules.

use std::collections::{BTreeMap, BTreeSet};

use super::outbox::Outbox;
use super::*;
use crate::UnixSeconds;
use crate::ids::Hash;
use crate::sync::{Message, ShortId, Summary, Symbol, SyncSet};
use proptest::prelude::*;

/// A site of the tests: sync ids, each with its time and some bytes in place of an envelope.
type Site = BTreeMap<Hash, (UnixSeconds, Vec<u8>)>;

fn site(items: &[(u64, u32)]) -> Site {
    items
        .iter()
        .map(|(time, number)| {
            let content = [&time.to_be_bytes()[..], &number.to_be_bytes(), &[7; 100]].concat();
            (Hash::of(&content), (*time, content))
        })
        .collect()
}

fn set(site: &Site) -> SyncSet {
    site.iter().map(|(id, (time, _))| (*time, *id)).collect()
}

fn insert(site: &mut Site, envelopes: Vec<Vec<u8>>) {
    for content in envelopes {
        let time = u64::from_be_bytes(content[..8].try_into().unwrap());
        site.insert(Hash::of(&content), (time, content));
    }
}

/// The content of the first id that begins so.
fn content(site: &Site, id: &Beginning) -> Option<Vec<u8>> {
    site.range(id.range()).next().map(|(_, (_, content))| content.clone())
}

fn over_the_wire(message: Message) -> Message {
    let bytes = message.encode();
    assert!(bytes.len() <= crate::sync::MAX_MESSAGE_BYTES);
    Message::decode(&bytes).unwrap()
}

fn lacks(site: &Site, unwanted: &BTreeSet<Hash>, id: &Beginning) -> bool {
    site.range(id.range()).next().is_none() && unwanted.range(id.range()).next().is_none()
}

/// What a session took.
#[derive(Debug, Default)]
struct Cost {
    messages: usize,
    trips: usize,
    /// Of all messages but those with records.
    bytes: usize,
    /// Whether ranges were compared.
    is_by_ranges: bool,
}

impl Cost {
    fn of(&mut self, message: &Message) {
        self.messages += 1;
        self.is_by_ranges |= matches!(message, Message::Reconcile(_));
        if !matches!(message, Message::Records { .. }) {
            self.bytes += message.encode().len();
        }
    }
}

/// Runs a session to its end.
fn run(ours: &mut Site, theirs: &mut Site, unwanted: &BTreeSet<Hash>) -> Cost {
    run_with(ours, theirs, unwanted, |message| message)
}

/// Runs a session to its end with a responder whose messages arrive otherwise than it sends them.
fn run_with(
    ours: &mut Site,
    theirs: &mut Site,
    unwanted: &BTreeSet<Hash>,
    mut answer: impl FnMut(Message) -> Message,
) -> Cost {
    let mut initiator = Initiator::new(set(ours));
    let mut responder = Responder::new(set(theirs));
    let mut cost = Cost::default();
    while !initiator.is_finished() || !responder.is_finished() {
        let before = cost.messages;
        while let Some(message) = initiator.next_message(|id| content(ours, id)) {
            cost.of(&message);
            let progress = responder.receive(over_the_wire(message), |id| lacks(theirs, unwanted, id)).unwrap();
            insert(theirs, progress.envelopes);
        }
        // Done has no answer.
        cost.trips += usize::from(!initiator.is_finished());
        while let Some(message) = responder.next_message(|id| content(theirs, id)) {
            cost.of(&message);
            let message = over_the_wire(answer(message));
            let progress = initiator.receive(message, |id| lacks(ours, unwanted, id)).unwrap();
            insert(ours, progress.envelopes);
        }
        assert!(cost.messages > before, "nobody has anything to say, and the session has not ended");
    }
    assert!(initiator.is_complete());
    cost
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn sets_that_differ_anywhere_converge(
        common in prop::collection::vec((0u64..50, any::<u32>()), 0..300),
        ours in prop::collection::vec((any::<u64>(), any::<u32>()), 0..100),
        theirs in prop::collection::vec((0u64..50, any::<u32>()), 0..300),
    ) {
        let mut ours = site(&[common.clone(), ours].concat());
        let mut theirs = site(&[common, theirs].concat());
        let union: Site = ours.clone().into_iter().chain(theirs.clone()).collect();
        run(&mut ours, &mut theirs, &BTreeSet::new());
        prop_assert_eq!(&ours, &union);
        prop_assert_eq!(&theirs, &union);
    }

    /// The peer's symbols are rubbish, and may even seem to say something: catch-up takes place all the same.
    #[test]
    fn sets_converge_whatever_symbols_say(
        common in prop::collection::vec((0u64..50, any::<u32>()), 0..300),
        ours in prop::collection::vec((any::<u64>(), any::<u32>()), 0..50),
        theirs in prop::collection::vec((0u64..50, any::<u32>()), 1..50),
        lie in 0u8..4, seed in any::<u32>(),
    ) {
        let mut ours = site(&[common.clone(), ours].concat());
        let mut theirs = site(&[common, theirs].concat());
        let union: Site = ours.clone().into_iter().chain(theirs.clone()).collect();
        let other: SyncSet = (0..200u32).map(|number| (1, Hash::of(&(number ^ seed).to_be_bytes()))).collect();
        let mut sent = 0;
        let cost = run_with(&mut ours, &mut theirs, &BTreeSet::new(), |message| match message {
            Message::Symbols(mut symbols) => {
                let others = other.symbols_from(0).skip(sent % 200);
                match lie {
                    0 => symbols.reverse(),
                    1 => symbols.fill(Symbol::default()),
                    // Those of another set.
                    2 => symbols.iter_mut().zip(others).for_each(|(symbol, other)| *symbol = *other),
                    // One of them.
                    _ => {
                        let at = seed as usize % symbols.len();
                        symbols[at] = symbols[at].plus_expected(3, 0);
                    }
                }
                sent += symbols.len();
                Message::Symbols(symbols)
            }
            message => message,
        });
        prop_assert_eq!(&ours, &union);
        prop_assert_eq!(&theirs, &union);
        prop_assert!(sent <= 4_000, "{} symbols were asked of a liar", sent);
        prop_assert!(cost.trips <= 25);
    }

    #[test]
    fn no_message_makes_a_side_panic(
        steps in prop::collection::vec((0u8..9, prop::collection::vec(any::<u8>(), 0..200)), 1..20),
        held in prop::collection::vec((0u64..50, any::<u32>()), 0..100),
    ) {
        let held = site(&held);
        let mut responder = Responder::new(set(&held));
        let mut initiator = Initiator::new(set(&held));
        for (kind, mut bytes) in steps {
            if kind == 1 {
                bytes.insert(0, 0x61); // past negentropy's version check
            }
            let Ok(message) = Message::decode(&[&[kind], bytes.as_slice()].concat()) else { continue };
            let _ = responder.receive(message.clone(), |_| true);
            let _ = initiator.receive(message, |_| true);
            for _ in 0..3 {
                let sent = [
                    responder.next_message(|id| content(&held, id)), initiator.next_message(|id| content(&held, id)),
                ];
                for message in sent.into_iter().flatten() {
                    prop_assert!(message.encode().len() <= crate::sync::MAX_MESSAGE_BYTES);
                }
            }
        }
    }
}

#[test]
fn a_site_that_was_away_gets_all_it_missed() {
    let missed: Vec<_> = (0..5_000).map(|number| (u64::from(number) / 3, number)).collect();
    let mut ours = site(&missed[..200]);
    let mut theirs = site(&missed);
    let cost = run(&mut ours, &mut theirs, &BTreeSet::new());
    assert_eq!(ours, theirs);
    assert!(!cost.is_by_ranges && cost.messages < 60, "{cost:?}");
    let cost = run(&mut ours, &mut theirs, &BTreeSet::new());
    assert_eq!((cost.messages, cost.trips), (3, 1), "equal sets: one round, and Done");
    assert!(cost.bytes < 100, "{cost:?}");
}

#[test]
fn a_thousand_differences_cost_no_more_than_they_have_to() {
    let all: Vec<_> = (0..20_000).map(|number| (u64::from(number), number)).collect();
    let without = |is_missing: &dyn Fn(u32) -> bool| {
        site(&all.iter().copied().filter(|(_, number)| !is_missing(*number)).collect::<Vec<_>>())
    };
    let cases: [[&dyn Fn(u32) -> bool; 2]; 4] = [
        // The newest; scattered ones; the other side's; both.
        [&|number| number >= 19_000, &|_| false],
        [&|number| number % 20 == 7, &|_| false],
        [&|_| false, &|number| number % 20 == 7],
        [&|number| number % 40 == 7, &|number| number % 40 == 8],
    ];
    for [we_lack, they_lack] in cases {
        let (mut ours, mut theirs) = (without(we_lack), without(they_lack));
        let cost = run(&mut ours, &mut theirs, &BTreeSet::new());
        assert_eq!(ours, theirs);
        assert!(!cost.is_by_ranges && cost.bytes <= 60_000 && cost.trips <= 8, "{cost:?}");
    }
}

#[test]
fn one_record_costs_a_few_symbols() {
    let all: Vec<_> = (0..2_000).map(|number| (u64::from(number), number)).collect();
    for missing in [0, 1_000, 1_999] {
        let mut ours = site(&[&all[..missing], &all[missing + 1..]].concat());
        let cost = run(&mut ours, &mut site(&all), &BTreeSet::new());
        assert_eq!(ours.len(), all.len());
        assert!(cost.bytes < 1_000 && cost.trips == 2, "{cost:?}");
    }
}

#[test]
fn a_site_that_has_nothing_yet_gets_all_there_is_by_ranges() {
    let mut theirs = site(&(0..30_000).map(|number| (u64::from(number), number)).collect::<Vec<_>>());
    let mut ours = Site::new();
    let cost = run(&mut ours, &mut theirs, &BTreeSet::new());
    assert_eq!(ours, theirs);
    assert!(cost.is_by_ranges, "{cost:?}");
}

/// Whoever makes records makes some whose symbols cancel out: of as many as a symbol has bits, some do. Their digest does not.
#[test]
fn sets_that_differ_behind_equal_symbols_are_noticed() {
    let ours = site(&[(1, 1), (2, 2)]);
    let theirs = site(&[(1, 1), (3, 3)]);
    let mut initiator = Initiator::new(set(&ours));
    initiator.next_message(|_| None);
    let summary = Message::Summary(set(&theirs).summary());
    initiator.receive(summary, |_| true).unwrap();
    let same =
        set(&ours).symbols_from(0).take(32).enumerate().map(|(at, symbol)| symbol.less_expected(2, at)).collect();
    initiator.receive(Message::Symbols(same), |_| true).unwrap();
    assert!(matches!(initiator.next_message(|_| None), Some(Message::Reconcile(_))));
}

#[test]
fn sets_too_different_for_one_frame_converge() {
    let all: Vec<_> = (0..20_000).map(|number| (u64::from(number % 7), number)).collect();
    let mut ours = site(&all.iter().copied().filter(|(_, n)| n % 2 == 0).collect::<Vec<_>>());
    let mut theirs = site(&all.iter().copied().filter(|(_, n)| n % 3 != 0).collect::<Vec<_>>());
    let union: Site = ours.clone().into_iter().chain(theirs.clone()).collect();
    run(&mut ours, &mut theirs, &BTreeSet::new());
    assert_eq!(ours, union);
    assert_eq!(theirs, union);
}

#[test]
fn what_was_evicted_is_neither_asked_for_nor_taken() {
    let mut ours = site(&[(1, 1), (2, 2)]);
    let mut theirs = site(&[(3, 3), (4, 4)]);
    let unwanted: BTreeSet<_> = site(&[(1, 1), (3, 3)]).into_keys().collect();
    run(&mut ours, &mut theirs, &unwanted);
    assert_eq!(ours, site(&[(1, 1), (2, 2), (4, 4)]));
    assert_eq!(theirs, site(&[(2, 2), (3, 3), (4, 4)]));
}

#[test]
fn a_peer_that_never_finishes_is_cut_off() {
    let held = site(&(0..1_000).map(|number| (1, number)).collect::<Vec<_>>());
    // The fingerprint of something else, for all there is: the initiator will always split again.
    let never = || Message::Reconcile([&[0x61, 0x00, 0x00, 0x01][..], &[0xee; 16]].concat());
    let mut initiator = Initiator::new(set(&held));
    let mut responder = Responder::new(set(&held));
    // As if it had a million records: ranges are compared.
    assert!(initiator.next_message(|_| None).is_some());
    let summary = Summary { count: 1_000_000, digest: [1; 32] };
    initiator.receive(Message::Summary(summary), |_| true).unwrap();
    let mut rounds = 0;
    let error = loop {
        rounds += 1;
        assert!(rounds <= MAX_ROUNDS);
        assert!(initiator.next_message(|_| None).is_some());
        if let Err(error) = initiator.receive(never(), |_| true) {
            break error;
        }
    };
    assert_eq!(error, SyncError::TooManyRounds);
    let error = (0..=MAX_ROUNDS).find_map(|_| {
        let refused = responder.receive(never(), |_| true).err();
        responder.next_message(|_| None);
        refused
    });
    assert_eq!(error, Some(SyncError::TooManyRounds));

    let mut responder = Responder::new(set(&held));
    responder.receive(Message::Summary(Summary { count: 1_000, digest: [1; 32] }), |_| true).unwrap();
    let error = (33..).find_map(|symbols| {
        while responder.next_message(|_| None).is_some() {}
        responder.receive(Message::More(symbols), |_| true).err()
    });
    assert_eq!(error, Some(SyncError::TooManyRounds));
}

#[test]
fn symbols_are_sent_once_and_only_as_asked() {
    let held = site(&(0..100).map(|number| (1, number)).collect::<Vec<_>>());
    let summary = |count| Message::Summary(Summary { count, digest: [1; 32] });
    let mut responder = Responder::new(set(&held));
    assert!(matches!(responder.receive(Message::More(1), |_| true), Err(SyncError::OutOfTurn { .. })));
    responder.receive(summary(100), |_| true).unwrap();
    assert!(matches!(responder.receive(Message::More(40), |_| true), Err(SyncError::OutOfTurn { .. })), "its turn");
    assert_eq!(responder.next_message(|_| None), Some(Message::Summary(set(&held).summary())));
    assert!(matches!(responder.next_message(|_| None), Some(Message::Symbols(symbols)) if symbols.len() == 32));
    assert_eq!(responder.next_message(|_| None), None);
    assert!(matches!(responder.receive(summary(100), |_| true), Err(SyncError::OutOfTurn { .. })), "again");
    for asked in [32, 32_769, u32::MAX] {
        let error = SyncError::NoSuchSymbols { asked: asked as usize, sent: 32 };
        assert_eq!(responder.receive(Message::More(asked), |_| true), Err(error));
    }
    responder.receive(Message::More(32_768), |_| true).unwrap();
    let mut sent = 32;
    while let Some(message) = responder.next_message(|_| None) {
        let Message::Symbols(symbols) = over_the_wire(message) else { panic!() };
        sent += symbols.len();
    }
    assert_eq!(sent, 32_768);

    let mut initiator = Initiator::new(set(&held));
    let symbols = |count| Message::Symbols(vec![Symbol::default(); count]);
    initiator.next_message(|_| None);
    assert!(matches!(initiator.receive(symbols(1), |_| true), Err(SyncError::OutOfTurn { .. })));
    initiator.receive(summary(100), |_| true).unwrap();
    assert!(matches!(initiator.receive(summary(100), |_| true), Err(SyncError::OutOfTurn { .. })));
    initiator.receive(symbols(31), |_| true).unwrap();
    assert_eq!(initiator.receive(symbols(2), |_| true), Err(SyncError::UnaskedSymbols(32)));
}

#[test]
fn a_record_is_served_once_a_session() {
    let held = site(&[(1, 1)]);
    let id = Beginning::from(held.keys().next().unwrap());
    let mut responder = Responder::new(set(&held));
    responder.receive(Message::Want(vec![id]), |_| true).unwrap();
    assert!(matches!(responder.next_message(|_| Some(vec![1])), Some(Message::Records { is_last: true, .. })));
    assert_eq!(responder.receive(Message::Want(vec![id]), |_| true), Err(SyncError::Repeated(id)));
}

#[test]
fn unasked_and_untimely_messages_are_refused() {
    let mut initiator = Initiator::new(SyncSet::default());
    let records = |n: usize| Message::Records { envelopes: vec![vec![1]; n], is_last: false };
    assert!(matches!(initiator.receive(records(1), |_| true), Err(SyncError::OutOfTurn { .. })));

    let mut responder = Responder::new(SyncSet::default());
    responder.receive(Message::Offer(vec![ShortId([1; 16])]), |_| true).unwrap();
    assert_eq!(responder.next_message(|_| None), Some(Message::Want(vec![Beginning::Eight([1; 8])])));
    assert_eq!(responder.receive(records(2), |_| true), Err(SyncError::Unasked(1)));

    let mut responder = Responder::new(SyncSet::default());
    assert_eq!(responder.receive(Message::Want(vec![]), |_| true), Err(SyncError::Empty("Want")));

    let mut offering = Initiator::new(set(&site(&[(1, 1)])));
    let mut nothing = Responder::new(SyncSet::default());
    nothing.receive(offering.next_message(|_| None).unwrap(), |_| true).unwrap();
    while let Some(message) = nothing.next_message(|_| None) {
        offering.receive(message, |_| true).unwrap();
    }
    assert!(matches!(offering.next_message(|_| None), Some(Message::Offer(_))));
    let stranger = Beginning::Eight([9; 8]);
    assert_eq!(offering.receive(Message::Want(vec![stranger]), |_| true), Err(SyncError::NotOffered(stranger)));
}

#[test]
fn a_large_answer_goes_out_in_parts_that_fit() {
    let mut outbox = Outbox::new(vec![Beginning::Eight([0; 8]); 10]);
    let (mut messages, mut records) = (0, 0);
    loop {
        let (message, is_last) = outbox.next(|_| Some(vec![1; 25_000]));
        assert!(message.encode().len() <= crate::sync::MAX_MESSAGE_BYTES);
        let Message::Records { envelopes, .. } = over_the_wire(message) else { panic!() };
        (messages, records) = (messages + 1, records + envelopes.len());
        if is_last {
            break;
        }
    }
    assert_eq!((messages, records), (5, 10));
}

#[test]
fn ids_that_begin_alike_are_told_apart() {
    // Ground so that the first 8 bytes are the same; the contents stand for the envelopes.
    let alike = |end: u8| {
        let mut id = [5; 32];
        id[15] = end;
        (Hash(id), (1, vec![end]))
    };
    let other = (Hash([6; 32]), (1, vec![6]));
    // We hold the first of them, the peer the others, and both directions are asked for.
    let ours: Site = [alike(1), alike(4)].into();
    let theirs: Site = [alike(1), alike(2), alike(3), other.clone()].into();
    for (ours, theirs) in [(&ours, &theirs), (&theirs, &ours)] {
        let mut initiator = Initiator::new(set(ours));
        let mut responder = Responder::new(set(theirs));
        let (mut brought, mut taken) = (Vec::new(), Vec::new());
        while !initiator.is_finished() {
            while let Some(message) = initiator.next_message(|id| content(ours, id)) {
                let message = over_the_wire(message);
                taken.extend(responder.receive(message, |id| lacks(theirs, &BTreeSet::new(), id)).unwrap().envelopes);
            }
            while let Some(message) = responder.next_message(|id| content(theirs, id)) {
                let message = over_the_wire(message);
                brought.extend(initiator.receive(message, |id| lacks(ours, &BTreeSet::new(), id)).unwrap().envelopes);
            }
        }
        for (mut came, from, to) in [(brought, theirs, ours), (taken, ours, theirs)] {
            came.sort();
            let lacking: Vec<_> = from.iter().filter(|(id, _)| !to.contains_key(id)).collect();
            assert_eq!(came, lacking.into_iter().map(|(_, (_, content))| content.clone()).collect::<Vec<_>>());
        }
    }
}
