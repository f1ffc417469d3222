//! The table of `/api/v1`: every operation, where it is, who reaches it and what goes in and out.
//!
//! Requests are matched against this table and the OpenAPI document is written from it, so the two cannot drift apart.
//!
//! A path segment is percent-decoded after the path is split. A release may be named by its record id, by a unique
//! prefix of it, or as `PETNAME/NAME@VERSION`, which in a path is written `PETNAME%2FNAME%40VERSION`: one segment, with
//! nothing to escape in a record id and no second way to say it in a query.

use percent_encoding::percent_decode_str;
use warp::http::Method;

/// Who reaches an operation on the loopback listener. On the UNIX socket everything is reachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Anyone who passes the Host check: it says nothing that a neighbour on this machine may not know.
    Anyone,
    /// A browser with a session.
    Session,
    /// The UNIX socket only: it names files of the machine, signs with the site's keys, or changes what the store holds.
    Socket,
}

/// What an operation answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// 200 and one JSON value of this schema.
    Json(&'static str),
    /// 200 and a JSON list of values of this schema.
    List(&'static str),
    /// 202 and a `JobStarted`; the job ends in a value of this schema.
    Job(&'static str),
    /// 204.
    Nothing,
    /// 200 and server-sent events, one value of this schema in each `data:`.
    Events(&'static str),
    /// 200 and text of this content type.
    Text(&'static str),
}

/// What an operation does: one method of the backend each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is described by its row in ROUTES")]
pub(crate) enum Op {
    Status,
    Peers,
    Bans,
    LiftBans,
    Rates,
    ChangeRates,
    Releases,
    Release,
    Explain,
    Replay,
    ReplayAt,
    PolicyDiff,
    Images,
    AddImage,
    VerifyImage,
    ExportImage,
    PinImage,
    UnpinImage,
    RemoveImage,
    CollectGarbage,
    Scrub,
    Publish,
    Endorse,
    Statement,
    Channels,
    Channel,
    SetChannel,
    CosignChannel,
    Delegate,
    Rotate,
    Signing,
    AnswerSigning,
    Clock,
    SetClock,
    Revoke,
    Advisories,
    PublishAdvisory,
    Fetch,
    Deploy,
    Instances,
    SuspendInstance,
    ResumeInstance,
    StopInstance,
    RemoveInstance,
    Logs,
    JobEvents,
    CancelJob,
    Changes,
    WebLink,
    OpenApi,
    Metrics,
}

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) op: Op,
    pub(crate) method: Method,
    /// `{…}` stands for one percent-encoded segment.
    pub(crate) path: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) reach: Reach,
    /// Query parameters: name, JSON type, what it means.
    pub(crate) query: &'static [(&'static str, &'static str, &'static str)],
    /// Schema of the JSON body.
    pub(crate) body: Option<&'static str>,
    pub(crate) answer: Answer,
}

macro_rules! routes {
    ($($op:ident $method:ident $path:literal $reach:ident ($($body:literal)?) $answer:expr, $summary:literal $([$($query:expr),+])?;)+) => {
        /// Every operation.
        pub(crate) const ROUTES: &[Route] = &[$(Route {
            op: Op::$op,
            method: Method::$method,
            path: $path,
            summary: $summary,
            reach: Reach::$reach,
            query: &[$($($query),+)?],
            body: [None, $(Some($body),)?][routes!(@last $($body)?)],
            answer: $answer,
        }),+];
    };
    (@last) => { 0 };
    (@last $body:literal) => { 1 };
}

use Answer::{Events, Job, Json, List, Nothing, Text};

