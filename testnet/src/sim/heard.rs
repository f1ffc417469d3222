//! Who heard which gossip before.

use std::collections::HashMap;

use rialto_protocol::ids::Hash;

/// For each message, a bit for each site: whoever passes one on asks this of all its peers.
#[derive(Debug, Default)]
pub(super) struct Heard(HashMap<Hash, Vec<u64>>);

impl Heard {
    /// Notes that a site hears a message; `false` where it heard it before.
    pub(super) fn note(&mut self, message: Hash, site: usize) -> bool {
        let sites = self.0.entry(message).or_default();
        let (word, bit) = place(site);
        if sites.len() <= word {
            sites.resize(word + 1, 0);
        }
        let is_new = sites[word] & bit == 0;
        sites[word] |= bit;
        is_new
    }

    /// Of these sites, those that have not heard a message.
    pub(super) fn lacking(&self, message: &Hash, among: &[usize]) -> Vec<usize> {
        let sites = self.0.get(message).map_or(&[][..], Vec::as_slice);
        let has_heard = |site: &usize| {
            let (word, bit) = place(*site);
            sites.get(word).is_some_and(|word| word & bit != 0)
        };
        among.iter().copied().filter(|site| !has_heard(site)).collect()
    }

    /// A site forgets all that it heard.
    pub(super) fn forget(&mut self, site: usize) {
        let (word, bit) = place(site);
        self.0.values_mut().filter_map(|sites| sites.get_mut(word)).for_each(|word| *word &= !bit);
    }
}

fn place(site: usize) -> (usize, u64) {
    (site / 64, 1 << (site % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_site_hears_and_forgets_by_itself() {
        let (mut heard, one, other) = (Heard::default(), Hash::of(b"one"), Hash::of(b"other"));
        assert!(heard.note(one, 3) && heard.note(one, 130) && heard.note(other, 130));
        assert!(!heard.note(one, 130) && !heard.note(one, 3));
        assert_eq!(heard.lacking(&one, &[130, 66, 3, 4]), [66, 4]);
        assert_eq!(heard.lacking(&other, &[3, 500, 130]), [3, 500]);
        heard.forget(130);
        assert_eq!(heard.lacking(&one, &[3, 130]), [130]);
        assert!(heard.note(other, 130));
    }
}
