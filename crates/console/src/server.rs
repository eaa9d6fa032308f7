//! The HTTP server.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use nearside_schemas::{Faults, deserialize_address};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::feedback::{self, FeedbackPort};
use crate::page;
use crate::view::{Health, Readiness, View};

/// `[console]`: the HTTP side.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConsoleConfig {
    /// Address and port. It shows figures and findings to whoever can reach it: keep it on loopback or behind something that
    /// asks who they are.
    #[serde(deserialize_with = "deserialize_address")]
    pub listen: SocketAddr,
    /// Most requests at a time; further ones are answered 503.
    pub max_requests: usize,
}

impl Default for ConsoleConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8080)), max_requests: 64 }
    }
}

impl ConsoleConfig {
    /// Whatever would keep it from answering.
    pub fn faults(&self) -> Faults {
        Faults::of("console").above_zero(&[("max_requests", self.max_requests == 0)])
    }
}

/// The console cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("the console cannot listen on {address}: {source}; set [console] listen to a free port")]
pub struct ConsoleError {
    /// Where.
    pub address: SocketAddr,
    /// What the system said.
    pub source: std::io::Error,
}

/// A console whose port is open.
pub struct Console {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    view: Arc<dyn View>,
    pub(crate) feedback: Arc<dyn FeedbackPort>,
    pub(crate) slots: Semaphore,
}

impl Console {
    /// Opens the port.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub async fn bind(
        config: ConsoleConfig,
        view: Arc<dyn View>,
        feedback: Arc<dyn FeedbackPort>,
    ) -> Result<Self, ConsoleError> {
        let refused = |source| ConsoleError { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let slots = Semaphore::new(config.max_requests.clamp(1, Semaphore::MAX_PERMITS));
        Ok(Self { listener, address, shared: Arc::new(Shared { view, feedback, slots }) })
    }

    /// Where it listens; tells the port where 0 was asked for.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` turns true.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let router = Router::new()
            .route("/", get(first_page))
            .route("/metrics", get(metrics))
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/api/v1/state", get(state))
            .route("/api/v1/feedback", post(feedback::post))
            .with_state(self.shared)
            .into_make_service_with_connect_info::<SocketAddr>();
        let stopped = async move {
            // A sender that is gone means the gateway is too.
            let _ = stop.wait_for(|stop| *stop).await;
        };
        if let Err(error) = axum::serve(self.listener, router).with_graceful_shutdown(stopped).await {
            tracing::error!(%error, "the console ended");
        }
    }
}

type Held = State<Arc<Shared>>;

/// Answers if there is a slot. The view's methods take locks, so they do not run on the reactor for long.
async fn with_slot(shared: Arc<Shared>, answer: impl FnOnce(&dyn View) -> Response + Send + 'static) -> Response {
    let Ok(_slot) = shared.slots.try_acquire() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many requests at a time\n").into_response();
    };
    let view = shared.view.clone();
    let answered = tokio::task::spawn_blocking(move || answer(view.as_ref())).await;
    let mut response = answered.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response());
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let policy =
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

async fn first_page(State(shared): Held) -> Response {
    with_slot(shared, |view| Html(page::render(&view.page())).into_response()).await
}

async fn metrics(State(shared): Held) -> Response {
    with_slot(shared, |view| {
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        ([(header::CONTENT_TYPE, kind)], view.metrics()).into_response()
    })
    .await
}

async fn healthz(State(shared): Held) -> Response {
    with_slot(shared, |view| match view.health() {
        Health::Healthy => "ok\n".into_response(),
        Health::Failing(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    })
    .await
}

async fn readyz(State(shared): Held) -> Response {
    with_slot(shared, |view| match view.readiness() {
        Readiness::Ready => "ready\n".into_response(),
        Readiness::NotReady(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    })
    .await
}

async fn state(State(shared): Held) -> Response {
    with_slot(shared, |view| axum::Json(view.page()).into_response()).await
}