routes! {
    Status GET "/api/v1/status" Session () Json("Status"), "The node at a glance.";
    Peers GET "/api/v1/peers" Session () List("Peer"), "Connected peers.";
    Bans GET "/api/v1/peers/bans" Session () List("Ban"), "Peers that this node keeps away from, connected or not: in what, why and until when.";
    LiftBans POST "/api/v1/peers/{peer}/lift" Socket () Json("BansLifted"), "Forgives a peer everything: from now on it is treated as one that is new.";
    Rates GET "/api/v1/rates" Session () Json("Rates"), "How much may be sent and received.";
    ChangeRates POST "/api/v1/rates" Socket ("ChangeRates") Json("Rates"), "Sends and receives at other rates, until the node is restarted.";
    Releases GET "/api/v1/releases" Session () Json("SearchPage"), "Searches the catalog, newest first."
        [("q", "string", "Words that must all occur, or begin a word that does."),
         ("publisher", "string", "Only of this publisher: a petname, a fingerprint, or a key."),
         ("tag", "string", "Only with this tag."), ("arch", "string", "Only for this architecture: x86_64 or aarch64."),
         ("within", "integer", "Only those issued in the last so many seconds."),
         ("verdict", "string", "Only releases with this verdict: accept, hold or reject."),
         ("offset", "integer", "How many to skip."), ("limit", "integer", "How many to list; at most 200, 50 where absent.")];
    Release GET "/api/v1/releases/{release}" Session () Json("ReleaseDetails"), "Everything about one release.";
    Explain GET "/api/v1/releases/{release}/explain" Session () Json("Explanation"), "What policy says of a release, and why.";
    Replay GET "/api/v1/decisions/{decision}/replay" Session () Json("Replay"), "Makes a logged decision again, with the policy, records and clock of its day.";
    ReplayAt POST "/api/v1/policy/replay" Socket ("ReplayAtRequest") Json("ReplayAt"), "What policy would have said of releases at another time, of what had reached this site by then.";
    PolicyDiff POST "/api/v1/policy/diff" Socket ("PolicyDiffRequest") Json("PolicyDiff"), "What another policy would say differently, of every release that is known.";
    Images GET "/api/v1/images" Session () List("ImageSummary"), "Images of the store.";
    AddImage POST "/api/v1/images" Socket ("AddImageRequest") Job("ImageAdded"), "Adds a file of the node's machine as an image.";
    Scrub POST "/api/v1/images/scrub" Socket () Job("Scrubbed"), "Reads the whole store over again, and fetches what is damaged.";
    CollectGarbage POST "/api/v1/images/gc" Socket () Job("Collected"), "Gives the space of chunks that no image names back.";
    VerifyImage POST "/api/v1/images/{image}/verify" Socket () Job("ImageVerified"), "Reads an image back and checks it.";
    ExportImage POST "/api/v1/images/{image}/export" Socket ("ExportImageRequest") Job("ImageExported"), "Writes an image to a flat file.";
    PinImage POST "/api/v1/images/{image}/pin" Socket () Nothing, "Pins an image: garbage collection leaves it alone.";
    UnpinImage POST "/api/v1/images/{image}/unpin" Socket () Nothing, "Unpins an image.";
    RemoveImage DELETE "/api/v1/images/{image}" Socket () Nothing, "Forgets an image that nothing needs.";
    Publish POST "/api/v1/publish" Socket ("PublishRequest") Job("Published"), "Publishes the release that a file describes.";
    Endorse POST "/api/v1/endorsements" Socket ("EndorseRequest") Json("Recorded"), "Says something of a release.";
    Statement GET "/api/v1/endorsements/{endorsement}/statement" Session () Json("StatementExport"), "The in-toto statement that an endorsement carries, byte for byte.";
    Channels GET "/api/v1/channels" Session () List("ChannelShown"), "Channels of publishers that policy names, and of this site's own."
        [("appliance", "string", "Only those of this appliance, of whichever publisher: PUBLISHER/NAME.")];
    Channel GET "/api/v1/channels/{channel}" Session () Json("ChannelShown"), "One channel: PUBLISHER/NAME:CHANNEL, percent-encoded.";
    SetChannel POST "/api/v1/channels" Socket ("SetChannelRequest") Json("Recorded"), "Makes a channel point at a release, and keeps it fresh from now on.";
    CosignChannel POST "/api/v1/channels/cosign" Socket ("CosignRequest") Json("Cosigned"), "Adds signatures to a head of a channel that waits for them.";
    Delegate POST "/api/v1/delegations" Socket ("DelegateRequest") Json("Delegated"), "Lets keys act for a publisher.";
    Rotate POST "/api/v1/delegations/rotate" Socket ("RotateRequest") Json("Delegated"), "Puts a key in the place of another, wherever the publisher's key lets that one act.";
    Signing GET "/api/v1/signing/{session}" Socket () Json("SigningNext"), "What a key that is held elsewhere (away:SESSION:KEY) is to sign next; nothing where nothing came for a while.";
    AnswerSigning POST "/api/v1/signing/{session}" Socket ("SigningAnswer") Nothing, "The signature of such a key, or why there is none.";
    Clock GET "/api/v1/clock" Session () Json("ClockStatus"), "The time that verdicts go by.";
    SetClock POST "/api/v1/clock" Socket ("ClockRequest") Json("ClockStatus"), "Takes the machine's clock for right.";
    Revoke POST "/api/v1/revocations" Socket ("RevokeRequest") Json("Recorded"), "Withdraws a release, an endorsement, an advisory or a key.";
    Advisories GET "/api/v1/advisories" Session () List("AdvisoryShown"), "Advisories of signers that policy names and of this site's own keys, the latest issued first."
        [("about", "string", "Only those of this name, on this package, or the one whose record this is."),
         ("strangers", "boolean", "Those of everybody.")];
    PublishAdvisory POST "/api/v1/advisories" Socket ("PublishAdvisoryRequest") Json("AdvisoriesPublished"), "Says that packages have a flaw, in one record for each.";
    Fetch POST "/api/v1/fetch" Session ("FetchRequest") Job("Fetched"), "Fetches an image or the images of a release.";
    Deploy POST "/api/v1/deploy" Session ("DeployRequest") Job("Deployed"), "Judges a release, fetches what is missing and boots it.";
    Instances GET "/api/v1/instances" Session () List("Instance"), "All instances.";
    StopInstance POST "/api/v1/instances/{instance}/stop" Session ("StopRequest") Json("InstanceChanged"), "Stops an instance. The body may be left out.";
    SuspendInstance POST "/api/v1/instances/{instance}/suspend" Session () Json("InstanceChanged"), "Saves a running instance's memory to disk and ends its process.";
    ResumeInstance POST "/api/v1/instances/{instance}/resume" Session () Json("InstanceChanged"), "Starts a suspended instance where it stood still.";
    RemoveInstance DELETE "/api/v1/instances/{instance}" Session () Json("InstanceChanged"), "Removes a stopped instance and what its guest wrote.";
    Logs GET "/api/v1/instances/{instance}/logs" Session () Text("text/plain; charset=utf-8"), "What the guest wrote to its console."
        [("follow", "boolean", "Go on with what it writes from now on.")];
    JobEvents GET "/api/v1/jobs/{job}/events" Session () Events("JobEvent"), "What a job says of itself, up to its end.";
    CancelJob DELETE "/api/v1/jobs/{job}" Session () Nothing, "Stops a job; what it has stored stays.";
    Changes GET "/api/v1/changes" Session () Events("Change"), "Changes as they happen; ask for the details again.";
    WebLink POST "/api/v1/web/link" Socket () Json("WebLink"), "A fresh one-time link to the web UI.";
    OpenApi GET "/api/v1/openapi.json" Session () Json("object"), "This document.";
    Metrics GET "/metrics" Anyone () Text("application/openmetrics-text; version=1.0.0; charset=utf-8"), "Metrics for Prometheus.";
}

