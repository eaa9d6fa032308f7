//! TLS 1.3 and 1.2 with rustls, with certificates of clients where they are asked for.
//!
//! Promises: certificates, keys, authorities and revocation lists are taken over from their files without a restart, and what is
//! wrong with them leaves the ones before in force; a certificate that was revoked opens no connection. Never: a key is logged.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::pki_types::UnixTime;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use webpki::EndEntityCert;

use crate::config::{BrokerError, ClientCertificates, Identity, TlsConfig, TlsVersion};

/// A certificate that a client showed, and who it says that is.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) name: String,
    /// Its own first.
    chain: Vec<CertificateDer<'static>>,
}

/// The certificates that are in force.
pub(crate) struct Tls {
    /// With paths that can be opened.
    config: TlsConfig,
    in_force: RwLock<InForce>,
}

struct InForce {
    acceptor: TlsAcceptor,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl Tls {
    /// Reads the files.
    pub(crate) fn load(config: &TlsConfig, base: &Path) -> Result<Self, BrokerError> {
        let config = TlsConfig {
            certificate: base.join(&config.certificate),
            key: base.join(&config.key),
            client_ca: config.client_ca.as_ref().map(|path| base.join(path)),
            revoked: config.revoked.as_ref().map(|path| base.join(path)),
            ..config.clone()
        };
        let in_force = RwLock::new(in_force(&config)?);
        Ok(Self { config, in_force })
    }

    /// Reads the files again.
    pub(crate) fn reload(&self) -> Result<(), BrokerError> {
        *self.in_force.write() = in_force(&self.config)?;
        Ok(())
    }

    /// Whether a certificate that was shown would be taken now.
    pub(crate) fn trusts(&self, shown: &Shown) -> bool {
        let verifier = self.in_force.read().verifier.clone();
        let Some((own, between)) = shown.chain.split_first() else { return false };
        verifier.is_some_and(|verifier| verifier.verify_client_cert(own, between, UnixTime::now()).is_ok())
    }

    /// The files it reads.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let TlsConfig { certificate, key, client_ca, revoked, .. } = &self.config;
        [Some(certificate), Some(key), client_ca.as_ref(), revoked.as_ref()].into_iter().flatten()
    }

    /// Shakes hands. Gives back who the client's certificate says it is, where it showed one.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
    ) -> std::io::Result<(TlsStream<TcpStream>, Option<Arc<Shown>>)> {
        let acceptor = self.in_force.read().acceptor.clone();
        let stream = acceptor.accept(stream).await?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let Some(own) = chain.first() else { return Ok((stream, None)) };
        let name = identity(own, self.config.identity).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| std::io::Error::other("the client's certificate names nobody"))?;
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        Ok((stream, Some(Arc::new(Shown { name, chain }))))
    }
}

fn in_force(config: &TlsConfig) -> Result<InForce, BrokerError> {
    let wrong = |path: &Path, why: String| BrokerError::Tls { path: path.to_owned(), why };
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |error: rustls::pki_types::pem::Error| BrokerError::Tls { path, why: error.to_string() }
    };
    let read = |path: &Path| -> Result<Vec<CertificateDer<'static>>, BrokerError> {
        let found = CertificateDer::pem_file_iter(path).map_err(unreadable(path))?;
        let found: Vec<_> = found.collect::<Result<_, _>>().map_err(unreadable(path))?;
        if found.is_empty() { Err(wrong(path, "there is no certificate in it".to_owned())) } else { Ok(found) }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = match config.min_version {
        TlsVersion::V1_2 => rustls::ALL_VERSIONS,
        TlsVersion::V1_3 => &[&rustls::version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(|error| wrong(&config.certificate, error.to_string()))?;
    let verifier = match &config.client_ca {
        None => None,
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in read(path)? {
                roots.add(authority).map_err(|error| wrong(path, error.to_string()))?;
            }
            let mut verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            if let Some(path) = &config.revoked {
                let lists = CertificateRevocationListDer::pem_file_iter(path).map_err(unreadable(path))?;
                let lists: Vec<_> = lists.collect::<Result<_, _>>().map_err(unreadable(path))?;
                // An authority in the middle need not have a list.
                verifier = verifier.with_crls(lists).only_check_end_entity_revocation();
            }
            if config.client_certificates == ClientCertificates::Optional {
                verifier = verifier.allow_unauthenticated();
            }
            Some(verifier.build().map_err(|error| wrong(path, error.to_string()))?)
        }
    };
    let builder = match &verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
        None => builder.with_no_client_auth(),
    };
    let key = PrivateKeyDer::from_pem_file(&config.key).map_err(unreadable(&config.key))?;
    // New tickets with each configuration: a session of before a revocation cannot be resumed after it.
    let server = builder.with_single_cert(read(&config.certificate)?, key);
    let server = server.map_err(|error| wrong(&config.certificate, error.to_string()))?;
    Ok(InForce { acceptor: TlsAcceptor::from(Arc::new(server)), verifier })
}

/// Who a certificate says it is for.
fn identity(certificate: &CertificateDer<'_>, by: Identity) -> Option<String> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    match by {
        Identity::San => certificate.valid_dns_names().next().map(str::to_owned),
        Identity::Cn => common_name(certificate.subject()),
    }
}

/// The last common name of a subject: the inside of a sequence of sets of attributes (RFC 5280 section 4.1.2.4).
fn common_name(mut subject: &[u8]) -> Option<String> {
    let mut found = None;
    while !subject.is_empty() {
        let (_, mut names) = element(&mut subject)?;
        while !names.is_empty() {
            let (_, mut attribute) = element(&mut names)?;
            let (_, kind) = element(&mut attribute)?;
            let (form, value) = element(&mut attribute)?;
            // id-at-commonName, as UTF8String or PrintableString.
            if kind == [0x55, 0x04, 0x03] && matches!(form, 0x0C | 0x13) {
                found = std::str::from_utf8(value).ok().map(str::to_owned);
            }
        }
    }
    found
}

/// The next element of DER (X.690 section 8.1): its tag and contents.
fn element<'d>(der: &mut &'d [u8]) -> Option<(u8, &'d [u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, mut rest) = rest.split_first()?;
    let mut length = usize::from(*first);
    if length > 0x80 {
        let (bytes, after) = rest.split_at_checked(length - 0x80).filter(|(bytes, _)| bytes.len() <= 3)?;
        length = bytes.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte));
        rest = after;
    }
    let (contents, after) = rest.split_at_checked(length)?;
    *der = after;
    Some((*tag, contents))
}
