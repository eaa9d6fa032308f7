//! `nearside models keygen|sign|verify|list|encrypt`: the folders of models that a site brings itself.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use nearside_models::artefact::{self, PublicKey, SALT, SigningKey, Trust};
use nearside_models::catalog;
use nearside_models::text::Encoders;
use nearside_privacy::KeyRing;

use crate::error::StartError;

/// Signs, checks, lists and encrypts models.
#[derive(Args, Debug)]
pub struct ModelsArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Makes a key that models are signed with, and prints the half that goes into [models] trusted_keys.
    Keygen {
        /// The file of the secret half; it must not exist. Who has it can sign models for every site that trusts it.
        #[arg(long)]
        out: PathBuf,
    },
    /// Signs a model's folder: card and weights. To be done before the weights are encrypted.
    Sign {
        /// The model's folder.
        folder: PathBuf,
        /// The file that `keygen` made.
        #[arg(long)]
        key: PathBuf,
    },
    /// Checks a model's folder as a gateway would: digest, signature, schema, and a forward pass.
    Verify {
        /// The model's folder.
        folder: PathBuf,
        /// Requires the signature of this key (ed25519:…); may be given several times.
        #[arg(long)]
        trust: Vec<PublicKey>,
        /// The site's key file, where the weights are encrypted.
        #[arg(long)]
        site_key: Option<PathBuf>,
        /// A sentence encoder's folder, where the model refers to one; may be given several times.
        #[arg(long = "encoder")]
        encoders: Vec<PathBuf>,
    },
    /// Lists the models of a site's folder and those that ship: name, version, where it comes from and who signed it.
    List {
        /// The site's TOML file.
        site: PathBuf,
    },
    /// Encrypts a model's weights for one site; only gateways with that key can use it then. The signature still holds.
    Encrypt {
        /// The model's folder.
        folder: PathBuf,
        /// The site's key file.
        #[arg(long)]
        site_key: PathBuf,
    },
}

/// Runs the command.
pub fn run(args: &ModelsArgs) -> Result<(), StartError> {
    match &args.what {
        What::Keygen { out } => keygen(out),
        What::Sign { folder, key } => {
            let text = read_secret(key)?;
            let why = String::from("not a key that `nearside models keygen` made");
            let key = SigningKey::parse(&text).ok_or(StartError::Input { path: key.clone(), why })?;
            println!("{} is signed by {}", folder.display(), artefact::sign(folder, &key)?);
            Ok(())
        }
        What::Verify { folder, trust, site_key, encoders } => {
            let site = site_key.as_deref().map(KeyRing::load).transpose()?.map(|keys| Arc::new(keys) as _);
            let trust = Trust { keys: trust.clone(), is_required: !trust.is_empty(), site };
            let (loaded, card) = artefact::try_folder(folder, &trust, &Encoders::new(encoders.clone()))?;
            println!("{}: good, {}, {}", folder.display(), loaded.model.reference(), loaded.signer);
            println!("  method {}, weights {}", card.method(), card.sha256.as_deref().unwrap_or("none"));
            if let Some(name) = other_name(folder, card.name.as_str()) {
                println!("  [models] folder would refuse it: name the folder `{}`, or the card `{name}`", card.name);
            }
            Ok(())
        }
        What::List { site } => list(site),
        What::Encrypt { folder, site_key } => {
            let keys = KeyRing::load(site_key)?;
            artefact::encrypt(folder, &keys, random::<SALT>()?)?;
            println!("{} opens with key {} alone", folder.display(), keys.id());
            Ok(())
        }
    }
}

/// The folder's name where it is not the card's: the folder of a site's models takes each by its own folder's name.
fn other_name(folder: &Path, card: &str) -> Option<String> {
    let folder = std::fs::canonicalize(folder).ok()?;
    let name = folder.file_name()?.to_string_lossy().into_owned();
    (name != card).then_some(name)
}

fn keygen(out: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::OpenOptionsExt;
    let key = SigningKey::from_seed(random()?)
        .ok_or_else(|| StartError::Surroundings("the system's randomness makes no key".to_owned()))?;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(out).map_err(StartError::file(out))?;
    file.write_all(key.to_text().as_bytes()).and_then(|()| file.sync_all()).map_err(StartError::file(out))?;
    println!("{}", key.public());
    Ok(())
}

fn random<const N: usize>() -> Result<[u8; N], StartError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| StartError::Surroundings(error.to_string()))?;
    Ok(bytes)
}

/// Reads a file that nobody but its owner may read.
fn read_secret(path: &Path) -> Result<zeroize::Zeroizing<String>, StartError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).map_err(StartError::file(path))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let why = format!("others may read it (mode {mode:o}); chmod 600 it, or make another key if they may have");
        return Err(StartError::Input { path: path.to_owned(), why });
    }
    std::fs::read_to_string(path).map(zeroize::Zeroizing::new).map_err(StartError::file(path))
}

fn list(site: &Path) -> Result<(), StartError> {
    let config = nearside_config::load(site)?;
    let base = site.parent().unwrap_or(Path::new("."));
    let key_file = base.join(&config.site.data_dir).join(&config.privacy.key_file);
    let keys = key_file.exists().then(|| KeyRing::load(&key_file)).transpose()?;
    let library = crate::model_set::library(&config, base, keys.map(Arc::new));
    let mut names = library.names();
    names.extend(catalog::names().map(str::to_owned).filter(|shipped| !library.names().contains(shipped)));
    let mut out = std::io::stdout().lock();
    for name in names {
        let used = config.streams.iter().filter(|stream| stream.models.iter().any(|used| used.as_str() == name));
        let used: Vec<&str> = used.map(|stream| stream.spec.name.as_str()).collect();
        let line = match library.load(&name) {
            Ok(loaded) => {
                let version = &loaded.model.reference().version;
                format!("{name}\t{version}\t{}\t{}\t{}", loaded.origin.as_str(), loaded.signer, used.join(", "))
            }
            Err(error) => format!("{name}\t-\tnot used\t{error}\t{}", used.join(", ")),
        };
        writeln!(out, "{line}").map_err(StartError::file(Path::new("standard output")))?;
    }
    Ok(())
}
