//! Forms sent from pages. A browser without scripts is sent on to a page that shows what came of it; the script asks for JSON.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use warp::http::{StatusCode, header};

use super::jobs::encoded;
use super::{Visit, wants_json};
use crate::api::{ApiError, Backend, DeployRequest, FetchRequest, JobStarted, PortForward};
use crate::reply::{self, Refusal, Response};

/// What the name of a form's field keeps as it is: all of a well-formed input's name.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');
/// Fields of one form: 64 context inputs, ports, and room to spare.
const MAX_FIELDS: usize = 256;

pub(super) async fn fetch(visit: &Visit<'_>, release: &str, backend: &dyn Backend) -> Result<Response, Refusal> {
    answered(visit, async {
        let mut request = FetchRequest { target: release.to_owned(), held: false };
        for (name, value) in fields(visit)? {
            match (name.as_str(), value.as_str()) {
                ("held", "true") => request.held = true,
                _ => return Err(unknown(&name)),
            }
        }
        Ok(followed(visit, &backend.fetch(request).await?, release))
    })
    .await
}

pub(super) async fn deploy(visit: &Visit<'_>, release: &str, backend: &dyn Backend) -> Result<Response, Refusal> {
    answered(visit, async {
        let request = deploy_request(release, fields(visit)?)?;
        Ok(followed(visit, &backend.deploy(request).await?, release))
    })
    .await
}

pub(super) async fn stop(visit: &Visit<'_>, instance: &str, backend: &dyn Backend) -> Result<Response, Refusal> {
    answered(visit, async {
        let mut force = false;
        for (name, value) in fields(visit)? {
            match (name.as_str(), value.as_str()) {
                ("force", "true") => force = true,
                _ => return Err(unknown(&name)),
            }
        }
        backend.stop_instance(instance, force).await?;
        Ok(reply::see_other("/instances"))
    })
    .await
}

pub(super) async fn suspend(visit: &Visit<'_>, instance: &str, backend: &dyn Backend) -> Result<Response, Refusal> {
    answered(visit, async {
        no_fields(visit)?;
        backend.suspend_instance(instance).await?;
        Ok(reply::see_other("/instances"))
    })
    .await
}

pub(super) async fn resume(visit: &Visit<'_>, instance: &str, backend: &dyn Backend) -> Result<Response, Refusal> {
    answered(visit, async {
        no_fields(visit)?;
        backend.resume_instance(instance).await?;
        Ok(reply::see_other("/instances"))
    })
    .await
}

pub(super) async fn remove(visit: &Visit<'_>, instance: &str, backend: &dyn Backend) -> Result<Response, Refusal> {
    answered(visit, async {
        no_fields(visit)?;
        backend.remove_instance(instance).await?;
        Ok(reply::see_other("/instances"))
    })
    .await
}

pub(super) async fn cancel(visit: &Visit<'_>, job: &str, backend: &dyn Backend) -> Result<Response, Refusal> {
    answered(visit, async {
        no_fields(visit)?;
        backend.cancel_job(job).await?;
        Ok(reply::see_other(&format!("/jobs/{}", encoded(job))))
    })
    .await
}

/// The script gets its errors as JSON.
async fn answered(
    visit: &Visit<'_>,
    work: impl Future<Output = Result<Response, Refusal>>,
) -> Result<Response, Refusal> {
    match work.await {
        Err(refusal) if wants_json(visit.headers) => Ok(refusal.into_json()),
        outcome => outcome,
    }
}

fn followed(visit: &Visit<'_>, started: &JobStarted, release: &str) -> Response {
    if wants_json(visit.headers) {
        return reply::json(StatusCode::ACCEPTED, started);
    }
    reply::see_other(&format!("/jobs/{}?release={}", encoded(&started.job), encoded(release)))
}

