//! The REST API: turns a matched request into a call of the backend, and its result into an answer.

use bytes::Bytes;
use rialto_protocol::ids::ImageId;
use serde::de::DeserializeOwned;
use warp::http::{HeaderMap, StatusCode, header};

use crate::api::{
    AddImageRequest, AdvisoryQuery, Backend, ChangeRates, ClockRequest, CosignRequest, DelegateRequest, DeployRequest,
    EndorseRequest, ExportImageRequest, FetchRequest, JobStarted, PolicyDiffRequest, PublishAdvisoryRequest,
    PublishRequest, ReplayAtRequest, RevokeRequest, RotateRequest, SearchQuery, SetChannelRequest, SigningAnswer,
    StopRequest, VerdictKind, WebLink,
};
use crate::openapi;
use crate::reply::{self, Refusal, Response};
use crate::routes::Op;
use tokio_util::sync::CancellationToken;

/// Most releases in one answer.
pub(crate) const MAX_LIMIT: usize = 200;
/// Releases in one answer where the question does not say.
const DEFAULT_LIMIT: usize = 50;
/// A search is a few words.
const MAX_SEARCH_BYTES: usize = 1_024;

/// What came with a request.
pub(crate) struct Question<'a> {
    /// The decoded `{…}` segments of its path.
    pub(crate) values: Vec<String>,
    /// Its query string.
    pub(crate) query: &'a str,
    /// Its headers.
    pub(crate) headers: &'a HeaderMap,
    /// Its body, bounded.
    pub(crate) body: Bytes,
}

/// Does one operation.
pub(crate) async fn answer(
    op: Op,
    question: Question<'_>,
    backend: &dyn Backend,
    shutdown: &CancellationToken,
) -> Result<Response, Refusal> {
    let value = question.values.first().map(String::as_str).unwrap_or_default();
    if !matches!(op, Op::Releases | Op::Logs | Op::Channels | Op::Advisories) {
        no_query(question.query)?;
    }
    if !takes_body(op) && !question.body.is_empty() {
        return Err(Refusal::usage("this request takes no body"));
    }
    match op {
        Op::Status => done(&backend.status().await?),
        Op::Peers => done(&backend.peers().await?),
        Op::Bans => done(&backend.bans().await?),
        Op::LiftBans => done(&backend.lift_bans(value).await?),
        Op::Rates => done(&backend.rates().await?),
        Op::ChangeRates => done(&backend.change_rates(question.json::<ChangeRates>()?).await?),
        Op::Releases => done(&backend.search(search_query(question.query)?).await?),
        Op::Release => done(&backend.release(value).await?),
        Op::Explain => done(&backend.explain(value).await?),
        Op::Replay => done(&backend.replay(decision(value)?).await?),
        Op::ReplayAt => done(&backend.replay_at(question.json::<ReplayAtRequest>()?).await?),
        Op::PolicyDiff => done(&backend.policy_diff(question.json::<PolicyDiffRequest>()?).await?),
        Op::Images => done(&backend.images().await?),
        Op::AddImage => started(&backend.add_image(question.json::<AddImageRequest>()?).await?),
        Op::VerifyImage => started(&backend.verify_image(image(value)?).await?),
        Op::ExportImage => started(&backend.export_image(image(value)?, question.json::<ExportImageRequest>()?).await?),
        Op::PinImage => nothing(backend.pin_image(image(value)?, true).await?),
        Op::UnpinImage => nothing(backend.pin_image(image(value)?, false).await?),
        Op::RemoveImage => nothing(backend.remove_image(image(value)?).await?),
        Op::Scrub => started(&backend.scrub().await?),
        Op::CollectGarbage => started(&backend.collect_garbage().await?),
        Op::Publish => started(&backend.publish(question.json::<PublishRequest>()?).await?),
        Op::Endorse => done(&backend.endorse(question.json::<EndorseRequest>()?).await?),
        Op::Statement => done(&backend.statement(value).await?),
        Op::Channels => done(&backend.channels(appliance(question.query)?.as_deref()).await?),
        Op::Channel => done(&backend.channel(value).await?),
        Op::SetChannel => done(&backend.set_channel(question.json::<SetChannelRequest>()?).await?),
        Op::CosignChannel => done(&backend.cosign_channel(question.json::<CosignRequest>()?).await?),
        Op::Delegate => done(&backend.delegate(question.json::<DelegateRequest>()?).await?),
        Op::Rotate => done(&backend.rotate(question.json::<RotateRequest>()?).await?),
        Op::Signing => done(&backend.signing(value).await?),
        Op::AnswerSigning => nothing(backend.answer_signing(value, question.json::<SigningAnswer>()?).await?),
        Op::Clock => done(&backend.clock().await?),
        Op::SetClock => done(&backend.set_clock(question.json::<ClockRequest>()?).await?),
        Op::Revoke => done(&backend.revoke(question.json::<RevokeRequest>()?).await?),
        Op::Advisories => done(&backend.advisories(advisory_query(question.query)?).await?),
        Op::PublishAdvisory => done(&backend.publish_advisory(question.json::<PublishAdvisoryRequest>()?).await?),
        Op::Fetch => started(&backend.fetch(question.json::<FetchRequest>()?).await?),
        Op::Deploy => started(&backend.deploy(question.json::<DeployRequest>()?).await?),
        Op::Instances => done(&backend.instances().await?),
        Op::StopInstance => {
            let request = if question.body.is_empty() { StopRequest::default() } else { question.json()? };
            done(&backend.stop_instance(value, request.force).await?)
        }
        Op::SuspendInstance => done(&backend.suspend_instance(value).await?),
        Op::ResumeInstance => done(&backend.resume_instance(value).await?),
        Op::RemoveInstance => done(&backend.remove_instance(value).await?),
        Op::Logs => Ok(reply::text_stream(backend.instance_logs(value, follow(question.query)?).await?, shutdown)),
        Op::JobEvents => Ok(reply::events(backend.job_events(value).await?, shutdown)),
        Op::CancelJob => nothing(backend.cancel_job(value).await?),
        Op::Changes => Ok(reply::events(backend.changes().await?, shutdown)),
        Op::WebLink => done(&WebLink { url: backend.web_link().await? }),
        Op::OpenApi => done(&openapi::document()?),
        Op::Metrics => {
            let text = backend.metrics().await?;
            Ok(reply::with_type(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", text))
        }
    }
}

fn takes_body(op: Op) -> bool {
    crate::routes::ROUTES.iter().any(|route| route.op == op && route.body.is_some())
}

impl Question<'_> {
    /// The body as JSON. Unknown fields are errors: a misspelt option must not be an option left out.
    fn json<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        let content_type =
            self.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case("application/json") {
            let error = crate::api::ApiError::usage("the body must be JSON")
                .with_hint("send it with Content-Type: application/json");
            return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| Refusal::usage(format!("the body is not what this request takes: {error}")))
    }
}

