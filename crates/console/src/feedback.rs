//! `POST /api/v1/feedback`: what an operator says of a finding.
//!
//! Promises: where there are users only an operator is heard, else only who sits at this machine; a web page of somebody else's cannot
//! speak in an operator's name: the body must be declared as JSON, which a browser asks about first and is not allowed, and without users
//! the machine must be called by its address or `localhost`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use nearside_schemas::{BoxFuture, FeedbackOutcome, MAX_FEEDBACK_BYTES, Role};
use serde::Serialize;

use crate::server::Shared;

/// Where feedback goes, and who may give it: a port that the gateway fills.
pub trait FeedbackPort: Send + Sync + 'static {
    /// Whether there are users at all.
    fn has_users(&self) -> bool;
    /// The role of a user who gives the right password.
    fn role<'a>(&'a self, name: &'a str, password: &'a str) -> BoxFuture<'a, Option<Role>>;
    /// Records feedback and says what became of it.
    ///
    /// # Errors
    /// With the reason where it cannot be recorded or heeded now.
    fn give(&self, body: Vec<u8>) -> BoxFuture<'_, Result<FeedbackOutcome, &'static str>>;
}

#[derive(Serialize)]
struct Said {
    outcome: &'static str,
    text: String,
}

pub(crate) async fn post(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let Ok(_slot) = shared.slots.try_acquire() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "too many requests at a time");
    };
    let port = shared.feedback.as_ref();
    let (parts, body) = request.into_parts();
    if let Err(refusal) = permitted(port, &parts.headers, from.ip()).await {
        return refusal;
    }
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().map(str::trim) != Some("application/json") {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json");
    }
    let Ok(body) = axum::body::to_bytes(body, MAX_FEEDBACK_BYTES).await else {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than feedback may be");
    };
    match port.give(body.to_vec()).await {
        Ok(outcome) => {
            let status = match outcome {
                FeedbackOutcome::Applied { .. } | FeedbackOutcome::Recorded { .. } => StatusCode::OK,
                FeedbackOutcome::Unknown => StatusCode::NOT_FOUND,
                FeedbackOutcome::Malformed(_) => StatusCode::BAD_REQUEST,
            };
            answer(status, outcome.as_str(), outcome.says())
        }
        Err(why) => refuse(StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

async fn permitted(port: &dyn FeedbackPort, headers: &HeaderMap, from: IpAddr) -> Result<(), Response> {
    if !port.has_users() {
        let is_here = from.to_canonical().is_loopback() && is_called_by_address(headers) && !is_passed_on(headers);
        let why = "there are no users ([broker] users), so feedback is taken from this machine alone: ask 127.0.0.1 or localhost on it, not through a proxy";
        return if is_here { Ok(()) } else { Err(refuse(StatusCode::FORBIDDEN, why)) };
    }
    let role = match basic(headers) {
        Some((name, password)) => port.role(&name, &password).await,
        None => None,
    };
    match role {
        Some(Role::Operator) => Ok(()),
        Some(_) => Err(refuse(StatusCode::FORBIDDEN, "only a user with the role `operator` may give feedback")),
        None => {
            let mut refusal = refuse(StatusCode::UNAUTHORIZED, "say who you are: an operator's name and password");
            let how = HeaderValue::from_static("Basic realm=\"nearside\", charset=\"UTF-8\"");
            refusal.headers_mut().insert(header::WWW_AUTHENTICATE, how);
            Err(refusal)
        }
    }
}

/// Whether the machine is called by an address or `localhost`: a name that somebody else lets point here would be theirs.
fn is_called_by_address(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host
        .rsplit_once(':')
        .map_or(host, |(name, port)| if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host });
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<IpAddr>().is_ok()
}

/// Whether a proxy says that somebody else asks through it.
fn is_passed_on(headers: &HeaderMap) -> bool {
    let named = ["x-forwarded-for", "x-forwarded-host", "x-real-ip"];
    named.iter().any(|name| headers.contains_key(*name))
        || [header::FORWARDED, header::VIA].iter().any(|name| headers.contains_key(name))
}

/// Name and password of HTTP's basic scheme (RFC 7617).
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    text.split_once(':').map(|(name, password)| (name.to_owned(), password.to_owned()))
}

fn refuse(status: StatusCode, why: &str) -> Response {
    answer(status, "refused", why.to_owned())
}

fn answer(status: StatusCode, outcome: &'static str, text: String) -> Response {
    let mut response = (status, axum::Json(Said { outcome, text })).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Site {
        has_users: bool,
    }

    impl FeedbackPort for Site {
        fn has_users(&self) -> bool {
            self.has_users
        }

        fn role<'a>(&'a self, name: &'a str, password: &'a str) -> BoxFuture<'a, Option<Role>> {
            let role = name.parse().ok().filter(|_| password == "pass:word");
            Box::pin(async move { role })
        }

        fn give(&self, _: Vec<u8>) -> BoxFuture<'_, Result<FeedbackOutcome, &'static str>> {
            Box::pin(async { Ok(FeedbackOutcome::Unknown) })
        }
    }

    async fn status(has_users: bool, host: &str, user: Option<&str>, from: &str) -> u16 {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(user) = user {
            let encoded = base64::engine::general_purpose::STANDARD.encode(user);
            headers.insert(header::AUTHORIZATION, format!("Basic {encoded}").parse().unwrap());
        }
        let permitted = permitted(&Site { has_users }, &headers, from.parse().unwrap()).await;
        permitted.map_or_else(|refusal| refusal.status().as_u16(), |()| 200)
    }

    #[tokio::test]
    async fn an_operator_is_heard_and_nobody_else() {
        for (user, expected) in [
            (Some("operator:pass:word"), 200),
            (Some("operator:wrong"), 401),
            (Some("viewer:pass:word"), 403),
            (Some("device:pass:word"), 403),
            (Some("nobody"), 401),
            (None, 401),
        ] {
            assert_eq!(status(true, "gateway.example", user, "192.0.2.1").await, expected, "{user:?}");
            assert_eq!(status(true, "127.0.0.1:8080", user, "127.0.0.1").await, expected, "{user:?}, from here");
        }
    }

    #[tokio::test]
    async fn without_users_only_this_machine_is_heard_called_by_its_address() {
        for (host, from, expected) in [
            ("127.0.0.1:8080", "127.0.0.1", 200),
            ("localhost", "::1", 200),
            ("[::1]:8080", "::1", 200),
            ("127.0.0.1:8080", "192.0.2.1", 403),
            ("rebound.example:8080", "127.0.0.1", 403),
            ("", "127.0.0.1", 403),
        ] {
            assert_eq!(status(false, host, None, from).await, expected, "{host} {from}");
        }
    }
}