fn fields(visit: &Visit<'_>) -> Result<Vec<(String, String)>, Refusal> {
    let content_type =
        visit.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !visit.body.is_empty() && !content_type.starts_with("application/x-www-form-urlencoded") {
        let error = ApiError::usage("this address takes a page's form; programs use /api/v1");
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
    }
    let fields: Vec<_> = form_urlencoded::parse(&visit.body)
        .take(MAX_FIELDS + 1)
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    if fields.len() > MAX_FIELDS {
        return Err(Refusal::usage(format!("a form of more than {MAX_FIELDS} fields")));
    }
    Ok(fields)
}

fn no_fields(visit: &Visit<'_>) -> Result<(), Refusal> {
    match fields(visit)?.first() {
        Some((name, _)) => Err(unknown(name)),
        None => Ok(()),
    }
}

/// The field of a context input. Names come from gossip, so what is not plain in one is encoded.
pub(super) fn input_field(name: &str) -> String {
    format!("set.{}", utf8_percent_encode(name, PLAIN))
}

/// Reads the deploy form: `set.NAME` for inputs, pairs of `publish.guest` and `publish.host` for ports. An empty field
/// was left alone.
fn deploy_request(release: &str, fields: Vec<(String, String)>) -> Result<DeployRequest, Refusal> {
    let mut set = BTreeMap::new();
    let (mut guests, mut hosts) = (Vec::new(), Vec::new());
    for (name, value) in fields {
        match name.as_str() {
            "publish.guest" => guests.push(value),
            "publish.host" => hosts.push(value),
            _ => match name.strip_prefix("set.") {
                Some(_) if value.is_empty() => {}
                // Browsers send the line breaks of a text area as CR LF.
                Some(input) => {
                    let input = percent_decode_str(input).decode_utf8().map_err(|_| unknown(&name))?;
                    set.insert(input.into_owned(), value.replace("\r\n", "\n"));
                }
                None => return Err(unknown(&name)),
            },
        }
    }
    if guests.len() != hosts.len() {
        return Err(Refusal::usage("each published port has a guest port and a host port"));
    }
    let mut publish = Vec::new();
    for (guest, host) in guests.iter().zip(&hosts) {
        match (guest.trim(), host.trim()) {
            ("", "") => {}
            ("", host) => {
                return Err(Refusal::usage(format!("host port {} has no guest port beside it", excerpt(host))));
            }
            (guest, host) => {
                publish.push(PortForward { guest: port(guest)?, host: if host.is_empty() { 0 } else { port(host)? } })
            }
        }
    }
    Ok(DeployRequest { release: release.to_owned(), set, publish })
}

fn port(text: &str) -> Result<u16, Refusal> {
    text.parse().map_err(|_| Refusal::usage(format!("'{}' is not a port: ports are 0 to 65535", excerpt(text))))
}

fn unknown(name: &str) -> Refusal {
    Refusal::usage(format!("'{}' is not a field of this form; reload the page and try again", excerpt(name)))
}

fn excerpt(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(form: &str) -> Vec<(String, String)> {
        form_urlencoded::parse(form.as_bytes()).into_owned().collect()
    }

    #[test]
    fn a_deploy_form_is_a_deploy_request() {
        let form = "set.greeting=Ciao+%26+hello&set.key=&set.text=a%0D%0Ab&publish.guest=80&publish.host=8081&publish.guest=22&publish.host=&publish.guest=&publish.host=";
        let request = deploy_request("r", pairs(form)).unwrap();
        assert_eq!(
            request.set,
            BTreeMap::from([("greeting".into(), "Ciao & hello".into()), ("text".into(), "a\nb".into())])
        );
        assert_eq!(request.publish, [PortForward { host: 8081, guest: 80 }, PortForward { host: 0, guest: 22 }]);
        for bad in [
            "greeting=x",
            "publish.guest=80",
            "publish.guest=&publish.host=80",
            "publish.guest=65536&publish.host=",
            "publish.guest=-1&publish.host=",
        ] {
            assert!(deploy_request("r", pairs(bad)).is_err(), "{bad}");
        }
    }
}
