//! Envelopes read on all cores.

use rialto_protocol::record::Record;
use rialto_protocol::signed::{Envelope, Verified};

/// Reads and checks envelopes, on as many threads as the machine has where there are many.
pub(super) fn verify_all<B: AsRef<[u8]> + Sync>(
    envelopes: &[B],
) -> Vec<Result<Verified<Record>, rialto_protocol::signed::EnvelopeError>> {
    in_parallel(envelopes, |bytes| Envelope::decode(bytes.as_ref()).and_then(Envelope::verify))
}

/// Does something with each, on as many threads as the machine has where there are many.
pub(super) fn in_parallel<B: Sync, T: Send>(items: &[B], work: impl Fn(&B) -> T + Sync) -> Vec<T> {
    /// Below this, starting threads costs more than it saves.
    const WORTH_A_THREAD: usize = 64;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(items.len() / WORTH_A_THREAD);
    if threads < 2 {
        return items.iter().map(work).collect();
    }
    let share = items.len().div_ceil(threads);
    std::thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> = items
            .chunks(share)
            .map(|part| (part, scope.spawn(move || part.iter().map(work).collect::<Vec<_>>())))
            .collect();
        // A worker that panicked is done again here, where the panic reaches the caller.
        let finish = |(part, worker): (&[B], std::thread::ScopedJoinHandle<'_, Vec<_>>)| {
            worker.join().unwrap_or_else(|_| part.iter().map(work).collect())
        };
        workers.into_iter().flat_map(finish).collect()
    })
}
