//! Envelopes read on all cores.

use rialto_protocol::record::Record;
use rialto_protocol::signed::{Envelope, KnownKeys, Verified};

/// Reads and checks envelopes, on as many threads as the machine has where there are many.
pub(super) fn verify_all<B: AsRef<[u8]> + Sync>(
    envelopes: &[B],
    keys: &KnownKeys,
) -> Vec<Result<Verified<Record>, rialto_protocol::signed::EnvelopeError>> {
    in_parallel(envelopes, |part| {
        let verify = |bytes: &B| Envelope::decode(bytes.as_ref())?.verify_with(keys);
        part.iter().map(verify).collect()
    })
}

/// Does something with all, in parts on as many threads as the machine has where there are many: as many results as there
/// are items, in their order.
pub(super) fn in_parallel<B: Sync, T: Send>(items: &[B], work: impl Fn(&[B]) -> Vec<T> + Sync) -> Vec<T> {
    /// Below this, starting threads costs more than it saves: a signature takes about 60 µs.
    const WORTH_A_THREAD: usize = 16;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(items.len() / WORTH_A_THREAD);
    if threads < 2 {
        return work(items);
    }
    let share = items.len().div_ceil(threads);
    std::thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> = items.chunks(share).map(|part| (part, scope.spawn(move || work(part)))).collect();
        // A worker that panicked is done again here, where the panic reaches the caller.
        let finish = |(part, worker): (&[B], std::thread::ScopedJoinHandle<'_, Vec<T>>)| {
            worker.join().unwrap_or_else(|_| work(part))
        };
        workers.into_iter().flat_map(finish).collect()
    })
}
