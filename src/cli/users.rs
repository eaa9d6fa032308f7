//! `nearside users add|remove|list`: who may connect to a site's broker.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use nearside_broker::{Users, hash_password};
use nearside_schemas::{Role, utf8};

use crate::error::StartError;

/// Shorter ones are warned of (NIST SP 800-63B, section 3.1.1.2, asks for 8 characters at least).
const SHORT_PASSWORD: usize = 8;

/// Who may connect to the broker.
#[derive(Args, Debug)]
pub struct UsersArgs {
    /// The user file, as `[broker] users` names it.
    #[arg(long, default_value = "users.toml", global = true)]
    file: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Adds a user, or gives one another password and role. Reads the password from standard input; makes the file where there
    /// is none. A running gateway takes it over by itself.
    Add {
        /// The name.
        name: String,
        /// `device`, `operator`, `viewer` or `fleet`: what it may do stands in the file.
        #[arg(long, default_value = "device")]
        role: Role,
        /// The user has no password and shows a certificate.
        #[arg(long)]
        certificate: bool,
    },
    /// Removes a user; a running gateway ends its connections.
    Remove {
        /// The name.
        name: String,
    },
    /// Prints names and roles.
    List,
}

/// Runs the command.
pub fn run(args: &UsersArgs) -> Result<(), StartError> {
    let path = &args.file;
    match &args.what {
        What::Add { name, role, certificate } => {
            Users::check_name(name).map_err(StartError::Usage)?;
            let password = if *certificate { None } else { Some(read_password(name)?) };
            let text = if path.exists() { read(path)? } else { Users::TEMPLATE.to_owned() };
            let text = without(&text, name) + &entry(name, *role, password.as_deref())?;
            write(path, &text)?;
            println!("{name} is in {} as {}", path.display(), role.as_str());
            Ok(())
        }
        What::Remove { name } => {
            let text = read(path)?;
            let left = without(&text, name);
            if left == text {
                return Err(StartError::Usage(format!("there is no user `{name}` in {}", path.display())));
            }
            write(path, &left)?;
            println!("{name} is no longer in {}", path.display());
            Ok(())
        }
        What::List => {
            let users = Users::load(path)?;
            let mut out = std::io::stdout().lock();
            for (name, user) in users.iter() {
                let with = if user.has_password() { "password" } else { "certificate" };
                writeln!(out, "{name}\t{}\t{with}", user.role.as_str())
                    .map_err(StartError::file(Path::new("standard output")))?;
            }
            Ok(())
        }
    }
}

fn read(path: &Path) -> Result<String, StartError> {
    let bytes = std::fs::read(path).map_err(StartError::file(path))?;
    let wrong = |why| StartError::Input { path: path.to_owned(), why };
    let text = utf8(&bytes).map_err(|error| wrong(error.to_string()))?;
    // What is not understood is not changed.
    Users::parse(text).map_err(wrong)?;
    Ok(text.to_owned())
}

/// Writes the file at once, so that a running gateway never reads half of it; only the owner may read it.
fn write(path: &Path, text: &str) -> Result<(), StartError> {
    use std::os::unix::fs::OpenOptionsExt;
    Users::parse(text).map_err(|why| StartError::Input { path: path.to_owned(), why })?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let options =
        |file: &mut std::fs::OpenOptions| file.write(true).create(true).truncate(true).mode(0o600).open(&beside);
    let mut file = options(&mut std::fs::OpenOptions::new()).map_err(StartError::file(&beside))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(StartError::file(&beside))?;
    std::fs::rename(&beside, path).map_err(StartError::file(path))
}

fn header(name: &str) -> String {
    format!("[users.\"{name}\"]")
}

fn entry(name: &str, role: Role, password: Option<&str>) -> Result<String, StartError> {
    let mut entry = format!("\n{}\nrole = \"{}\"\n", header(name), role.as_str());
    if let Some(password) = password {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(|error| StartError::Surroundings(error.to_string()))?;
        entry += &format!("password = \"{}\"\n", hash_password(password.as_bytes(), &salt)?);
    }
    Ok(entry)
}

/// The text without the table of that user, however its name is quoted; everything else stays as it was written.
fn without(text: &str, name: &str) -> String {
    let headers = [header(name), format!("[users.'{name}']"), format!("[users.{name}]")];
    let mut skipping = false;
    let mut left = String::new();
    for line in text.split_inclusive('\n') {
        if line.starts_with('[') {
            skipping = headers.iter().any(|header| line.trim_end().starts_with(header.as_str()));
            if skipping && left.ends_with("\n\n") {
                left.pop();
            }
        }
        if !skipping {
            left.push_str(line);
        }
    }
    left
}

fn read_password(name: &str) -> Result<String, StartError> {
    let input = std::io::stdin();
    if input.is_terminal() {
        eprintln!("password of {name}, then Enter and Ctrl-D (it is shown; to hide it, pipe it in):");
    }
    let mut password = String::new();
    input.lock().take(4_096).read_to_string(&mut password).map_err(StartError::file(Path::new("standard input")))?;
    let password = password.trim_end_matches(['\n', '\r']).to_owned();
    if password.is_empty() {
        return Err(StartError::Usage("the password is empty: write it to standard input".to_owned()));
    }
    if password.chars().count() < SHORT_PASSWORD {
        eprintln!(
            "warning: the password of {name} is shorter than {SHORT_PASSWORD} characters; it is taken, but whoever reaches the broker can try \
             them all: `openssl rand -base64 18` makes a good one"
        );
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_users_own_table_goes() {
        let text = "# head\n[roles.device]\npublish = []\n\n[users.\"ann\"]\nrole = \"device\"\n\n[users.anna]\nrole = \"device\"\n";
        let left = without(text, "ann");
        assert_eq!(left, "# head\n[roles.device]\npublish = []\n[users.anna]\nrole = \"device\"\n");
        assert_eq!(without(&left, "ann"), left);
        assert!(!without(&left, "anna").contains("anna"));
    }

    #[test]
    fn what_is_added_can_be_read() {
        for name in ["ann", "护士 7", "a.b"] {
            let text = Users::TEMPLATE.to_owned() + &entry(name, Role::Operator, Some("word")).unwrap();
            let users = Users::parse(&text).unwrap();
            assert_eq!(users.get(name).unwrap().role, Role::Operator);
            assert!(users.get(name).unwrap().has_password());
            assert!(Users::parse(&without(&text, name)).unwrap().get(name).is_none());
        }
    }
}
