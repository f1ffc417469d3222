//! The catalog: search, verdicts at a glance, a page of releases at a time.

use maud::{Markup, html};

use super::{Place, frame, text};
use crate::api::{Backend, FacetCount, ReleaseSummary, SearchFacets, SearchPage, SearchQuery, Status, VerdictKind};
use crate::reply::{Refusal, Response};
use crate::rest;

/// Releases on one page: a screen or two.
const PAGE: usize = 25;
/// Links of one kind that narrow a search.
const FACETS: usize = 10;

/// `/`
pub(super) async fn page(status: &Status, query: &str, backend: &dyn Backend) -> Result<Response, Refusal> {
    // An empty verdict is what a form without scripts sends when no chip is chosen.
    let search = SearchQuery { limit: PAGE, ..rest::search_query(query)? };
    let found = backend.search(search.clone()).await?;
    let title =
        if search.q.is_empty() { "Catalog".to_owned() } else { format!("{} · Catalog", text::line(&search.q)) };
    let main = html! {
        h1.unseen { "Catalog" }
        form.search role="search" method="get" action="/" {
            label.unseen for="q" { "Search the catalog" }
            input id="q" name="q" type="search" value=(search.q) placeholder="Search appliances, publishers, tags" autocomplete="off" maxlength="200" data-search;
            @for (name, value) in narrowed(&search) { input type="hidden" name=(name) value=(value); }
            button type="submit" { "Search" }
        }
        (chips(&search))
        div id="results" data-live="catalog policy store" {
            (summary(&search, &found))
            @if found.releases.is_empty() { (nothing(status, &search)) } @else {
                ol.catalog {
                    @for release in &found.releases { li { (card(release)) } }
                }
            }
            (facets(&search, &found.facets))
            (paging(&search, &found))
        }
    };
    super::page(status, Place::Catalog, &title, main)
}

fn chips(search: &SearchQuery) -> Markup {
    let choices = [
        (None, "All"),
        (Some(VerdictKind::Accept), "Accepted"),
        (Some(VerdictKind::Hold), "Held"),
        (Some(VerdictKind::Reject), "Rejected"),
    ];
    html! {
        nav.chips aria-label="Filter by verdict" {
            @for (verdict, word) in choices {
                a class=(verdict.map(VerdictKind::as_str).unwrap_or("all"))
                    href=(address(&SearchQuery { verdict, offset: 0, ..search.clone() }))
                    aria-current=[(verdict == search.verdict).then_some("true")] { (word) }
            }
        }
    }
}