/// Where a request leads.
#[derive(Debug)]
pub(crate) enum Target {
    /// An operation, with the decoded values of its `{…}` segments.
    Found(&'static Route, Vec<String>),
    /// The path exists, with these methods.
    OtherMethod(Vec<&'static Method>),
    /// No operation is there.
    Nowhere,
}

/// Splits a path and decodes its segments; `None` where one is not UTF-8.
pub(crate) fn segments(path: &str) -> Option<Vec<String>> {
    let decode = |segment| percent_decode_str(segment).decode_utf8().ok().map(|text| text.into_owned());
    path.strip_prefix('/')?.split('/').map(decode).collect()
}

/// Finds the operation of a request. A path that is written out hides one with `{…}`: `images/gc` is no image.
pub(crate) fn find(method: &Method, segments: &[String]) -> Target {
    let fitting: Vec<_> = ROUTES.iter().filter_map(|route| Some((route, matches(route.path, segments)?))).collect();
    let fewest = fitting.iter().map(|(_, values)| values.len()).min();
    let mut methods = Vec::new();
    for (route, values) in fitting.into_iter().filter(|(_, values)| Some(values.len()) == fewest) {
        if route.method == *method || (route.method == Method::GET && *method == Method::HEAD) {
            return Target::Found(route, values);
        }
        methods.push(&route.method);
    }
    if methods.is_empty() { Target::Nowhere } else { Target::OtherMethod(methods) }
}

fn matches(template: &str, segments: &[String]) -> Option<Vec<String>> {
    let wanted = template.split('/').skip(1);
    if wanted.clone().count() != segments.len() {
        return None;
    }
    let mut values = Vec::new();
    for (wanted, given) in wanted.zip(segments) {
        match wanted.starts_with('{') {
            true if given.is_empty() => return None,
            true => values.push(given.clone()),
            false if wanted != given => return None,
            false => {}
        }
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: Method, path: &str) -> Option<(Op, Vec<String>)> {
        match find(&method, &segments(path)?) {
            Target::Found(route, values) => Some((route.op, values)),
            _ => None,
        }
    }

    #[test]
    fn a_release_reference_is_one_segment_whatever_is_in_it() {
        let reference = vec!["cern/batch-worker@1.0+b~1".to_owned()];
        assert_eq!(
            found(Method::GET, "/api/v1/releases/cern%2Fbatch-worker%401.0%2Bb~1"),
            Some((Op::Release, reference.clone()))
        );
        assert_eq!(
            found(Method::GET, "/api/v1/releases/cern%2fbatch-worker@1.0+b~1/explain"),
            Some((Op::Explain, reference))
        );
        assert_eq!(found(Method::GET, "/api/v1/releases/cern/batch-worker@1.0"), None);
        assert_eq!(found(Method::GET, "/api/v1/releases/%FF"), None);
        assert_eq!(found(Method::GET, "/api/v1/releases//explain"), None);
    }

    #[test]
    fn literal_rows_win_and_other_methods_are_named() {
        assert_eq!(found(Method::POST, "/api/v1/images/gc"), Some((Op::CollectGarbage, vec![])));
        assert_eq!(found(Method::DELETE, "/api/v1/images/gc"), None);
        assert_eq!(found(Method::HEAD, "/api/v1/status"), Some((Op::Status, vec![])));
        let Target::OtherMethod(methods) = find(&Method::PUT, &segments("/api/v1/images").unwrap()) else { panic!() };
        assert_eq!(methods, [&Method::GET, &Method::POST]);
    }

    #[test]
    fn each_operation_has_one_row() {
        let mut seen = std::collections::HashSet::new();
        for route in ROUTES {
            assert!(seen.insert(route.op), "{:?} has two rows", route.op);
            assert!(seen.len() <= ROUTES.len());
        }
    }
}
