//! The first page: plain HTML that refreshes itself, without scripts and without anything from elsewhere.

use std::fmt::Write;

use crate::view::{CommandRow, FindingRow, LearningRow, PageData, StageRow, StreamRow};

const STYLE: &str = "
:root { color-scheme: light dark; --line: #8884; --soft: #888; --warn: #b45309; --crit: #dc2626; --ok: #15803d; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem; }
h1 { font-size: 1.3rem; margin: 0; } h2 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
header { display: flex; gap: 1rem; align-items: baseline; flex-wrap: wrap; }
.soft { color: var(--soft); } .ok { color: var(--ok); } .bad, .critical { color: var(--crit); } .warning { color: var(--warn); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; } small { color: var(--soft); display: block; }
";

/// So much of a key part is shown.
const KEY_CHARACTERS: usize = 24;

/// Text as it may stand in HTML.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// The page as HTML.
pub(crate) fn render(data: &PageData) -> String {
    let site = escape(&data.site);
    let (class, word) = if data.ready { ("ok", "taking readings") } else { ("bad", "not ready") };
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <meta http-equiv=\"refresh\" content=\"2\"><title>{site} · Nearside</title><style>{STYLE}</style>\
         <header><h1>{site}</h1><span class=\"{class}\">{word}</span>\
         <span class=\"soft\">cloud: {} · {} ({} bytes)</span>\
         <span class=\"soft\">{} · Nearside {}</span></header>",
        escape(&data.uplink),
        if data.outbox_items == 1 { "1 item waits".to_owned() } else { format!("{} items wait", data.outbox_items) },
        data.outbox_bytes,
        escape(&data.now),
        escape(&data.version),
    );
    section(&mut html, "Last findings", &["when", "stream", "what", "score", "why"], &data.findings, finding);
    section(
        &mut html,
        "Streams",
        &["stream", "active", "parked", "readings", "set aside", "windows", "models"],
        &data.streams,
        stream,
    );
    section(&mut html, "Commands to devices", &["when", "rule", "outcome"], &data.commands, command);
    if !data.learning.is_empty() {
        section(&mut html, "Models that learn", &["when", "model", "step", "figures"], &data.learning, learning);
    }
    section(&mut html, "Stages", &["stage", "waiting", "bound", "when full", "runs on"], &data.stages, stage);
    html.push_str(
        "<p class=\"soft\"><a href=\"/metrics\">metrics</a> · <a href=\"/api/v1/state\">state as JSON</a></p></html>",
    );
    html
}

fn section<T>(html: &mut String, title: &str, columns: &[&str], rows: &[T], row: fn(&mut String, &T)) {
    // Writing into a string cannot fail, here and below.
    let _ = write!(html, "<h2>{title}</h2>");
    if rows.is_empty() {
        html.push_str("<p class=\"soft\">none yet</p>");
        return;
    }
    html.push_str("<div class=\"scroll\"><table><tr>");
    for column in columns {
        let _ = write!(html, "<th>{column}</th>");
    }
    html.push_str("</tr>");
    for item in rows {
        html.push_str("<tr>");
        row(html, item);
        html.push_str("</tr>");
    }
    html.push_str("</table></div>");
}

fn finding(html: &mut String, row: &FindingRow) {
    let reasons: Vec<String> = row.reasons.iter().map(|reason| escape(reason)).collect();
    let said = row.feedback.map(|said| format!(" · an operator says: {}", said.replace('_', " "))).unwrap_or_default();
    let short: String = row.stream_id.chars().take(8).collect();
    // A pseudonym's first digits tell the beds of a ward apart; the whole of it is in the state.
    let part = |(name, shown): (&String, &String)| {
        let shown: String = shown.chars().take(KEY_CHARACTERS).collect();
        format!("{} {}", escape(name), escape(&shown))
    };
    let key: Vec<String> = row.key.iter().map(part).collect();
    let _ = write!(
        html,
        "<td>{}</td><td>{}<small>{}</small><small>{}</small></td><td class=\"{}\">{}<small>{}</small></td>\
         <td class=\"n\">{:.3}<small>from {:.3}</small></td><td>{}<small>{}</small><small>{}{said}</small></td>",
        escape(&row.at),
        escape(&row.stream),
        key.join(" · "),
        escape(&short),
        escape(&row.severity),
        escape(&row.label),
        escape(&row.model),
        row.score,
        row.threshold,
        escape(&row.text),
        reasons.join(" · "),
        escape(&row.id),
    );
}

fn stream(html: &mut String, row: &StreamRow) {
    let reasons: Vec<String> = row.set_aside_by.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    let _ = write!(
        html,
        "<td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
         <td class=\"n\">{}<small>{}</small></td><td class=\"n\">{}</td><td>{}</td>",
        escape(&row.name),
        row.active,
        row.parked,
        row.readings,
        row.set_aside,
        escape(&reasons.join(" · ")),
        row.windows,
        escape(&row.models.join(", ")),
    );
}

fn command(html: &mut String, row: &CommandRow) {
    let _ = write!(html, "<td>{}</td><td>{}</td><td>{}</td>", escape(&row.at), escape(&row.rule), escape(&row.outcome));
}

fn learning(html: &mut String, row: &LearningRow) {
    let cells = [&row.at, &row.model, &row.outcome, &row.text].map(|cell| escape(cell));
    let _ = write!(html, "<td>{}</td>", cells.join("</td><td>"));
}

fn stage(html: &mut String, row: &StageRow) {
    let depth = row.depth.map_or_else(|| "–".to_owned(), |depth| depth.to_string());
    let _ = write!(
        html,
        "<td>{}</td><td class=\"n\">{depth}</td><td>{}</td><td>{}</td><td>{}</td>",
        escape(&row.name),
        escape(&row.bound),
        escape(&row.when_full),
        escape(&row.runs_on),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_becomes_markup() {
        let bad = "<script>alert('x')</script>\"";
        let data = PageData {
            site: bad.into(),
            version: bad.into(),
            now: bad.into(),
            ready: true,
            streams: vec![StreamRow {
                name: bad.into(),
                active: 1,
                parked: 0,
                readings: 2,
                set_aside: 3,
                set_aside_by: [("past", 3)].into_iter().collect(),
                windows: 4,
                models: vec![bad.into()],
            }],
            stages: vec![StageRow {
                name: bad.into(),
                depth: None,
                bound: bad.into(),
                when_full: bad.into(),
                runs_on: bad.into(),
            }],
            findings: vec![FindingRow {
                id: bad.into(),
                feedback: Some("false_alarm"),
                at: bad.into(),
                stream: bad.into(),
                key: [(bad.into(), "b3".into())].into_iter().collect(),
                stream_id: bad.into(),
                label: bad.into(),
                severity: bad.into(),
                score: 0.9,
                threshold: 0.5,
                model: bad.into(),
                text: bad.into(),
                reasons: vec![bad.into()],
            }],
            commands: vec![CommandRow { at: bad.into(), rule: bad.into(), outcome: bad.into() }],
            learning: vec![LearningRow { at: bad.into(), model: bad.into(), outcome: bad.into(), text: bad.into() }],
            outbox_items: 0,
            outbox_bytes: 0,
            uplink: bad.into(),
        };
        let html = render(&data);
        assert!(!html.contains("<script") && !html.contains("alert('x')"));
        assert!(html.contains("&lt;script&gt;") && html.contains("b3</small>"));
        assert!(html.contains("an operator says: false alarm"));
        assert!(html.contains("3<small>past 3</small>"), "what was set aside stands with its reason");
    }
}