/// Reads the catalog's query string. Unknown and repeated names are errors.
pub(crate) fn search_query(query: &str) -> Result<SearchQuery, Refusal> {
    let mut search = SearchQuery { limit: DEFAULT_LIMIT, ..SearchQuery::default() };
    for (name, value) in once_each(query)? {
        match name.as_str() {
            "q" if value.len() > MAX_SEARCH_BYTES => {
                return Err(Refusal::usage(format!(
                    "a search of {} bytes; at most {MAX_SEARCH_BYTES} are allowed",
                    value.len()
                )));
            }
            "q" => search.q = value,
            "verdict" if value.is_empty() => search.verdict = None,
            "verdict" => search.verdict = Some(verdict(&value)?),
            "publisher" => search.publisher = short(&name, value)?,
            "tag" => search.tag = short(&name, value)?,
            "arch" => search.arch = short(&name, value)?,
            "within" if value.is_empty() => search.within_seconds = None,
            "within" => search.within_seconds = Some(number(&name, &value)? as u64),
            "offset" => search.offset = number(&name, &value)?,
            "limit" => search.limit = number(&name, &value)?,
            _ => return Err(unknown(&name, "q, publisher, tag, arch, verdict, within, offset and limit")),
        }
    }
    if search.limit == 0 {
        search.limit = DEFAULT_LIMIT;
    }
    search.limit = search.limit.min(MAX_LIMIT);
    Ok(search)
}

/// A value that a form may leave empty.
fn short(name: &str, value: String) -> Result<Option<String>, Refusal> {
    match value.len() {
        0 => Ok(None),
        1..=200 => Ok(Some(value)),
        length => Err(Refusal::usage(format!("{name} has {length} bytes; at most 200 are allowed"))),
    }
}

fn verdict(text: &str) -> Result<VerdictKind, Refusal> {
    let kinds = [VerdictKind::Accept, VerdictKind::Hold, VerdictKind::Reject];
    kinds.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
        Refusal::usage(format!("'{}' is not a verdict; they are accept, hold and reject", excerpt(text)))
    })
}

