//! Search as its faces ask for it: names become keys, verdicts are looked at, and releases become lines.
//!
//! Which releases fit words, publisher, tag, architecture and age, the catalog knows at once. What policy says of a release
//! has to be judged, one by one: of a result of at most [`MAX_JUDGED`] all are judged, so that verdicts are counted and a
//! page of one verdict is like any other; of a larger one, so many are looked at for a page, from the newest on, and the
//! page says where the next one begins.

use std::collections::{BTreeMap, HashMap};
use std::sync::{MutexGuard, PoisonError};

use rialto_protocol::ids::{PublicKey, RecordId};
use rialto_protocol::record::Arch;
use rialto_web::api::{ApiError, FacetCount, Result, SearchFacets, SearchPage, SearchQuery, VerdictKind};

use super::view;
use crate::catalog::{Page, Query};
use crate::node::Node;

/// Releases on a page where nothing is said, and at most.
const PAGE: (usize, usize) = (50, 200);
/// Releases that are judged for one answer, at most.
const MAX_JUDGED: usize = 500;
/// Of each sort, so many are counted.
const MAX_FACETS: usize = 20;
/// Publishers of one fingerprint, or of one name.
const MAX_KEYS: usize = 64;
/// Verdicts are judged anew after this, in seconds: some end with time.
const VERDICTS_LAST: u64 = 10;
/// Verdicts that are remembered, at most.
const MAX_VERDICTS: usize = 65_536;

/// What policy said of releases a moment ago: for counting only, what is shown is judged anew.
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    /// The policy, the state of the catalog, and about when.
    of: (Option<String>, u64, u64),
    known: HashMap<RecordId, VerdictKind>,
}

pub(super) fn search(node: &Node, asked: &SearchQuery) -> Result<SearchPage> {
    let limit = if asked.limit == 0 { PAGE.0 } else { asked.limit.min(PAGE.1) };
    let petname = |key: &PublicKey| node.petname(key);
    let query = Query {
        words: &asked.q,
        petname: Some(&petname),
        publishers: asked.publisher.as_deref().map(|publisher| node.keys_called(publisher)),
        // What is no name is no tag of any release; that is asked below.
        tag: asked.tag.as_deref().and_then(|tag| tag.try_into().ok()),
        arch: asked.arch.as_deref().map(arch).transpose()?,
        since: asked.within_seconds.map(|seconds| node.now().saturating_sub(seconds)),
    };
    if asked.tag.is_some() && query.tag.is_none() {
        return Ok(SearchPage { is_exact: true, ..SearchPage::default() });
    }
    let plain = node.catalog.search(&query, asked.offset, limit, MAX_FACETS);
    let mut facets = facets(node, &plain);
    let mut page = SearchPage { total: plain.total, is_exact: true, ..SearchPage::default() };
    let mut shown = plain.releases;
    if plain.total <= MAX_JUDGED {
        let all = node.catalog.search(&query, 0, MAX_JUDGED, 0).releases;
        let judged: Vec<(RecordId, VerdictKind)> =
            all.into_iter().filter_map(|id| Some((id, node.verdict_lately(&id)?))).collect();
        facets.verdicts = counted(judged.iter().map(|(_, verdict)| (verdict.as_str().to_owned(), 1)));
        if let Some(wanted) = asked.verdict {
            let fitting = judged.iter().filter(|(_, verdict)| *verdict == wanted).map(|(id, _)| *id);
            let fitting: Vec<RecordId> = fitting.collect();
            page.total = fitting.len();
            shown = fitting.into_iter().skip(asked.offset).take(limit).collect();
        }
        let next = asked.offset.saturating_add(shown.len());
        page.next = (next < page.total && !shown.is_empty()).then_some(next);
    } else if let Some(wanted) = asked.verdict {
        let candidates = node.catalog.search(&query, asked.offset, MAX_JUDGED, 0).releases;
        let (mut looked_at, mut fitting) = (0, Vec::new());
        for id in &candidates {
            looked_at += 1;
            if node.verdict_lately(id) == Some(wanted) {
                fitting.push(*id);
                if fitting.len() == limit {
                    break;
                }
            }
        }
        let next = asked.offset.saturating_add(looked_at);
        page.next = (next < page.total && looked_at > 0).then_some(next);
        page.is_exact = false;
        shown = fitting;
    } else {
        let next = asked.offset.saturating_add(shown.len());
        page.next = (next < page.total && !shown.is_empty()).then_some(next);
    }
    page.facets = facets;
    let records = node.catalog.get_all(&shown);
    page.releases = records.into_iter().map(|record| view::summary(node, &node.judge(record))).collect();
    Ok(page)
}

fn arch(text: &str) -> Result<Arch> {
    let known = [Arch::X86_64, Arch::Aarch64];
    known.into_iter().find(|arch| arch.as_str() == text).ok_or_else(|| {
        let text: String = text.chars().take(40).collect();
        ApiError::usage(format!(
            "'{text}' is no architecture that appliances are made for; they are x86_64 and aarch64"
        ))
    })
}

fn facets(node: &Node, page: &Page) -> SearchFacets {
    let facets = &page.facets;
    SearchFacets {
        // Several keys of one name are one publisher.
        publishers: counted(facets.publishers.iter().map(|(key, count)| (node.shown(key), *count))),
        tags: counted(facets.tags.iter().map(|(tag, count)| (tag.to_string(), *count))),
        archs: counted(facets.archs.iter().map(|(arch, count)| (arch.as_str().to_owned(), *count))),
        verdicts: Vec::new(),
    }
}

/// What is counted, the commonest first.
fn counted(each: impl Iterator<Item = (String, u64)>) -> Vec<FacetCount> {
    let mut counts = BTreeMap::<String, u64>::new();
    each.for_each(|(value, count)| *counts.entry(value).or_default() += count);
    let mut counts: Vec<_> = counts.into_iter().map(|(value, count)| FacetCount { value, count }).collect();
    counts.sort_by_key(|facet| std::cmp::Reverse(facet.count));
    counts
}

impl Node {
    /// The keys of a publisher that is called so here: by its petname, its fingerprint, or the key itself.
    pub(crate) fn keys_called(&self, publisher: &str) -> Vec<PublicKey> {
        if publisher.starts_with('~') {
            let known = self.catalog.publishers().into_iter();
            return known.filter(|key| key.fingerprint() == publisher).take(MAX_KEYS).collect();
        }
        let state = self.policy.borrow().policy.clone();
        let named = state.as_deref().and_then(|policy| policy.keys(publisher)).map(<[PublicKey]>::to_vec);
        named.or_else(|| publisher.parse().ok().map(|key| vec![key])).unwrap_or_default()
    }

    /// What policy says of a release, or said a moment ago.
    fn verdict_lately(&self, id: &RecordId) -> Option<VerdictKind> {
        let of = {
            let state = self.policy.borrow();
            let hash = state.policy.as_ref().map(|policy| policy.hash().to_owned());
            (hash, *self.catalog.changes().borrow(), self.now() / VERDICTS_LAST)
        };
        if let Some(verdict) = self.verdicts_of(&of).known.get(id) {
            return Some(*verdict);
        }
        let verdict = self.judge(self.catalog.get(id)?).verdict.kind();
        self.verdicts_of(&of).known.insert(*id, verdict);
        Some(verdict)
    }

    fn verdicts_of(&self, of: &(Option<String>, u64, u64)) -> MutexGuard<'_, Verdicts> {
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        if verdicts.of != *of || verdicts.known.len() >= MAX_VERDICTS {
            *verdicts = Verdicts { of: of.clone(), known: HashMap::new() };
        }
        verdicts
    }
}
