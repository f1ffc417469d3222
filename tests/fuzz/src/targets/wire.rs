//! What comes on streams: frames of the swarm, messages of catch-up, and whole sessions of a peer that says anything.

use rialto_protocol::ids::Hash;
use rialto_protocol::swarm::{
    ChunkHeader, FrameHead, FrameKind, MAX_BASES, MAX_PAGES_ASKED, MAX_RANGES, Message as Control, Ranges,
    ReferencedHeader,
};
use rialto_protocol::sync::{
    Beginning, Initiator, MAX_IDS, MAX_MESSAGE_BYTES, MAX_RECORDS_BYTES, MAX_SYMBOLS_SENT, Message, Progress,
    Responder, SyncError, SyncSet,
};

/// No frame of the swarm is longer than this: a page or a chunk, with its header.
const LONGEST_FRAME_BYTES: usize = 10 + 128 * 1024;

/// The first byte is a frame's kind, the rest its payload.
pub fn swarm_frame(bytes: &[u8]) {
    if let Some(head) = bytes.first_chunk() {
        is_bounded(*head);
    }
    let Some((&kind, payload)) = bytes.split_first() else { return };
    let [a, b, c, d] = u32::try_from(payload.len()).expect("the fuzzer's inputs are short").to_be_bytes();
    let Ok(head) = FrameHead::decode([kind, a, b, c, d]) else { return };
    assert_eq!(head.length, payload.len());
    match Control::decode(head.kind, payload) {
        Ok(Some(message)) => control(&message, head.kind, payload),
        Ok(None) => bulk(head.kind, payload),
        Err(_) => {}
    }
}

fn is_bounded(bytes: [u8; FrameHead::BYTES]) {
    let Ok(head) = FrameHead::decode(bytes) else { return };
    assert!(head.length <= LONGEST_FRAME_BYTES, "{head:?} would be allocated");
    assert_eq!(head.encode(), bytes);
}

fn control(message: &Control, kind: FrameKind, payload: &[u8]) {
    let frame = message.frame().expect("what was read can be written");
    let (head, again) = frame.split_at(FrameHead::BYTES);
    assert_eq!(head[0], kind as u8);
    assert_eq!(Control::decode(kind, again).as_ref(), Ok(&Some(message.clone())), "a message comes back");
    match message {
        // The encodings that a fetcher names are not kept: there are none to choose from yet.
        Control::Hello { bases, .. } => assert!(bases.len() <= MAX_BASES),
        _ => assert_eq!(again, payload, "a message has one encoding"),
    }
    match message {
        Control::WantPages { hashes } => assert!(hashes.len() <= MAX_PAGES_ASKED),
        Control::Want { chunks } | Control::Cancel { chunks } | Control::Have { chunks, .. } => are_ranges(chunks),
        _ => {}
    }
}

fn are_ranges(ranges: &Ranges) {
    const END: u32 = 2_000;
    assert!(ranges.range_count() <= MAX_RANGES && ranges.count() >= ranges.range_count() as u64);
    let indices: Vec<u32> = ranges.indices_below(END).collect();
    assert!(indices.is_sorted_by(|a, b| a < b), "ascending, and each once");
    assert_eq!((0..END).filter(|&index| ranges.contains(index)).count(), indices.len());
    let again = Ranges::pieces(indices.iter().copied());
    assert!(again.iter().flat_map(|piece| piece.indices_below(END)).eq(indices.iter().copied()));
}

fn bulk(kind: FrameKind, payload: &[u8]) {
    let start = |start: &[u8]| assert_eq!(&start[FrameHead::BYTES..], &payload[..start.len() - FrameHead::BYTES]);
    match kind {
        FrameKind::Chunk => {
            let header = payload.first_chunk::<{ ChunkHeader::BYTES }>().expect("no chunk is shorter");
            if let Ok(header) = ChunkHeader::decode(*header) {
                start(&header.frame(payload.len() - ChunkHeader::BYTES));
            }
        }
        FrameKind::Referenced => {
            let header = payload.first_chunk::<{ ReferencedHeader::BYTES }>().expect("no referenced chunk is shorter");
            start(&ReferencedHeader::decode(*header).frame(payload.len() - ReferencedHeader::BYTES));
        }
        _ => assert_eq!(kind, FrameKind::Page),
    }
}

