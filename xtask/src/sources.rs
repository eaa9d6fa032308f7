//! What is true of every source file: modules say what they promise, files fit a head, nothing names a machine.

use std::path::Path;

/// Past this many lines a file is two things.
const MOST_LINES: usize = 600;

/// A repository is cloned by everyone; the weights that ship are far smaller.
const MOST_BYTES: u64 = 4 << 20;

pub(crate) fn check(root: &Path, files: &[String]) -> Result<Vec<String>, String> {
    let mut offences = Vec::new();
    for name in files {
        let bytes = std::fs::metadata(root.join(name)).map_err(|error| format!("{name}: {error}"))?.len();
        if bytes > MOST_BYTES {
            offences.push(format!("{name}: {bytes} bytes; what is that large does not belong in the repository"));
        }
        let Ok(text) = std::fs::read_to_string(root.join(name)) else { continue };
        offences.extend(of_file(name, &text));
    }
    Ok(offences)
}

fn of_file(name: &str, text: &str) -> Vec<String> {
    let mut offences = Vec::new();
    // Written apart, so that this file is no offence.
    for word in [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/")] {
        if let Some(line) = text.lines().position(|line| line.contains(word)) {
            offences.push(format!("{name}:{}: names a path of one machine", line + 1));
        }
    }
    if !name.ends_with(".rs") {
        return offences;
    }
    if !text.trim_start().starts_with("//!") {
        offences.push(format!("{name}: does not say what it is (`//!`)"));
    }
    let lines = text.lines().count();
    if lines > MOST_LINES {
        offences.push(format!("{name}: {lines} lines; which two things is it?"));
    }
    for (n, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or("");
        if code.contains(concat!(".do_", "send(")) {
            offences.push(format!("{name}:{}: ignores the mailbox bound; use try_send or send", n + 1));
        }
    }
    offences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offences_are_found() {
        let text = concat!("fn main() {\n    address.do_", "send(1);\n    open(\"/ho", "me/me\");\n}\n");
        assert_eq!(of_file("src/a.rs", text).len(), 3);
        assert!(of_file("src/a.rs", "//! Good.\n").is_empty());
        assert_eq!(of_file("src/a.rs", &format!("//! Long.\n{}", "x\n".repeat(MOST_LINES))).len(), 1);
    }
}
