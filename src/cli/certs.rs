//! `nearside certs init`: an authority for tests, and certificates of it for the broker and for clients.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use nearside_schemas::{Clock, SystemClock};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
};

use crate::error::StartError;

/// Certificates for tests.
#[derive(Args, Debug)]
pub struct CertsArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Makes an authority, a certificate for the broker, one for each client, and an empty list of revoked ones.
    Init {
        /// The folder; it must not hold an authority yet.
        #[arg(long, default_value = "certs")]
        out: PathBuf,
        /// Names and addresses under which clients reach the broker.
        #[arg(long = "host", default_values = ["localhost", "127.0.0.1", "::1"])]
        hosts: Vec<String>,
        /// Clients, by the user name that their certificate is to carry.
        #[arg(long = "client")]
        clients: Vec<String>,
    },
}

/// Runs the command.
pub fn run(args: &CertsArgs) -> Result<(), StartError> {
    let What::Init { out, hosts, clients } = &args.what;
    if out.join("ca.pem").exists() {
        return Err(StartError::Usage(format!(
            "there is an authority in {} already: name another folder",
            out.display()
        )));
    }
    std::fs::create_dir_all(out).map_err(StartError::file(out))?;
    let today = SystemClock.now().to_string();
    let year: i32 = today.get(..4).and_then(|year| year.parse().ok()).unwrap_or(2026);
    let made = |error: rcgen::Error| StartError::Surroundings(format!("certificates: {error}"));

    let mut authority = CertificateParams::default();
    name(&mut authority, "nearside test authority", year);
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().map_err(made)?;
    let certificate = authority.self_signed(&key).map_err(made)?;
    write(&out.join("ca.pem"), &certificate.pem(), false)?;
    write(&out.join("ca.key"), &key.serialize_pem(), true)?;
    let issuer = Issuer::new(authority, key);

    let servers = std::iter::once(("server", hosts.clone(), ExtendedKeyUsagePurpose::ServerAuth));
    let clients = clients.iter().map(|client| (client.as_str(), Vec::new(), ExtendedKeyUsagePurpose::ClientAuth));
    for (who, names, usage) in servers.chain(clients) {
        nearside_broker::Users::check_name(who).map_err(StartError::Usage)?;
        let mut params = CertificateParams::new(names).map_err(made)?;
        name(&mut params, who, year);
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().map_err(made)?;
        let certificate = params.signed_by(&key, &issuer).map_err(made)?;
        write(&out.join(format!("{who}.pem")), &certificate.pem(), false)?;
        write(&out.join(format!("{who}.key")), &key.serialize_pem(), true)?;
    }
    let revoked = CertificateRevocationListParams {
        this_update: date_time_ymd(year, 1, 1),
        next_update: date_time_ymd(year + YEARS, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let revoked = revoked.signed_by(&issuer).and_then(|list| list.pem()).map_err(made)?;
    write(&out.join("revoked.pem"), &revoked, false)?;
    println!("for tests only: whoever has {} can be anybody", out.join("ca.key").display());
    println!("[broker.tls]\ncertificate = \"{0}/server.pem\"\nkey = \"{0}/server.key\"", out.display());
    println!("client_ca = \"{0}/ca.pem\"\nrevoked = \"{0}/revoked.pem\"", out.display());
    println!("client_certificates = \"optional\"     # \"required\": a user's name and password alone are not enough");
    Ok(())
}

/// How long they hold.
const YEARS: i32 = 3;

fn name(params: &mut CertificateParams, name: &str, year: i32) {
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(year, 1, 1);
    params.not_after = date_time_ymd(year + YEARS, 1, 1);
}

/// Writes a new file; a key so that only its owner may read it.
fn write(path: &Path, text: &str, is_key: bool) -> Result<(), StartError> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(if is_key { 0o600 } else { 0o644 });
    let mut file = options.open(path).map_err(StartError::file(path))?;
    file.write_all(text.as_bytes()).map_err(StartError::file(path))
}