/// A message of catch-up has one encoding, and its bounds.
pub fn sync_frame(bytes: &[u8]) {
    let Ok(message) = Message::decode(bytes) else { return };
    assert_eq!(message.encode(), bytes, "a message has one encoding");
    assert!(bytes.len() <= MAX_MESSAGE_BYTES);
    match message {
        Message::Want(ids) => assert!(ids.len() <= MAX_IDS),
        Message::Offer(ids) => assert!(ids.len() <= MAX_IDS),
        Message::Records { envelopes, is_last } => {
            assert!(envelopes.iter().map(Vec::len).sum::<usize>() <= MAX_RECORDS_BYTES);
            assert!(is_last || !envelopes.is_empty(), "a peer could send nothing for ever");
        }
        Message::Symbols(symbols) => assert!((1..=MAX_SYMBOLS_SENT).contains(&symbols.len())),
        Message::Summary(_) | Message::More(_) | Message::Reconcile(_) | Message::Done => {}
    }
}

/// The first byte says which side we are (even: the one that asks); then the peer's messages, each after its length in two bytes.
pub fn sync_session(bytes: &[u8]) {
    let Some((side, script)) = bytes.split_first() else { return };
    match side % 2 {
        0 => session(Initiating(Initiator::new(our_set())), script),
        _ => session(Responding(Responder::new(our_set())), script),
    }
}

/// What we hold in a session: 64 records, a second apart.
pub fn our_set() -> SyncSet {
    (0..64u64).map(|n| (1_790_000_000 + n, our_id(n))).collect()
}

/// The sync id of one of our records.
pub fn our_id(n: u64) -> Hash {
    Hash::of(&n.to_be_bytes())
}

trait Side {
    fn next_message(&mut self, envelope: impl FnMut(&Beginning) -> Option<Vec<u8>>) -> Option<Message>;
    fn receive(&mut self, message: Message, is_wanted: impl FnMut(&Beginning) -> bool) -> Result<Progress, SyncError>;
    fn is_finished(&self) -> bool;
}

struct Initiating(Initiator);
struct Responding(Responder);

macro_rules! side {
    ($side:ident) => {
        impl Side for $side {
            fn next_message(&mut self, envelope: impl FnMut(&Beginning) -> Option<Vec<u8>>) -> Option<Message> {
                self.0.next_message(envelope)
            }

            fn receive(
                &mut self,
                message: Message,
                is_wanted: impl FnMut(&Beginning) -> bool,
            ) -> Result<Progress, SyncError> {
                self.0.receive(message, is_wanted)
            }

            fn is_finished(&self) -> bool {
                self.0.is_finished()
            }
        }
    };
}

side!(Initiating);
side!(Responding);

fn session(mut side: impl Side, mut script: &[u8]) {
    let is_ours = |id: &Beginning| (0..64).any(|n| id.fits(&our_id(n)));
    let is_wanted = |id: &Beginning| !is_ours(id) && !id.bytes()[0].is_multiple_of(4);
    // Records that were asked for and have not come, and what the peer offered just now.
    let (mut outstanding, mut offered) = (0, Vec::new());
    loop {
        // A turn ends: 64 records at most can be sent, whatever is asked, and a few messages about it.
        for sent in 0.. {
            assert!(sent <= 70, "an endless turn");
            let envelope = |id: &Beginning| {
                // Names that we do not hold can be asked for; they are nothing that we send.
                is_ours(id).then(|| vec![id.bytes()[0]; 40_000])
            };
            let Some(message) = side.next_message(envelope) else { break };
            let encoded = message.encode();
            assert!(encoded.len() <= MAX_MESSAGE_BYTES);
            assert_eq!(Message::decode(&encoded).as_ref(), Ok(&message), "what we send can be read");
            match message {
                Message::Want(ids) => {
                    // By what no other of the offered begins with, be it how one of ours begins.
                    let is_right = |id: &Beginning| {
                        let mut fits = offered.iter().filter(|offered| id.short_range().contains(offered));
                        match (fits.next(), fits.next()) {
                            (Some(one), None) => is_wanted(&Beginning::Short(*one)),
                            _ => offered.is_empty() && is_wanted(id),
                        }
                    };
                    assert!(ids.iter().all(is_right), "asked for what is not wanted");
                    outstanding = ids.len();
                }
                Message::Offer(ids) => assert!(ids.iter().all(|id| is_ours(&(*id).into())), "offered what is not ours"),
                _ => {}
            }
        }
        if side.is_finished() {
            return;
        }
        let Some((length, rest)) = script.split_first_chunk() else { return };
        let Some((message, rest)) = rest.split_at_checked(u16::from_be_bytes(*length).into()) else { return };
        script = rest;
        let Ok(message) = Message::decode(message) else { return };
        offered = match &message {
            Message::Offer(ids) => ids.clone(),
            _ => Vec::new(),
        };
        let Ok(progress) = side.receive(message, is_wanted) else { return };
        assert!(progress.envelopes.len() <= outstanding, "took more records than were asked for");
        outstanding -= progress.envelopes.len();
    }
}