fn appliance(query: &str) -> Result<Option<String>, Refusal> {
    let mut appliance = None;
    for (name, value) in once_each(query)? {
        match name.as_str() {
            "appliance" if value.len() > MAX_SEARCH_BYTES => return Err(Refusal::usage("that is no appliance's name")),
            "appliance" => appliance = Some(value),
            _ => return Err(unknown(&name, "appliance")),
        }
    }
    Ok(appliance)
}

fn advisory_query(query: &str) -> Result<AdvisoryQuery, Refusal> {
    let mut wanted = AdvisoryQuery::default();
    for (name, value) in once_each(query)? {
        match name.as_str() {
            "about" if value.len() > MAX_SEARCH_BYTES => return Err(Refusal::usage("no advisory has so long a name")),
            "about" => wanted.about = Some(value).filter(|about| !about.is_empty()),
            "strangers" => wanted.of_strangers = switch(&name, &value)?,
            _ => return Err(unknown(&name, "about and strangers")),
        }
    }
    Ok(wanted)
}

fn switch(name: &str, value: &str) -> Result<bool, Refusal> {
    match value {
        "" | "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(Refusal::usage(format!("{name} is true or false"))),
    }
}

fn follow(query: &str) -> Result<bool, Refusal> {
    let mut is_following = false;
    for (name, value) in once_each(query)? {
        is_following = match name.as_str() {
            "follow" => switch(&name, &value)?,
            _ => return Err(unknown(&name, "follow")),
        };
    }
    Ok(is_following)
}

fn once_each(query: &str) -> Result<Vec<(String, String)>, Refusal> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if pairs.iter().any(|(known, _)| *known == name) {
            return Err(Refusal::usage(format!("'{}' is in the query twice", excerpt(&name))));
        }
        if pairs.len() == 8 {
            return Err(Refusal::usage("more names in the query than this request knows"));
        }
        pairs.push((name.into_owned(), value.into_owned()));
    }
    Ok(pairs)
}

fn no_query(query: &str) -> Result<(), Refusal> {
    if query.is_empty() { Ok(()) } else { Err(Refusal::usage("this request takes no query")) }
}

fn number(name: &str, value: &str) -> Result<usize, Refusal> {
    value.parse().map_err(|_| Refusal::usage(format!("{name} must be a whole number, not '{}'", excerpt(value))))
}

fn unknown(name: &str, known: &str) -> Refusal {
    Refusal::usage(format!("'{}' means nothing in this query; it takes {known}", excerpt(name)))
}

fn decision(text: &str) -> Result<u64, Refusal> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| Refusal::usage(format!("'{}' is not the number of a decision, from 1", excerpt(text))))
}

fn image(text: &str) -> Result<ImageId, Refusal> {
    text.parse().map_err(|error| Refusal::usage(format!("{error}")))
}

/// As much of somebody's text as an error message repeats.
fn excerpt(text: &str) -> String {
    text.chars().take(40).collect()
}

fn done<T: serde::Serialize>(value: &T) -> Result<Response, Refusal> {
    Ok(reply::json(StatusCode::OK, value))
}

fn started(job: &JobStarted) -> Result<Response, Refusal> {
    Ok(reply::json(StatusCode::ACCEPTED, job))
}

fn nothing((): ()) -> Result<Response, Refusal> {
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_is_read_strictly() {
        let search = search_query("q=batch+w%C3%B6rker&verdict=hold&offset=50&limit=1000").unwrap();
        assert_eq!(
            search,
            SearchQuery {
                q: "batch wörker".into(),
                verdict: Some(VerdictKind::Hold),
                offset: 50,
                limit: MAX_LIMIT,
                ..SearchQuery::default()
            }
        );
        assert_eq!(
            search_query("publisher=cern&tag=batch&arch=aarch64&within=3600&verdict=").unwrap(),
            SearchQuery {
                publisher: Some("cern".into()),
                tag: Some("batch".into()),
                arch: Some("aarch64".into()),
                within_seconds: Some(3600),
                limit: DEFAULT_LIMIT,
                ..SearchQuery::default()
            }
        );
        assert_eq!(search_query("").unwrap().limit, DEFAULT_LIMIT);
        for bad in [
            "qq=1",
            "q=1&q=2",
            "verdict=maybe",
            "offset=-1",
            "within=soon",
            &format!("tag={}", "x".repeat(201)),
            "limit=x",
            &format!("q={}", "x".repeat(MAX_SEARCH_BYTES + 1)),
        ] {
            assert!(search_query(bad).is_err(), "{bad}");
        }
    }
}