/// What a search asks for beside words, as its address has it.
fn narrowed(search: &SearchQuery) -> Vec<(&'static str, String)> {
    let values = [
        ("verdict", search.verdict.map(|verdict| verdict.as_str().to_owned())),
        ("publisher", search.publisher.clone()),
        ("tag", search.tag.clone()),
        ("arch", search.arch.clone()),
        ("within", search.within_seconds.map(|seconds| seconds.to_string())),
    ];
    values.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// Links that narrow the search, or widen it again.
fn facets(search: &SearchQuery, facets: &SearchFacets) -> Markup {
    let first = SearchQuery { offset: 0, ..search.clone() };
    let publisher = |publisher: Option<String>| SearchQuery { publisher, ..first.clone() };
    let tag = |tag: Option<String>| SearchQuery { tag, ..first.clone() };
    let arch = |arch: Option<String>| SearchQuery { arch, ..first.clone() };
    let ages = [(1, "a day"), (7, "a week"), (30, "30 days"), (365, "a year")];
    html! {
        nav.facets aria-label="Narrow the search" {
            (facet("Publisher", &facets.publishers, search.publisher.as_deref(), publisher))
            (facet("Tag", &facets.tags, search.tag.as_deref(), tag))
            (facet("Architecture", &facets.archs, search.arch.as_deref(), arch))
            p {
                span.quiet { "Issued within " }
                @for (days, words) in ages {
                    @let within_seconds = days * 86_400;
                    @let is_chosen = search.within_seconds == Some(within_seconds);
                    a href=(address(&SearchQuery { within_seconds: (!is_chosen).then_some(within_seconds), ..first.clone() }))
                        aria-current=[is_chosen.then_some("true")] { (words) }
                    " "
                }
            }
        }
    }
}

/// One kind of link. Where one value is chosen, it is a link that leaves it out.
fn facet(
    name: &str,
    counts: &[FacetCount],
    chosen: Option<&str>,
    with: impl Fn(Option<String>) -> SearchQuery,
) -> Markup {
    html! {
        @if let Some(chosen) = chosen {
            p { span.quiet { (name) " " } a href=(address(&with(None))) aria-current="true" { bdi { (text::line(chosen)) } " ✕" } }
        } @else if counts.len() > 1 {
            p {
                span.quiet { (name) " " }
                @for count in counts.iter().take(FACETS) {
                    a href=(address(&with(Some(count.value.clone())))) { bdi { (text::line(&count.value)) } span.quiet { " " (count.count) } }
                    " "
                }
            }
        }
    }
}

fn summary(search: &SearchQuery, found: &SearchPage) -> Markup {
    let noun = text::count(found.total as u64, "release", "releases");
    html! {
        @if found.total > 0 {
            p.summary role="status" {
                @if !found.is_exact { "Of " }
                (noun)
                @if !search.q.is_empty() { " for “" bdi { (text::line(&search.q)) } "”" }
                ", newest first"
            }
        }
    }
}

fn card(release: &ReleaseSummary) -> Markup {
    html! {
        article.card {
            div.heading {
                h2 {
                    a href={ "/releases/" (release.release) } id={ "r-" (release.release) } {
                        (frame::signer_name(&release.publisher, release.publisher_is_known))
                        span.slash { "/" } bdi.name { (text::line(&release.name)) }
                    }
                    " " span.version { (text::line(&release.version)) }
                }
                (frame::badge(release.verdict))
            }
            @if !release.summary.is_empty() { p.about { bdi { (text::line(&release.summary)) } } }
            ul.facts {
                li { time datetime=(text::line(&release.issued)) title=(text::time(&release.issued)) { (text::age(release.age_days)) } }
                li { (text::line(&release.arch)) }
                li { (text::size(release.bytes)) }
                @if release.is_fetched { li.fetched { span aria-hidden="true" { "↓ " } "fetched" } }
                @for tag in release.tags.iter().take(6) { li.tag { bdi { (text::line(tag)) } } }
            }
        }
    }
}

fn nothing(status: &Status, search: &SearchQuery) -> Markup {
    html! {
        div.empty {
            @if search.offset > 0 {
                h2 { "This page is empty" }
                p { a href=(address(&SearchQuery { offset: 0, ..search.clone() })) { "Back to the first page" } }
            } @else if !search.q.is_empty() || !narrowed(search).is_empty() {
                h2 { "Nothing fits" }
                p { "No release fits this search. Try fewer words, or " a href="/" { "look at all releases" } "." }
            } @else {
                h2 { "The market is still quiet" }
                p { "This node knows of no release yet." }
                @if status.peers == 0 {
                    p { "It is connected to no other site. Join a federation through a site that you know:" }
                    pre { code { "rialto join ADDRESS" } }
                } @else {
                    p { "It is connected to " (text::count(status.peers, "peer", "peers")) ", and shows here what they publish, as it comes." }
                }
                p { "Or publish an appliance of your own:" }
                pre { code { "rialto publish appliance.toml --key NAME" } }
            }
        }
    }
}

fn paging(search: &SearchQuery, found: &SearchPage) -> Markup {
    let last = search.offset.saturating_add(found.releases.len());
    // Where the page before began, only a browser's own history knows of a search that is not exact.
    let newer = (search.offset > 0).then(|| if found.is_exact { search.offset.saturating_sub(PAGE) } else { 0 });
    let older = found.next;
    html! {
        @if newer.is_some() || older.is_some() {
            nav.paging aria-label="Pages of results" {
                @if let Some(offset) = newer { a rel="prev" href=(address(&SearchQuery { offset, ..search.clone() })) { "← Newer" } } @else { span {} }
                @if found.is_exact { span.quiet { (search.offset + 1) "–" (last) " of " (found.total) } }
                @else { span.quiet { "judged as far as this page" } }
                @if let Some(offset) = older { a rel="next" href=(address(&SearchQuery { offset, ..search.clone() })) { "Older →" } } @else { span {} }
            }
        }
    }
}

fn address(search: &SearchQuery) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    if !search.q.is_empty() {
        query.append_pair("q", &search.q);
    }
    for (name, value) in narrowed(search) {
        query.append_pair(name, &value);
    }
    if search.offset > 0 {
        query.append_pair("offset", &search.offset.to_string());
    }
    let query = query.finish();
    if query.is_empty() { "/".to_owned() } else { format!("/?{query}") }
}
