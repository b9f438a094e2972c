//! What a configuration file says of the process as a whole: its log, what it shows of itself, and who is told of events.

use super::Reader;
use crate::config::catalog::{LOG_FORMAT, LOG_LEVEL};
use crate::config::layer::file::entry::Section;
use crate::config::layer::file::yaml::{Content, Member};
use crate::config::setting::Declared;
use crate::config::value;
use crate::error::Result;
use crate::events::EVENTS;
use crate::monitor::Webhook;

impl Reader {
    /// Where events go: a list of `url`, `events` and `secret`.
    pub(super) fn webhooks(&mut self, member: Member) -> Result<Vec<Webhook>> {
        let mut webhooks = Vec::new();
        for node in self.sequence("webhooks", member.value)? {
            let line = node.line;
            let (mut url, mut events, mut secret) = (None, Vec::new(), None);
            for inner in self.mapping("an item of webhooks", node)?.unwrap_or_default() {
                match inner.key.as_str() {
                    "url" => url = self.scalar(&inner)?,
                    "secret" => secret = self.scalar(&inner)?,
                    "events" => events = self.events(inner)?,
                    _ => self.unknown(&inner, &[("url", ""), ("events", ""), ("secret", "")], "webhooks"),
                }
            }
            let url = url.ok_or_else(|| self.error(line, "this item of webhooks has no url"))?;
            if !value::is_web_address(&url) {
                return Err(self.error(line, "the url of a webhook begins with https:// or http://"));
            }
            webhooks.push(Webhook { url, events, secret });
        }
        Ok(webhooks)
    }

    /// Names of events.
    fn events(&self, member: Member) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for node in self.sequence("events", member.value)? {
            let name = self.text("events", &node)?.unwrap_or_default();
            if !EVENTS.iter().any(|event| event.name == name) {
                let known: Vec<_> = EVENTS.iter().map(|event| event.name).collect();
                return Err(self.error(
                    node.line,
                    format!("there is no event '{name}'; write some of {}", known.join(", ")),
                ));
            }
            names.push(name);
        }
        Ok(names)
    }

    /// What the process shows of itself.
    pub(super) fn monitor(&mut self, setting: &'static Declared, member: Member) -> Result<()> {
        let mut section = Section { values: std::mem::take(&mut self.process), ..Section::default() };
        let assigned = self.assign(setting, &mut section, member);
        self.process = section.values;
        assigned
    }

    pub(super) fn logging(&mut self, member: Member) -> Result<()> {
        let mut section = Section::default();
        for inner in self.section(member)? {
            match inner.key.as_str() {
                "level" => self.assign(&LOG_LEVEL.declared, &mut section, inner)?,
                "type" if matches!(&inner.value.content, Content::Scalar(text) if text == "pretty") => {
                    self.nothing(&inner, "events are lines of text without colours");
                }
                "type" => self.assign(&LOG_FORMAT.declared, &mut section, inner)?,
                "stderr" => self.nothing(&inner, "events go to standard error, or to LITESTREAM_LOG_FILE; standard output is the program's"),
                "source" => self.nothing(&inner, "events have no place in the source"),
                _ => self.unknown(&inner, &[("level", ""), ("type", ""), ("stderr", "")], "logging"),
            }
        }
        self.process.extend(section.values);
        Ok(())
    }
}
